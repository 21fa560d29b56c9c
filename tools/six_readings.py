"""Rows of the suites six and recall -> numbers after so many updates, means over seeds with their intervals, and words for what is not there."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats  # type: ignore[import-untyped]
from wm_suite.statistics import over_seeds
from wm_suite.suites import Cell

Row = Mapping[str, Any]
At = Callable[[Row], float]  # updates at which a row is read
Asked = Mapping[str, Mapping[str, int]]  # task -> arm -> how many seeds the suite asks for


def asked_of(cells: Sequence[Cell]) -> dict[str, dict[str, int]]:
    """What a suite asks for, in its order."""
    found: dict[str, dict[str, int]] = {}
    for cell in cells:
        arms = found.setdefault(cell.task, {})
        arms[cell.arm] = arms.get(cell.arm, 0) + 1
    return found


def value(row: Row, updates: float, kind: str, horizon: int) -> float:
    """An error of a run after so many updates: linearly between its checkpoints; nan before the first, after the last, and
    where there is none.

    >>> row = {"checkpoints": [[100, {"image": [4.0]}, [1.0]], [200, {"image": [2.0]}, [0.0]]]}
    >>> value(row, 150, "seen", 1), value(row, 200, "reward", 1), value(row, 50, "seen", 1), value(row, 201, "seen", 1)
    (3.0, 0.0, nan, nan)
    """
    made, found = [one[0] for one in row["checkpoints"]], []
    for _, seen, reward in row["checkpoints"]:
        of = next(iter(seen.values())) if kind == "seen" else reward
        found.append(of[horizon - 1] if horizon <= len(of) and of[horizon - 1] is not None else np.nan)
    return between(updates, made, found)


def logged(row: Row, updates: float, name: str) -> float:
    """A held-out loss after so many updates: linearly between the lines of the log, nan outside of them.

    >>> logged({"losses": [[10, {"dyn": 4.0}], [20, {"dyn": 2.0}]]}, 15, "dyn")
    3.0
    """
    made = [(at, of[name]) for at, of in row["losses"] if of.get(name) is not None]
    return between(updates, [at for at, _ in made], [loss for _, loss in made])


def between(x: float, xs: Sequence[float], ys: Sequence[float]) -> float:
    """Linearly between points, exact at them, nan outside: nothing is extrapolated.

    >>> between(1.0, [1.0, 3.0], [5.0, math.nan]), between(2.0, [1.0, 3.0], [5.0, 7.0]), between(4.0, [1.0, 3.0], [5.0, 7.0])
    (5.0, 6.0, nan)
    """
    if not xs or not xs[0] * (1 - 1e-9) <= x <= xs[-1] * (1 + 1e-9):
        return math.nan
    return float(np.interp(x, xs, ys))


def last(row: Row) -> int:
    """Updates at the last checkpoint."""
    return int(row["checkpoints"][-1][0])


def first(row: Row) -> int:
    """Updates at the first checkpoint."""
    return int(row["checkpoints"][0][0])


def cell(values: Sequence[float]) -> str:
    """Mean over the seeds that have a value, 95% interval of Student's t where these are several, and how many they are where
    not all have one.

    >>> cell([1.0, 1.0]), cell([2.0]), cell([]), cell([math.nan, 2.0])
    ('1 [1, 1]', '2', '', '2 (n=1)')
    """
    there = [one for one in values if math.isfinite(one)]
    if not there:
        return ""
    few = f" (n={len(there)})" if len(there) < len(values) else ""
    if len(there) == 1:
        return number(there[0]) + few
    low, high = bounds(there)
    return f"{number(float(np.mean(there)))} [{number(low)}, {number(high)}]{few}"


def bounds(values: Sequence[float]) -> tuple[float, float]:
    """Of the mean's 95% interval."""
    mean, error, _ = over_seeds(np.array(values, np.float64)[:, None])
    reach = float(stats.t.ppf(0.975, len(values) - 1)) * float(error[0])
    return float(mean[0]) - reach, float(mean[0]) + reach


def number(one: float | None) -> str:
    """Four digits; nothing where there is none."""
    return "" if one is None or not math.isfinite(one) else f"{one:.4g}"


def or_nan(one: float | None) -> float:
    """For arithmetic."""
    return math.nan if one is None else one


def of_arm(rows: Sequence[Row], arm: str) -> list[Row]:
    """Its rows."""
    return [row for row in rows if row["arm"] == arm]


def line(cells: Sequence[str]) -> str:
    """Of a table in Markdown.

    >>> line(["a", "b"])
    '| a | b |'
    """
    return f"| {' | '.join(cells)} |"


def headed(cells: Sequence[str]) -> list[str]:
    """The first two lines of a table."""
    return [line(cells), "|---" * len(cells) + "|"]


def there(rows: Sequence[Row], arms: Mapping[str, int]) -> str:
    """Which runs have a row, and which are missing.

    >>> there([{"arm": "a", "seed": 0}], {"a": 3, "b": 1})
    '1 of 4 runs are there; missing: 2 of a, 1 of b.'
    """
    have = {arm: len(of_arm(rows, arm)) for arm in arms}
    lack = [f"{count - have[arm]} of {arm}" for arm, count in arms.items() if have[arm] < count]
    missing = f"; missing: {', '.join(lack)}" if lack else ""
    return f"{sum(have.values())} of {sum(arms.values())} runs are there{missing}."


def ratio(
    rows: Sequence[Row], over: tuple[str, str], of: Callable[[Row], Sequence[float]]
) -> tuple[float, float, float, int] | None:
    """A quantity of one arm over that of another, seeds paired, the mean over what `of` gives: mean, the ends of its 95%
    interval and the number of pairs; None without a pair. Only positive numbers have a ratio."""
    pairs = []
    for mine in of_arm(rows, over[0]):
        for theirs in of_arm(rows, over[1]):
            if mine["seed"] != theirs["seed"]:
                continue
            above, below = np.array(of(mine), np.float64), np.array(of(theirs), np.float64)
            known = np.isfinite(above) & np.isfinite(below) & (below > 0) & (above >= 0)
            if known.any():
                pairs.append(float(np.mean(above[known] / below[known])))
    if not pairs:
        return None
    low, high = bounds(pairs) if len(pairs) > 1 else (math.nan, math.nan)
    return float(np.mean(pairs)), low, high, len(pairs)
