"""Six world models on the same recordings: what each foresees of held-out episodes, at equal updates and at equal FLOPs.

    uv run tools/six_models.py record              # three recordings, in runs/recordings; goes on where it was
    uv run tools/six_models.py cost                # parameters by part and FLOPs of an update, from shapes alone
    uv run tools/suite.py run six           # 54 runs that learn the world model alone (`train --data`); resumable
    uv run tools/six_models.py table six           # docs/results/six.md from the rows
    uv run tools/six_models.py record recall && uv run tools/suite.py run recall && uv run tools/six_models.py table recall
    uv run tools/six_models.py controls recall     # what the probe of recall finds in states that are known

A run keeps a checkpoint at every eighth of its way. `measured` passes the same held-out rows through each of them, so that
both tables come from the same runs: at equal updates the last checkpoints are compared; at equal FLOPs each arm is taken
where it has computed as much as the cheapest arm at its end, linearly between its checkpoints and nowhere beyond them. The
tables are made of whatever rows there are, and say what is missing.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
RECORDINGS = Path("runs") / "recordings"  # relative to the checkout, as the suites name them
ROWS, CONTEXT, IMAGINED = 96, 48, 15  # context and dream together fit the 64 positions of STORM
PROBED = 384  # rows of a toy, half of which test a probe: 192 of one in four right have a standard error of 0.03
COLLECT: dict[str, dict[str, list[str]]] = {  # of each suite: recording -> words of `wm-run collect`
    "six": {
        "breakout": ["atari100k_breakout", "--steps", "160000", "--who", "random:0.5", "six_models:breakout:0.5"],
        "freeway": ["atari100k_freeway", "--steps", "160000", "--who", "random:0.5", "six_models:freeway:0.5"],
        "repeat": ["popgym_RepeatPreviousMedium", "--steps", "40000"],
    },
    "recall": {
        "doors": ["toy:doors", "--steps", "200000", "--env.cues", "8", "--envs", "64", "--held-out", "0.3"],
        "cue_maze": ["toy:cue_maze", "--steps", "400000", "--envs", "64", "--held-out", "0.3"],
    },
}


# ---- players that look at one picture (n, 64, 64, 3)

Record = Mapping[str, NDArray[Any]]
NOOP, FIRE, RIGHT, LEFT = 0, 1, 2, 3  # of Breakout
UP = 1  # of Freeway


def breakout(record: Record) -> NDArray[np.float32]:
    """Follow the ball with the paddle; serve where there is no ball.

    >>> breakout({"image": np.zeros((2, 64, 64, 3), np.uint8), "action": np.zeros((2, 4), np.float32)}).argmax(-1).tolist()
    [1, 1]
    """
    red = record["image"][:, :, 4:60, 0].astype(np.float32)  # between the walls
    ball, paddle = _centre(red[:, 29:56].max(1), 40), _centre(red[:, 57:59].max(1), 60)
    apart = np.where(np.isnan(paddle), 0, ball - paddle)
    chosen = np.where(np.isnan(ball), FIRE, np.where(apart > 1, RIGHT, np.where(apart < -1, LEFT, NOOP)))
    return np.eye(record["action"].shape[-1], dtype=np.float32)[chosen]


def freeway(record: Record) -> NDArray[np.float32]:
    """Up, whatever comes."""
    return np.eye(record["action"].shape[-1], dtype=np.float32)[np.full(len(record["action"]), UP)]


def _centre(line: NDArray[np.float32], least: float) -> NDArray[Any]:
    """(n, X) -> the mean place of what is brighter, nan where nothing is."""
    lit = line > least
    count = lit.sum(-1)
    return np.where(count, (lit * np.arange(line.shape[-1])).sum(-1) / np.maximum(count, 1), np.nan)


# ---- the measure of both suites


def measured(logdir: Path, cell: Mapping[str, Any]) -> dict[str, Any]:
    """Of every checkpoint of a run what it foresees of held-out rows, and of the last one all that the microscope shows.

    Returns:
        checkpoints: [updates, {observation: errors by horizon}, squared errors of the imagined reward by horizon] of each.
        microscope: `wm_run.microscope.measured.measure` of the last. losses: [updates, {loss: held-out value}] on the way.
        foreseen: 1 - error / error of the last frame repeated, over all horizons: the score. parameters: by part.
    """
    import importlib

    import torch
    from wm_run.microscope.command import discount_of, seeing
    from wm_run.microscope.measured import heads, measure
    from wm_run.microscope.passing import folded, look, room

    torch.set_num_threads(1)
    app = importlib.import_module(cell["app"])
    rows = looked_at(ROOT / cell["options"]["data"], cell["task"])
    steps = sorted(int(path.name) for path in (logdir / "checkpoint").iterdir() if path.name.isdecimal())
    each = []
    for step in steps:
        with tempfile.TemporaryDirectory() as folder:
            loaded = app.load(only(logdir, step, Path(folder)), device="cpu")
            agent = seeing(loaded)
            given, _ = folded(agent, rows)
            sees = room(agent, CONTEXT, IMAGINED)
            found = look(agent, given, CONTEXT, sees=sees, seed=0)
            cut = {key: given[key][:, CONTEXT - sees :] for key in ("reward", "first", "last", "terminal")}
            errors = {key: means(of["model"], found.valid) for key, of in found.errors.items()}
            reward = heads(found, cut, found.valid, sees, 1.0)["reward"]["ahead"]
            each.append([updates(loaded.config, step), errors, reward])
            if step == steps[-1]:
                last, found = measure(agent, rows, discount=discount_of(loaded), seed=0)
                model, copy = (
                    means(next(iter(found.errors.values()))[name], found.valid) for name in ("model", "copy")
                )
                parameters = agent.parameters_by_module()
    foreseen = 1 - float(np.mean(_there(model))) / max(float(np.mean(_there(copy))), 1e-12)
    return {
        "foreseen": foreseen,
        "checkpoints": each,
        "microscope": last,
        "losses": losses(logdir, loaded.config),
        "parameters": parameters["total"],
        "parts": parameters,
        "step": steps[-1],
    }


def looked_at(data: Path, task: str) -> Any:
    """The rows for a recording; of cue_maze those whose context ends in a question, which the fact decides."""
    from wm_run.microscope.rows import recorded

    many = PROBED if task.startswith("toy:") else ROWS
    if task != "toy:cue_maze":
        return recorded(data, "held_out", many, CONTEXT, IMAGINED, 0)
    rows = recorded(data, "held_out", 8 * many, CONTEXT, IMAGINED, 0)
    asked = (rows.steps["vector"][:, CONTEXT - 1, -1] > 0).nonzero().flatten()[:many]
    return dataclasses.replace(
        rows,
        steps={key: value[asked] for key, value in rows.steps.items()},
        told={key: value[asked] for key, value in rows.told.items()},
        stream=rows.stream[asked],
        start=rows.start[asked],
    )


def means(each: Any, valid: Any) -> list[float | None]:
    """By horizon."""
    from wm_run.microscope.errors import by_horizon

    return by_horizon(each, valid)


def only(logdir: Path, step: int, folder: Path) -> Path:
    """A run folder that has this checkpoint alone."""
    (folder / "checkpoint").mkdir()
    (folder / "checkpoint" / str(step)).symlink_to((logdir / "checkpoint" / str(step)).resolve())
    (folder / "config.toml").symlink_to((logdir / "config.toml").resolve())
    return folder


def updates(config: Any, step: int) -> int:
    """That a run has made by a step, of a recording."""
    from wm_run.recording import Recording

    repeat = Recording.open(ROOT / config.data).repeat
    return round(step / repeat * config.train_ratio / config.replayed)


def losses(logdir: Path, config: Any) -> list[list[Any]]:
    """Losses on held-out episodes over updates, as the run logged them."""
    found = []
    for line in (logdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        mine = {name: value for name, value in row.items() if name.startswith("held_out/")}
        if mine:
            found.append([updates(config, row["step"]), mine])
    return found


def _there(values: Sequence[float | None]) -> list[float]:
    return [one for one in values if one is not None]


# ---- commands


def record(suite: str) -> None:
    """The suite's recordings."""
    for name, words in COLLECT[suite].items():
        command = [sys.executable, "-m", "wm_run.command", "collect", *words, "--to", str(RECORDINGS / name)]
        here = {"PYTHONPATH": str(ROOT / "tools")}  # where the players are
        subprocess.run(command, cwd=ROOT, env=os.environ | here, check=True)


def cost(suite: str) -> list[dict[str, Any]]:
    """Parameters by part and FLOPs of an update of the first seed of every cell of a suite."""
    from wm_suite.suites import read

    found, seen = [], set()
    for cell in read(ROOT / "tools" / "suites" / f"{suite}.toml").cells:
        if (cell.task, cell.arm) in seen:
            continue
        seen.add((cell.task, cell.arm))
        words = ["info", "--preset", cell.preset, "--task", cell.task, "--json", "--count"]
        words += ["--ablation", cell.ablation] if cell.ablation else []
        for name, value in cell.options.items():
            words += [f"--{name.replace('_', '-')}", str(value)]
        text = subprocess.run(
            [sys.executable, "-m", cell.app, *words], cwd=ROOT, check=True, capture_output=True, text=True
        ).stdout
        info = json.loads(text.splitlines()[-1])
        flops = info["estimate"]["flops_per_update"]
        found.append({"task": cell.task, "arm": cell.arm, "flops": flops, "parameters": info["parameters"]})
    return found


def _controls(suite: str) -> list[dict[str, Any]]:
    import six_controls
    import torch
    from wm_suite.suites import read

    torch.set_num_threads(1)
    return six_controls.controls(read(ROOT / "tools" / "suites" / f"{suite}.toml").cells)


def main(words: Sequence[str] | None = None) -> int:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=("record", "cost", "controls", "table"))
    parser.add_argument("suite", nargs="?", default="six", choices=tuple(COLLECT))
    args = parser.parse_args(words)
    if args.verb == "record":
        record(args.suite)
    elif args.verb == "controls" and args.suite != "recall":
        parser.error(f"{args.suite} has no probe of a hidden fact, so nothing to control: give the suite recall")
    elif args.verb in ("cost", "controls"):
        path = ROOT / "docs" / "results" / f"{args.suite}-{args.verb}.json"
        found = cost(args.suite) if args.verb == "cost" else _controls(args.suite)
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(path)
    else:
        import six_table

        print(six_table.write(args.suite, ROOT / "docs" / "results"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
