"""wm-run look FOLDER: a recording -> what it holds, in words or as JSON; every byte of it is checked."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from wm_core.errors import UserError

from wm_run.recording import FACTS, PARTS, Recording
from wm_run.spaces import described


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `look` takes."""
    parser.add_argument("folder", help="of a recording")
    parser.add_argument("--json", action="store_true", help="for programs")


def run(args: argparse.Namespace, options: Mapping[str, Any]) -> int:
    """Print it."""
    if options:
        raise UserError(
            f"look has no option --env.{next(iter(options))}: a recording's task has those it was made with"
        )
    recording = Recording.open(args.folder)
    recording.verify()
    print(json.dumps(seen(recording)) if args.json else table(recording))
    return 0


def seen(recording: Recording) -> dict[str, Any]:
    """What it holds, as JSON."""
    about, train = recording.about, recording.part("train")
    bytes_of = {e.key: int(np.dtype(e.dtype).itemsize * np.prod(e.shape)) for e in train.chunks.schema}
    return {
        "task": about.task,
        "options": dict(about.options),
        "protocol": dict(about.protocol),
        "observations": {key: described(space) for key, space in about.observation_space.spaces.items()},
        "told": [key for key in train.keys if key.startswith(FACTS)],
        "action": {"discrete": list(about.action.discrete), "continuous": about.action.continuous},
        "agents": None if about.team is None else about.team.agents,
        "source": recording.source,
        "parts": {name: _part(recording, name) for name in PARTS},
        "entries": {e.key: [e.dtype, list(e.shape)] for e in train.chunks.schema},
        "bytes_of_a_record": bytes_of,
        "checksum": recording.checksum,
        "made_by": recording.made_by,
    }


def _part(recording: Recording, name: str) -> dict[str, Any]:
    episodes, part = recording.episodes(name), recording.part(name)
    whole = [one for one in episodes if one.ended != "cut"]
    found: dict[str, Any] = {
        "steps": recording.steps(name),
        "streams": part.streams,
        "records": part.position * part.streams,
    }
    found |= {"episodes": len(episodes), "ended": dict(sorted(Counter(one.ended for one in episodes).items()))}
    scores = {  # of whole episodes: one that is cut has no score
        recording.source[who]["who"]: _spread([one.score for one in whole if one.who == who])
        for who in sorted({one.who for one in whole})
    }
    return found | {"scores": scores, "lengths": _spread([one.length for one in whole])}


def _spread(values: list[float]) -> dict[str, float]:
    if not values:
        return {}
    return {"episodes": len(values), "mean": float(np.mean(values)), "least": min(values), "most": max(values)}


def table(recording: Recording) -> str:
    """The same in words."""
    summary = seen(recording)
    lines = [sentence(recording), "", f"  task      {summary['task'] or 'none that is known'}"]
    lines += [f"  option    {name} {value}" for name, value in summary["options"].items()]
    lines += [f"  played    {one['who']}: {one['steps']:,} steps, seed {one['seed']}" for one in summary["source"]]
    for key, (dtype, shape) in summary["entries"].items():
        kind = "observed" if key in summary["observations"] else "told" if key in summary["told"] else "record"
        lines.append(f"  {kind:9} {key} {dtype} {'x'.join(map(str, shape)) or 'one'}")
    for name, part in summary["parts"].items():
        ended = ", ".join(f"{count:,} {how}" for how, count in part["ended"].items()) or "none"
        lines.append(f"  {name:9} {part['steps']:,} steps in {part['streams']} streams; episodes: {ended}")
        for who, one in part["scores"].items():
            lines.append(
                f"            {who}: {one['episodes']:,} whole episodes, score {one['mean']:.4g} ({one['least']:.4g} to "
                f"{one['most']:.4g})"
            )
    return "\n".join([*lines, f"  checksum  {summary['checksum'][:16]}"])


def sentence(recording: Recording) -> str:
    """Its size in one line."""
    steps = {name: f"{recording.steps(name):,}" for name in PARTS}
    size = sum(path.stat().st_size for path in recording.folder.rglob("*") if path.is_file())
    return (
        f"{recording.folder}: {steps['train']} steps in {len(recording.episodes('train')):,} episodes to learn from, "
        f"{steps['held_out']} in {len(recording.episodes('held_out')):,} held out, {size / 1e6:,.1f} MB"
    )
