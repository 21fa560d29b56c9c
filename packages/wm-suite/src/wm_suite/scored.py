"""Rows of a suite, run folders, or score files of others -> runs with their scores, which is what files of scores hold."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wm_suite import foreign
from wm_suite.errors import SuiteError
from wm_suite.gather import SCORE
from wm_suite.groups import Group
from wm_suite.rows import newest

WON = "episode/won"


@dataclass(frozen=True)
class Scored:
    """One run: its curve, and the episodes that its score is the mean of.

    curve: (step, score), where there is a score. final: scores of those episodes. outcomes: 0 or 1 of each of them, or of
    as many as are known; won: (step, share of wins).
    """

    task: str
    method: str
    seed: int
    curve: tuple[tuple[float, float], ...] = ()
    final: tuple[float, ...] = ()
    outcomes: tuple[float, ...] = ()
    won: tuple[tuple[float, float], ...] = ()

    @property
    def score(self) -> float:
        """nan where no episode is known."""
        return sum(self.final) / len(self.final) if self.final else math.nan

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.method} on {self.task}, seed {self.seed}"


def of_rows(rows: Iterable[Mapping[str, Any]], score: str = "trained", outcome: str = "") -> list[Scored]:
    """The newest row of every run; `score` is the field that is its score, a number or one for each episode, `outcome`
    one of 0 and 1. Raises SuiteError for a row that lacks them.

    >>> row = {"task": "toy:catch", "arm": "r2i", "seed": 3, "curve": [[10, 0.5]], "trained": [1.0, 0.0]}
    >>> found = of_rows([row])[0]
    >>> found.method, found.curve, found.score
    ('r2i', ((10.0, 0.5),), 0.5)
    """
    found = []
    for row in newest(rows).values():
        name = f"the row of {row['arm']} on {row['task']}, seed {row['seed']},"
        curve = tuple((float(step), float(value)) for step, value in row.get("curve", []) if value is not None)
        final = _episodes(row, score, name)
        outcomes = _episodes(row, outcome, name) if outcome else ()
        found.append(Scored(row["task"], row["arm"], int(row["seed"]), _finite(curve), final, outcomes))
    return found


def of_runs(groups: Sequence[Group]) -> list[Scored]:
    """Every run of these groups; its method is the group's label, its score the mean over episodes that ended in the last
    tenth of its steps, as in the final table."""
    found = []
    for group in groups:
        for run in group.runs:
            curve, won = (tuple(zip(*run.series.get(name, ((), ())), strict=True)) for name in (SCORE, WON))
            final = tuple(map(float, run.last(SCORE)))
            outcomes = tuple(map(float, run.last(WON)))
            found.append(Scored(run.task, group.label, run.seed, _finite(curve), final, outcomes, _finite(won)))
    return found


def _finite(curve: Iterable[tuple[Any, Any]]) -> tuple[tuple[float, float], ...]:
    return tuple((float(step), float(value)) for step, value in curve if math.isfinite(value))


def _episodes(row: Mapping[str, Any], field: str, name: str) -> tuple[float, ...]:
    """The numbers in a field of a row. Raises SuiteError."""
    value = row.get(field)
    values = value if isinstance(value, list) else [value]
    try:
        found = tuple(math.nan if one is None else foreign.number(one) for one in values)
    except foreign.Odd as error:
        raise SuiteError(f"{name} has a {field!r} that {error}: name the field that is its score") from error
    if not found or not all(map(math.isfinite, found)):
        known = [key for key, one in row.items() if key not in ("seed", "step") and _numeric(one)]
        hint = f"; it has numbers in {', '.join(known)}" if known else ""
        raise SuiteError(f"{name} has no number in {field!r}{hint}")
    return found


def _numeric(value: Any) -> bool:
    one = value[0] if isinstance(value, list) and value else value
    return isinstance(one, (int, float)) and not isinstance(one, bool)
