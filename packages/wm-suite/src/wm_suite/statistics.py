"""Numbers by step and by seed -> means with their standard errors. P points of a curve."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """Points at the right ends of equal spans of steps: x, mean, error and count are (P,).

    error is one standard error over seeds, nan where fewer than two have a value; count the seeds at each point.
    """

    x: Floats
    mean: Floats
    error: Floats
    count: NDArray[np.int64]


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
