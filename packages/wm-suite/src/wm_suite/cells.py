"""Rows -> the entries of a table: what an arm reached on a task, over the seeds that may be averaged.

Seeds of one entry share the conditions under which they were measured: protocol.json, and the measure. Where those of a
task differ, nothing is averaged across them and every entry says its own; seeds of different configurations are averaged
and marked. What is not there has a `Gap` that says why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from wm_suite import doubts, foreign
from wm_suite.errors import SuiteError
from wm_suite.groups import differing
from wm_suite.statistics import over_seeds

LARGEST = 2**53  # of numbers of steps
KNOWN = frozenset(
    [
        "suite",
        "task",
        "arm",
        "seed",
        "settings",
        "config",
        "parameters",
        "commit",
        "step",
        "ended",
        "wall_s",
        "spent_s",
        "curve",
        "measure",
        "protocol",
        "hardware",
        "command",
        "folder",
        "versions",
    ]
)  # fields of a row that are no results


@dataclass(frozen=True)
class Sample:
    """One run as its row tells it; source and line: where the row stands."""

    row: Mapping[str, Any]
    source: int = 0
    line: int = 0

    @property
    def name(self) -> str:
        """Under which a passport knows it."""
        return "{1} on {0}, seed {2}".format(*self.key)

    @property
    def key(self) -> tuple[str, str, int]:
        """Task, arm and seed."""
        return self.row["task"], self.row["arm"], self.row["seed"]

    @property
    def conditions(self) -> dict[str, Any]:
        """What a score of it means; {} where that is not recorded."""
        protocol, measure = self.row.get("protocol"), self.row.get("measure")
        found = dict(protocol) if isinstance(protocol, Mapping) else {}
        return found | ({"measured by": measure} if measure else {})

    def episodes(self, field: str) -> list[float]:
        """The numbers of a field, of every episode or one for all; [] where it has none.

        >>> [Sample({"won": won}).episodes("won") for won in ([1, 0], 0.25, "no")]
        [[1.0, 0.0], [0.25], []]
        """
        value = self.row.get(field)
        values = value if isinstance(value, list) else [] if value is None else [value]
        try:
            return [foreign.number(one) for one in values]
        except foreign.Odd:
            return []

    def mean(self, field: str) -> float:
        """Over episodes; nan without any."""
        found = self.episodes(field)
        return float(np.mean(found)) if found else float("nan")

    def training(self) -> float:
        """Mean training score of the last fifth of the steps; nan where no curve was kept.

        >>> Sample({"curve": [[100, -1.0], [200, -0.5], [980, 0.5], [1000, 1.0]], "step": 1000}).training()
        0.75
        """
        curve, step = self.row.get("curve") or [], self.row.get("step") or 0
        found = [score for at, score in curve if at > 0.8 * step]
        return float(np.mean(found)) if found else float("nan")


@dataclass(frozen=True)
class Entry:
    """Seeds of an arm on a task under the same conditions. mark: its conditions, where those of the task differ; doubts:
    sentences about what is unlike in it."""

    task: str
    arm: str
    samples: tuple[Sample, ...]
    mark: str = ""
    doubts: tuple[str, ...] = ()

    def over_seeds(self, field: str) -> tuple[float, float, int]:
        """Mean, standard error and number of the seeds' means."""
        means = [one.training() if field == "curve" else one.mean(field) for one in self.samples]
        mean, error, count = over_seeds(np.array(means).reshape(-1, 1))
        return float(mean[0]), float(error[0]), int(count[0])


@dataclass(frozen=True)
class Planned:
    """A run that a suite plans. state: of one without a row, why; detail: what its diary says of that."""

    task: str
    arm: str
    seed: int
    settings: Mapping[str, Any]
    state: str = "not run"
    detail: str = ""

    @property
    def key(self) -> tuple[str, str, int]:
        return self.task, self.arm, self.seed


@dataclass(frozen=True)
class Board:
    """Entries and gaps by task and arm, in the order of the plan; planned: whether there is one; notes: sentences for the
    whole page."""

    tasks: tuple[str, ...]
    arms: tuple[str, ...]
    entries: Mapping[tuple[str, str], tuple[Entry, ...]]
    gaps: Mapping[tuple[str, str], tuple[Planned, ...]]
    notes: tuple[str, ...] = ()
    planned: bool = False

    def all(self) -> list[Entry]:
        return [one for task in self.tasks for arm in self.arms for one in self.entries.get((task, arm), ())]


def newest(samples: Iterable[Sample]) -> list[Sample]:
    """Of several rows of a run the last. Raises SuiteError for one that names no run, and for two of
    one name."""
    found: dict[tuple[str, str, int], Sample] = {}
    for one in samples:
        if odd := _odd(one.row):
            raise SuiteError(f"row {one.line} is none that a page can be made of: {odd}; mend it, or take it out")
        found.pop(one.key, None)
        found[one.key] = one
    names = [one.name for one in found.values()]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise SuiteError(f"two runs are both called {twice[0]!r}: give an arm another name")
    return list(found.values())


def _odd(row: Mapping[str, Any]) -> str:
    """What of a row is not of its kind; anybody may have written it."""
    for name, kind in (("task", str), ("arm", str), ("seed", int)):
        if type(row.get(name)) is not kind:
            return f"it says no {name} that could be one"
    settings, curve = row.get("settings"), row.get("curve")
    if not isinstance(settings or {}, Mapping) or not isinstance((settings or {}).get("options") or {}, Mapping):
        return "its settings are no table with one of options"
    if not isinstance(row.get("step", 0), int) or not 0 <= row.get("step", 0) < LARGEST:
        return "its step is no number of steps"
    try:
        for step, score in curve or ():
            foreign.step(step), foreign.number(score)
    except (TypeError, ValueError):
        return "its curve is no list of steps with their scores"
    return ""


def board(samples: Sequence[Sample], plan: Sequence[Planned] = (), *, score: str = "trained") -> Board:
    """The table of these rows; without a plan, of all that they hold.

    >>> rows = [{"task": "toy:catch", "arm": "a", "seed": seed, "trained": [0.0, seed]} for seed in (0, 1)]
    >>> found = board([Sample(row, 0, line) for line, row in enumerate(rows, 1)], score="trained")
    >>> found.entries["toy:catch", "a"][0].over_seeds("trained")[0]
    0.25
    """
    rows = newest(samples)
    places = dict.fromkeys((one.task, one.arm) for one in plan) or dict.fromkeys(one.key[:2] for one in rows)
    notes = _unplanned([one for one in rows if one.key[:2] not in places])
    rows = [one for one in rows if one.key[:2] in places]
    if empty := [one for one in rows if not one.episodes(score)]:
        task, arm, seed = empty[0].key
        more = f", and {len(empty) - 1} more" if len(empty) > 1 else ""
        notes.append(f"the row of {arm} on {task}, seed {seed}{more}, has no numbers in {score!r} and is in no mean")
    asked = {(one.task, one.arm): one.settings for one in plan}
    entries: dict[tuple[str, str], tuple[Entry, ...]] = {}
    for task in dict.fromkeys(task for task, _ in places):
        here = [one for one in rows if one.key[0] == task and one.episodes(score)]
        recorded = [one.conditions for one in here if one.conditions]
        names = differing(recorded)
        if names:
            notes.append(f"the scores of {task} do not compare: {_both(recorded, names)}; every entry says its own")
        for arm in dict.fromkeys(arm for where, arm in places if where == task):
            mine = sorted((one for one in here if one.key[1] == arm), key=lambda one: one.key[2])
            if mine:
                entries[task, arm] = _entries(task, arm, mine, names, bool(recorded), asked.get((task, arm)))
    entries = _apart(entries)
    if rows and not any(one.conditions for one in rows):
        notes.append("of none of these rows the protocol was recorded: whether their scores compare is not known here")
    have = {one.key for one in rows}
    gaps: dict[tuple[str, str], tuple[Planned, ...]] = {}
    for one in plan:
        if one.key not in have:
            gaps[one.task, one.arm] = (*gaps.get((one.task, one.arm), ()), one)
    tasks, arms = ([*dict.fromkeys(place[i] for place in places)] for i in (0, 1))
    return Board(tuple(tasks), tuple(arms), entries, gaps, tuple(notes), bool(plan))


def _entries(
    task: str,
    arm: str,
    samples: Sequence[Sample],
    names: Sequence[str],
    recorded: bool,
    asked: Mapping[str, Any] | None,
) -> tuple[Entry, ...]:
    """Of one arm on one task: one for each set of conditions. names: in which those of the task differ; recorded:
    whether any of the task are known; asked: the plan's settings."""
    sets: dict[str, list[Sample]] = {}
    for one in samples:
        sets.setdefault(doubts.canonical(one.conditions), []).append(one)
    found = []
    for mine in sets.values():
        conditions = mine[0].conditions
        mark = ", ".join(f"{name} {doubts.word(conditions.get(name))}" for name in names) if conditions else ""
        if recorded and not conditions:
            mark = "protocol not recorded"
        found.append(Entry(task, arm, tuple(mine), mark, tuple(doubts.within([one.row for one in mine], asked))))
    return tuple(found)


def _apart(entries: Mapping[tuple[str, str], tuple[Entry, ...]]) -> dict[tuple[str, str], tuple[Entry, ...]]:
    """The same, with what is unlike between entries: budgets of a task, settings of an arm."""
    rows = {place: [sample.row for one in mine for sample in one.samples] for place, mine in entries.items()}
    more: dict[tuple[str, str], list[str]] = {place: [] for place in entries}
    for task in {task for task, _ in entries}:
        for place, sentence in doubts.budgets(
            {place: mine for place, mine in rows.items() if place[0] == task}
        ).items():
            more[place].append(sentence)
    for arm in {arm for _, arm in entries}:
        for place, sentence in doubts.settings(
            {place: mine for place, mine in rows.items() if place[1] == arm}
        ).items():
            more[place].append(sentence)
    return {
        place: tuple(replace(one, doubts=(*one.doubts, *more[place])) for one in mine)
        for place, mine in entries.items()
    }


def _unplanned(rows: Sequence[Sample]) -> list[str]:
    places = list(dict.fromkeys(f"{one.key[1]} on {one.key[0]}" for one in rows))
    more = f" and {len(places) - 3} more" if len(places) > 3 else ""
    return [f"left out, for the suite has no such arm and task: {', '.join(places[:3])}{more}"] if places else []


def _both(conditions: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    return "; ".join(
        f"{name} {' or '.join(dict.fromkeys(doubts.word(one.get(name)) for one in conditions))}" for name in names
    )
