"""Run folders -> runs -> groups that may be averaged -> curves with intervals. numpy alone.

Runs are of one group where app, task, protocol and config are the same but for the seed and what a resumed run may
change. A curve is the mean over the seeds of a group, its interval one standard error of that mean; one seed has none.
Sizes: N runs of a group, P points of a curve.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from wm_core.errors import UserError

from wm_run.config import RESUMABLE
from wm_run.durable import lost
from wm_run.manifest import kept_config

POINTS = 40
TAIL = 0.1  # the share of a run, at its end, that its final score is the mean of
SCORE = "episode/score"
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Logged:
    """One run as its folder tells it; series holds (step, value) of every number logged, in the order of steps."""

    logdir: Path
    config: Mapping[str, Any]
    protocol: Mapping[str, Any]
    environment: Mapping[str, Any]
    series: Mapping[str, tuple[Floats, Floats]]

    @property
    def app(self) -> str:
        return str(self.config.get("run", {}).get("app", "?"))

    @property
    def task(self) -> str:
        return str(self.config.get("task", "?"))

    @property
    def seed(self) -> int:
        return int(self.config.get("seed", 0))

    @property
    def reached(self) -> int:
        """The last step of any line."""
        return int(max((steps[-1] for steps, _ in self.series.values()), default=0))

    def final(self) -> tuple[float, int]:
        """Mean score of the episodes that ended in the last tenth of the run, and how many; nan, 0 without any."""
        steps, scores = self.series.get(SCORE, (np.zeros(0), np.zeros(0)))
        last = scores[(steps > self.reached * (1 - TAIL)) & np.isfinite(scores)]
        return (float(last.mean()), len(last)) if len(last) else (math.nan, 0)


@dataclass(frozen=True)
class Curve:
    """Points at the right ends of equal spans of steps: x, mean, error and count are (P,).

    error is one standard error over seeds, nan where fewer than two have a value; count the seeds at each point.
    """

    x: Floats
    mean: Floats
    error: Floats
    count: NDArray[np.int64]


@dataclass(frozen=True)
class Group:
    """Runs that differ by the seed."""

    label: str
    runs: tuple[Logged, ...]

    @property
    def task(self) -> str:
        return self.runs[0].task

    @property
    def seeds(self) -> list[int]:
        return [run.seed for run in self.runs]

    def curve(self, name: str, end: float, points: int = POINTS) -> Curve:
        """One number over steps 0 .. end, at no more points than the run with most lines of it has."""
        series = [run.series[name] for run in self.runs if name in run.series]
        points = min(points, max(len(steps) for steps, _ in series))
        rows = np.stack([binned(*one, end, points) for one in series])
        mean, error, count = over_seeds(rows)
        return Curve(np.linspace(0, end, points + 1)[1:], mean, error, count)

    def names(self) -> set[str]:
        """Of all that any run logged."""
        return set().union(*(run.series for run in self.runs))


def over_seeds(rows: Floats) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Mean, standard error of the mean and number of values along axis 0; nan values are not there.

    >>> mean, error, count = over_seeds(np.array([[1.0, 5.0], [3.0, np.nan]]))
    >>> mean.tolist(), error.tolist(), count.tolist()
    ([2.0, 5.0], [1.0, nan], [2, 1])
    """
    there = np.isfinite(rows)
    count = there.sum(0)
    mean = np.where(there, rows, 0).sum(0) / np.where(count, count, np.nan)
    square = np.where(there, rows - mean, 0) ** 2
    error = np.sqrt(square.sum(0) / np.where(count > 1, count - 1, np.nan) / np.where(count, count, np.nan))
    return mean, error, count


def binned(steps: Floats, values: Floats, end: float, points: int) -> Floats:
    """Mean value in each of `points` spans (left, right] of 0 .. end: (points,).

    A span without a line repeats the one before (an episode may be longer than a span); one in which only nan was
    logged is nan, and so is what comes before the first line or after the last.

    >>> binned(np.array([1.0, 2.0, 9.0]), np.array([4.0, 6.0, 1.0]), 12.0, 4).tolist()
    [5.0, 5.0, 1.0, nan]
    """
    if not len(steps):
        return np.full(points, np.nan)
    where = (np.ceil(steps * points / max(end, 1e-12)).astype(np.int64) - 1).clip(0, points - 1)
    there = np.isfinite(values)
    sums, counts, logged = np.zeros(points), np.zeros(points), np.zeros(points, np.bool_)
    np.add.at(sums, where[there], values[there])
    np.add.at(counts, where[there], 1)
    logged[where] = True
    means = sums / np.where(counts, counts, np.nan)
    latest = np.maximum.accumulate(np.where(logged, np.arange(points), -1))
    held = np.where(latest >= 0, means[latest.clip(0)], np.nan)
    held[where.max() + 1 :] = np.nan
    return held


# ---- reading


def find(folders: Iterable[str | Path]) -> list[Path]:
    """Run folders among these or inside them, at most three levels down; what lies in a run, as the folders of its
    other processes do, is part of it. Raises UserError where there is none."""
    found: list[Path] = []
    for folder in map(Path, folders):
        inside: list[Path] = []
        for depth in ("", "*/", "*/*/", "*/*/*/"):
            here = sorted(path.parent for path in folder.glob(f"{depth}config.toml") if path.is_file())
            inside += [path for path in here if not set(path.parents) & set(inside)]
        if not inside:
            raise UserError(f"there is no run in {folder} (no config.toml): name folders that `train` printed")
        found += inside
    unique = {path.resolve(): path for path in found}
    return list(unique.values())


def read(logdir: Path) -> Logged:
    """The run in a folder; a half-written last line is left out. Raises UserError for a file that is none of ours."""
    path = logdir / "config.toml"
    try:
        config = kept_config(logdir) if lost(path) else tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{logdir / 'config.toml'} is not TOML: {error}") from error
    series: dict[str, tuple[list[float], list[float]]] = {}
    for name in ("scores.jsonl", "metrics.jsonl"):
        for row in _lines(logdir / name):
            step = float(row.get("step", 0))
            for key, value in row.items():
                if key != "step" and (value is None or isinstance(value, (int, float))):
                    steps, values = series.setdefault(key, ([], []))
                    steps.append(step)
                    values.append(math.nan if value is None else float(value))
    arrays = {key: (np.array(steps), np.array(values)) for key, (steps, values) in series.items()}
    return Logged(logdir, config, _json(logdir / "protocol.json"), _json(logdir / "env.json"), arrays)


def _lines(path: Path) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1] if path.is_file() else [], 1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"line {number} of {path} is not JSON: take it out") from error
        if isinstance(row, dict):
            rows.append(row)
    return rows


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    return value if isinstance(value, dict) else {}


# ---- grouping


def group(runs: Sequence[Logged], *, mixed: bool = False) -> tuple[list[Group], list[str]]:
    """Groups in the order of their names, and sentences about what was left out or marked.

    Runs of one task under different protocols measure different things: UserError, unless `mixed`, which marks every
    label of that task with what its protocol has of its own. Of two runs with one seed the longer stays, for they are
    no two samples.
    """
    notes: list[str] = []
    marks: dict[Path, str] = {}
    for task in dict.fromkeys(run.task for run in runs):
        here = [run for run in runs if run.task == task]
        if names := differing([run.protocol for run in here]):
            said = f"the runs of {task} have different protocols ({_both(here, names)})"
            if not mixed:
                raise UserError(f"{said}: their scores do not compare; name fewer runs, or give --mixed to mark them")
            notes.append(f"{said}; their scores do not compare, and every curve says its own")
            marks |= {run.logdir: f" [{_named(run.protocol, names)}]" for run in here}
    sets: dict[tuple[Any, ...], list[Logged]] = {}
    shared = {app: _shared([run for run in runs if run.app == app]) for app in {run.app for run in runs}}
    for run in runs:
        numbers = tuple((name, repr(run.config.get(name))) for name in shared[run.app])
        origin = tuple(run.config.get("run", {}).get(name, "") for name in ("preset", "size", "ablation"))
        sets.setdefault((run.task, run.app, origin, numbers, marks.get(run.logdir, "")), []).append(run)
    groups = []
    for key, members in sets.items():
        others = [other for other in sets if other[:2] == key[:2]]
        kept: dict[int, Logged] = {}
        for run in sorted(members, key=lambda run: run.reached):
            if run.seed in kept:
                notes.append(f"{kept[run.seed].logdir} has the seed of the longer {run.logdir} and is left out")
            kept[run.seed] = run
        groups.append(Group(_label(key, others) + key[4], tuple(kept[seed] for seed in sorted(kept))))
    return sorted(groups, key=lambda one: (one.task, one.label)), notes


def differing(dicts: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names that have not one value in all of them.

    >>> differing([{"sticky": 0.25, "noops": 30}, {"sticky": 0.0, "noops": 30}])
    ['sticky']
    """
    names = dict.fromkeys(name for one in dicts for name in one)
    return [name for name in names if len({repr(one.get(name)) for one in dicts}) > 1]


def _shared(runs: Sequence[Logged]) -> list[str]:
    """Fields that make a method, known to all these runs; an older run lacks what came later."""
    names = set.intersection(*(set(run.config) for run in runs))
    return sorted(names - set(RESUMABLE) - {"seed", "task", "run"})


def _label(key: tuple[Any, ...], others: Sequence[tuple[Any, ...]]) -> str:
    """The app, its ablation, and of preset, size and numbers what tells it from the others on this task."""
    (preset, size, ablation), numbers = key[2], dict(key[3])
    words = [key[1]] + ([ablation] if ablation else [])
    if len({other[2][0] for other in others}) > 1:
        words.append(preset or "no preset")
    if len({other[2][1] for other in others}) > 1:
        words.append(size or "default size")
    alike = [dict(other[3]) for other in others if other[2] == key[2]]
    own = [f"{name} {numbers[name]}" for name in differing(alike)]
    return " ".join([*words, *own[:3], *(["..."] if len(own) > 3 else [])])


def _both(runs: Sequence[Logged], names: Sequence[str]) -> str:
    return "; ".join(
        f"{name}: {' or '.join(dict.fromkeys(_word(run.protocol.get(name)) for run in runs))}" for name in names
    )


def _named(protocol: Mapping[str, Any], names: Sequence[str]) -> str:
    return ", ".join(f"{name} {_word(protocol.get(name))}" for name in names)


def _word(value: Any) -> str:
    return "none" if value is None else value if isinstance(value, str) else json.dumps(value)
