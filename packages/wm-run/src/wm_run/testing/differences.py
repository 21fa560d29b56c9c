"""Where two runs differ in a bit: weights, optimiser, generators, environments, replay, and every row of their logs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from wm_core.errors import UserError

from wm_run import checkpoint
from wm_run.loop import PRIVATE
from wm_run.replay import Replay

LOGS = ("metrics.jsonl", "scores.jsonl")


class Part(NamedTuple):
    """One line of the table."""

    name: str
    compared: int
    differences: list[str]


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Everything inside nested mappings and sequences, with its path.

    >>> list(leaves({"a": [1, {"b": 2}]}))
    [('a/0', 1), ('a/1/b', 2)]
    """
    if isinstance(value, Mapping):
        inner = [(str(key), one) for key, one in value.items()]
    elif isinstance(value, (list, tuple)):
        inner = [(str(i), one) for i, one in enumerate(value)]
    else:
        yield path, value
        return
    for name, one in inner:
        yield from leaves(one, f"{path}/{name}" if path else name)


def compare(name: str, a: Any, b: Any) -> Part:
    """Where two nested values differ in a bit, a type or a shape.

    >>> compare("x", {"w": torch.ones(2), "n": 3}, {"w": torch.ones(2), "n": 4})
    Part(name='x', compared=2, differences=['n: 3 and 4'])
    """
    one, other = dict(leaves(a)), dict(leaves(b))
    differences = [f"{path}: on one side only" for path in sorted(one.keys() ^ other.keys())]
    for path in [p for p in one if p in other]:
        if (difference := _difference(one[path], other[path])) is not None:
            differences.append(f"{path}: {difference}")
    return Part(name, len(one), differences)


def _difference(a: Any, b: Any) -> str | None:
    """How two leaves differ, in words, or None."""
    if type(a) is not type(b):
        return f"{type(a).__name__} and {type(b).__name__}"
    x, y = _array(a), _array(b)
    if x is None or y is None:
        return None if a == b else f"{a!r} and {b!r}"[:120]
    if x.dtype != y.dtype or x.shape != y.shape:
        return f"{x.dtype} {x.shape} and {y.dtype} {y.shape}"
    if x.tobytes() == y.tobytes():
        return None
    if x.dtype.kind not in "fiub" or not x.shape:
        return f"{a} and {b}"[:120]
    with np.errstate(invalid="ignore"):
        most = np.max(np.abs(x.astype(np.float64) - y.astype(np.float64)))
    return f"{int((x != y).sum())} of {x.size} numbers, by up to {most:.3g}"


def _array(value: Any) -> NDArray[Any] | None:
    """The bits of a tensor, an array or a float; None for what is compared by ==."""
    if isinstance(value, Tensor):
        return value.detach().view(torch.int16).numpy() if value.dtype == torch.bfloat16 else value.detach().numpy()
    return np.asarray(value) if isinstance(value, (np.ndarray, np.generic, float)) else None


def rows(path: Path) -> list[dict[str, Any]]:
    """The lines of a log without what the machine has a part in. Raises ValueError for a line that is not JSON."""
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return [{name: value for name, value in row.items() if not name.startswith(PRIVATE)} for row in found]


def stored(logdir: Path, state: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that a run's replay holds at its checkpoint: stream -> key -> (T, ...)."""
    replay = Replay(
        logdir / "replay",
        state["streams"],
        stores={},
        limit_bytes=2**62,
        chunk=state["chunk"],
        length=state["length"],
        online=False,
    )
    replay.load_state({**state, "queue": np.zeros((0, 2), np.int64)})
    held: dict[str, Any] = {}
    while replay.steps and len(held) < state["streams"]:  # a row as long as a stream is all of it
        batch = replay.sample(1, replay.steps // state["streams"])
        entries = {key: value[0] for key, value in batch.steps.items() if key not in ("weight", "reset")}
        held[str(int(batch.index.stream[0]))] = entries
    return held


def load(app: str, logdir: Path) -> checkpoint.Checkpoint:
    """The last complete checkpoint. Raises UserError where there is none or it cannot be read."""
    path = checkpoint.latest(logdir)
    if path is None:
        raise UserError(f"no checkpoint in {logdir}")
    return checkpoint.load(path, app=app)


def compare_runs(app: str, a: Path, b: Path) -> list[Part]:
    """Two run folders, part by part."""
    one, other = load(app, a), load(app, b)
    parts = [compare("step", one.step, other.step), compare("weights", one.weights, other.weights)]
    agents = [dict(saved.state["agent"]) for saved in (one, other)]
    parts.append(compare("optimiser", *(agent.pop("optimiser", {}) for agent in agents)))
    parts.append(compare("agent besides", *agents))
    for name in ("loop", "envs", "random"):
        parts.append(compare(name, one.state[name], other.state[name]))
    ends = [saved.state["replay"] for saved in (one, other)]
    parts.append(compare("replay position", *ends))
    parts.append(compare("replay", *(stored(folder, end) for folder, end in zip((a, b), ends, strict=True))))
    known = {"agent", "loop", "envs", "random", "replay", "run"}
    rest = [{name: value for name, value in saved.state.items() if name not in known} for saved in (one, other)]
    parts.append(compare("other state", *rest))
    return parts + [compare(f"{log} ({len(rows(a / log))} rows)", rows(a / log), rows(b / log)) for log in LOGS]


def show(parts: list[Part], say: Callable[[str], object], limit: int = 4) -> None:
    """The table, and the first differences of each part."""
    for part in parts:
        verdict = f"{len(part.differences):>6} differ" if part.differences else "   equal"
        say(f"  {part.name:28} {part.compared:>7} compared {verdict}")
        for line in part.differences[:limit]:
            say(f"      {line}")
