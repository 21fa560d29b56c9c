"""Runs -> groups that may be averaged.

Runs are of one group where app, task, protocol and config are the same but for the seed and what a resumed run may
change, which each run says of itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wm_suite.errors import SuiteError
from wm_suite.gather import Logged
from wm_suite.statistics import Curve, binned, over_seeds

POINTS = 40


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


def group(runs: Sequence[Logged], *, mixed: bool = False) -> tuple[list[Group], list[str]]:
    """Groups in the order of their names, and sentences about what was left out or marked.

    Runs of one task under different protocols measure different things: SuiteError, unless `mixed`, which marks every
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
                raise SuiteError(f"{said}: their scores do not compare; name fewer runs, or give --mixed to mark them")
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
    return sorted(names - set().union(*(run.resumable for run in runs)) - {"seed", "task", "run"})


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
