"""A run and its scores -> the card of a published agent: what it is, how well it plays, and what it was made with.

The facts stand in front as YAML, each on its line as JSON, which is YAML too: a hub reads them, and so does `facts`.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from wm_core.errors import UserError

from wm_run.config import MACHINE, RunConfig, marked
from wm_run.configs import resolve
from wm_run.task_options import flat

if TYPE_CHECKING:
    from wm_run.app import App, Origin

FENCE = "---"
OUTCOMES = ("won",)  # of an episode, beside its score


def facts(card: str) -> dict[str, Any]:
    r"""What stands in front of a card. Raises UserError for a text that is none of ours.

    >>> facts('---\ntask: "toy:catch"\nscore: 0.5\n---\n# A card')
    {'task': 'toy:catch', 'score': 0.5}
    """
    lines = card.split("\n")
    try:
        if lines[0] != FENCE:
            raise ValueError
        inside = lines[1 : lines.index(FENCE, 1)]
        return {name: json.loads(value) for name, _, value in (line.partition(": ") for line in inside)}
    except ValueError as error:
        raise UserError(
            "this README.md is no card that `publish` wrote: its first lines say nothing that we read"
        ) from error


def written(about: Mapping[str, Any], text: str) -> str:
    """The card: facts, then prose."""
    lines = [f"{name}: {json.dumps(value, ensure_ascii=False, allow_nan=False)}" for name, value in about.items()]
    return "\n".join([FENCE, *lines, FENCE, "", text])


def prose(about: Mapping[str, Any]) -> str:
    """What the facts say, in words."""
    app, task, shipped = about["app"], about["task"], about["seed"]
    verb, does = ("play", "plays, dreams") if about["world_model"] else ("eval", "plays")
    what = (
        f"An agent of the app `{app}` (wm-run), as it stood after {about['step']:,} environment steps (seed {shipped}, "
        f"{about['parameters']:,} parameters, float32). What is here {does} and gives its weights to a new run; it has no "
        "replay and no optimiser, so the run does not go on from here."
    )
    if kept := about.get("memories"):
        of = about["memories_of"]
        what += (
            f" It brings what {'all' if kept == of else kept} of the {of} environments of its training left in its memory, and "
            "environments that it plays begin with these in turn."
        )
    start = f"uv run -m {about['module']} {verb} FOLDER     # this folder, pretrained:NAME or hf:ORG/NAME"
    lines = [f"# {app} on {task}", "", what, "", "```bash", start, "```", ""]
    lines += ["| seed | score | episodes | step | commit |", "|---|---|---|---|---|"]
    for row in about["scores"]:
        mark = " (this one)" if row["seed"] == shipped else ""
        lines.append(
            f"| {row['seed']}{mark} | {_shown(row)} | {row['episodes']} | {row['step']:,} | {row['commit'] or 'unknown'} |"
        )
    lines += [
        "",
        f"Scores: {about['measured']}. What a score means is under `protocol` above; scores under another protocol are others.",
        f"Trained with `{about['command']}`, commit {about['commit'] or 'unknown'}, on {about['hardware'] or 'unknown hardware'}.",
        "",
    ]
    return "\n".join(lines)


def _shown(row: Mapping[str, Any]) -> str:
    if isinstance(row["score"], Mapping):
        return ", ".join(f"{name}: {value:.3g}" for name, value in row["score"].items())
    error = f" ± {row['standard_error']:.2g}" if row.get("standard_error") is not None else ""
    more = "".join(f", {name} {row[name]:.1%}" for name in OUTCOMES if name in row)
    return f"{row['score']:.4g}{error}{more}"


def of_rows(path: Path, app: App, config: RunConfig, origin: Origin) -> list[dict[str, Any]]:
    """The scores of every seed in a file of rows (wm-suite's): those of this app, task, preset and ablation, the last of each
    seed. Raises UserError where the file is none, or this agent's seed is not in it."""
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        mine = [row for row in lines if _is_of(row, app, config, origin)]
        found = {row["seed"]: _row(row) for row in mine if row.get("trained")}
    except OSError as error:
        raise UserError(
            f"cannot read the rows in {path} ({error.strerror}): give a file of JSON lines as --rows"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is no file of rows (JSON lines with seed, step and trained): give another --rows"
        ) from error
    if config.seed not in found:
        raise UserError(
            f"{path} has no row of {app.name} on {config.task} with preset {origin.preset or 'none'!r} and seed {config.seed}, "
            "which this agent has: give the file that its suite wrote"
        )
    return [found[seed] for seed in sorted(found)]


def _is_of(row: Mapping[str, Any], app: App, config: RunConfig, origin: Origin) -> bool:
    made = row.get("settings", {})
    return (
        row.get("task", config.task) == config.task
        and made.get("app", app.name) == app.name
        and made.get("preset", origin.preset) == origin.preset
        and made.get("ablation", "" if made else row.get("variant", "").replace("full", "")) == origin.ablation
    )


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    """One seed of a card."""
    trained = row["trained"]
    about = {"seed": int(row["seed"]), "step": int(row["step"]), "commit": row.get("commit")}
    if isinstance(trained, Mapping):  # a measure of its own, as of doors: shares by what they are of
        shares = {str(name): float(value) for name, value in trained.items() if not isinstance(value, (list, Mapping))}
        return about | {"score": shares, "episodes": max(map(int, trained.get("n", [0])))}
    return about | _summary(trained) | {name: float(np.mean(row[name])) for name in OUTCOMES if name in row}


def _summary(scores: Sequence[float]) -> dict[str, Any]:
    """Mean, its standard error, and of how many."""
    values = np.asarray(scores, np.float64)
    error = float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else None
    return {"score": float(values.mean()), "standard_error": error, "episodes": len(values)}


def of_evaluation(logdir: Path, config: RunConfig, step: int, commit: str | None) -> tuple[list[dict[str, Any]], str]:
    """The score of the run's own evaluation at this step, and how it was acted. Raises UserError where there is none: a card
    without a score says nothing."""
    path = next(
        (one for one in (logdir / "eval" / f"{step}{end}.json" for end in ("", "-mode")) if one.is_file()), None
    )
    if path is None:
        raise UserError(
            f"{logdir} has no evaluation of step {step}, and a card says how well an agent plays: run `eval {logdir}` first, or "
            "give --rows"
        )
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        about = {"seed": config.seed, "step": int(result["step"]), "commit": commit}
        about |= _summary(result["scores"]) | {name: float(result[name]) for name in OUTCOMES if name in result}
        how = f"{len(result['scores'])} fresh episodes, the policy's {result['acting']}, memory {result['memory']}"
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged: remove it and let `eval` make it anew") from error
    return [about], how


def command(app: App, config: RunConfig, origin: Origin) -> str:
    """What to type for such a run: the preset, and what differs from it."""
    try:
        base = resolve(app, origin.preset, origin.size, origin.ablation)
    except UserError:  # of a name that is no more
        base = app.config()
    words = [f"uv run -m {app.module} train"]
    words += [f"--{name} {value}" for name, value in dataclasses.asdict(origin).items() if name != "note" and value]
    given, usual = flat(dataclasses.asdict(config)), flat(dataclasses.asdict(base))
    left = {*marked(type(config), MACHINE), "log"}
    for name, value in given.items():
        if name in left or usual.get(name, "") == value or name in usual and usual[name] is None:
            continue
        if isinstance(value, (list, tuple)):
            words.append(f"--{name} {' '.join(shlex.quote(str(one)) for one in value)}")
        elif name.startswith("env."):
            words.append(f"--{name} {shlex.quote(value if isinstance(value, str) else json.dumps(value))}")
        else:
            words.append(f"--{name} {shlex.quote(str(value))}")
    return " ".join(words)


def index(about: Mapping[str, Any]) -> list[dict[str, Any]]:
    """`model-index`, as hubs list results; of one number alone."""
    row = next(row for row in about["scores"] if row["seed"] == about["seed"])
    if isinstance(row["score"], Mapping):
        return []
    value = f"{row['score']:.4g}"
    metric = {"type": "mean_reward", "name": "mean_reward", "value": value}
    kind = {"type": "reinforcement-learning", "name": "reinforcement-learning"}
    data = {"type": about["task"], "name": about["task"]}
    return [
        {
            "name": f"{about['app']} on {about['task']}",
            "results": [{"task": kind, "dataset": data, "metrics": [metric]}],
        }
    ]
