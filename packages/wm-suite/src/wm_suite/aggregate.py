r"""Scores of a method on tasks and seeds -> numbers for all of them, with intervals that say what more seeds could change.

The statistics of Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice", of scores
x_mn, normalised where tasks have different scales (wm_suite.normalise):

    mean            1/M sum_m xbar_m, xbar_m the mean over the seeds of task m
    median          the median of xbar_1 .. xbar_M
    interquartile   the mean of the middle half of all scores: int(MN / 4) cut off at each end
    optimality gap  gamma - 1/(MN) sum_mn min(x_mn, gamma): how far short of gamma, whatever lies beyond it
    P(X > Y)        1/M sum_m 1/(NK) sum_nk [x_mn > y_mk] + [x_mn = y_mk] / 2, Mann and Whitney's U over its largest value
    profile         F(tau) = 1/(MN) sum_mn [x_mn > tau]

Tasks may have different numbers of seeds. Then every seed of task m counts L / N_m times, L the least common multiple
of all N_m, as if the task had L seeds: tasks weigh the same in every statistic, and where numbers are equal these are
the formulas above. A score that is nan or infinite is an error: a failed run has none, and to leave it out is a decision.
"""
# R resamples, M tasks, N seeds of a task, L seeds of every task after `even`, P thresholds of a profile

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats  # type: ignore[import-untyped]

from wm_suite.errors import SuiteError
from wm_suite.statistics import Floats

AT_ONCE = 4_000_000  # scores of resamples held at a time, 32 MB of them


@dataclass(frozen=True)
class Estimate:
    """A statistic and the interval around it; low and high are nan where there is no telling. Arrays for a profile."""

    value: Any
    low: Any
    high: Any


# ---- scores as an array


def rows(scores: Sequence[ArrayLike] | NDArray[Any]) -> list[Floats]:
    """One array a task, (N_m,). Raises SuiteError where there is no task, no score, or one that is no finite number."""
    found = [np.asarray(row, np.float64).reshape(-1) for row in scores]
    if not found:
        raise SuiteError("there is no task to aggregate over: name one with scores")
    for number, row in enumerate(found, 1):
        if not len(row):
            raise SuiteError(f"task {number} of {len(found)} has no score: run it, or leave it out of every method")
        if not np.isfinite(row).all():
            odd = row[~np.isfinite(row)][0]
            raise SuiteError(
                f"a score of task {number} of {len(found)} is {odd}: a failed run has no score, leave it out"
            )
    return found


def even(scores: Sequence[ArrayLike] | NDArray[Any]) -> Floats:
    """(M, L): rows of one length, each seed of a task as often as the others of that task. An array with more axes than
    two holds several tables (..., M, L) and comes back as it is. Raises SuiteError as `rows` does.

    >>> even([[1.0, 2.0], [3.0]]).tolist()
    [[1.0, 2.0], [3.0, 3.0]]
    """
    if isinstance(scores, np.ndarray) and scores.ndim > 2:
        if not scores.size or not np.isfinite(scores).all():
            raise SuiteError(f"of {scores.size} scores in tables {scores.shape} some are missing, nan or infinite")
        return np.asarray(scores, np.float64)
    found = rows(scores)
    common = math.lcm(*map(len, found))
    return np.stack([row.repeat(common // len(row)) for row in found])


# ---- statistics: (..., M, L) -> (...), or rows of any lengths -> a number


def mean(scores: Sequence[ArrayLike] | NDArray[Any]) -> Any:
    """Of the tasks' means.

    >>> float(mean([[1.0, 3.0], [8.0]]))
    5.0
    """
    return even(scores).mean((-2, -1))


def median(scores: Sequence[ArrayLike] | NDArray[Any]) -> Any:
    """Of the tasks' means.

    >>> float(median([[1.0, 3.0], [4.0], [9.0]]))
    4.0
    """
    return np.median(even(scores).mean(-1), -1)


def interquartile_mean(scores: Sequence[ArrayLike] | NDArray[Any]) -> Any:
    """Of the middle half of all scores.

    >>> float(interquartile_mean([[0.0, 1.0], [2.0, 100.0]]))
    1.5
    """
    table = even(scores)
    return stats.trim_mean(table.reshape(*table.shape[:-2], -1), 0.25, axis=-1)


def optimality_gap(scores: Sequence[ArrayLike] | NDArray[Any], threshold: float = 1.0) -> Any:
    """How far below the threshold scores lie on average, those beyond it counted as at it.

    >>> float(optimality_gap([[0.5, 1.0], [7.0, 0.0]]))
    0.375
    """
    return threshold - np.minimum(even(scores), threshold).mean((-2, -1))


def tasks_above(scores: Sequence[ArrayLike] | NDArray[Any], threshold: float = 1.0) -> Any:
    """The number of tasks whose mean exceeds the threshold; of human-normalised scores the superhuman ones.

    >>> int(tasks_above([[0.5, 1.7], [1.0], [0.2]]))
    1
    """
    return (even(scores).mean(-1) > threshold).sum(-1)


def probability_of_improvement(
    ours: Sequence[ArrayLike] | NDArray[Any], theirs: Sequence[ArrayLike] | NDArray[Any]
) -> Any:
    """That a run of ours scores above one of theirs on a task drawn at random; equal scores count half. Raises
    SuiteError where they are not of the same number of tasks.

    >>> float(probability_of_improvement([[2.0, 3.0], [1.0]], [[1.0, 2.0], [5.0]]))
    0.4375
    """
    x, y = even(ours), even(theirs)
    if x.shape[-2] != y.shape[-2]:
        raise SuiteError(f"{x.shape[-2]} and {y.shape[-2]} tasks do not compare: take those that both were run on")
    x, y = x[..., :, None], y[..., None, :]  # (..., M, L, L)
    return ((x > y) + 0.5 * (x == y)).mean((-3, -2, -1))


def profile(scores: Sequence[ArrayLike] | NDArray[Any], thresholds: ArrayLike) -> Floats:
    """The share of runs above each threshold: (..., P).

    >>> profile([[0.0, 1.0], [2.0, 3.0]], [-1.0, 1.0, 3.0]).tolist()
    [1.0, 0.5, 0.0]
    """
    above = even(scores)[..., None] > np.asarray(thresholds, np.float64)
    return np.asarray(above.mean((-3, -2)), np.float64)


# ---- intervals


def estimate(
    statistic: Callable[..., Any],
    *scores: Sequence[ArrayLike] | NDArray[Any],
    repetitions: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    draws: Sequence[Sequence[NDArray[np.int64]]] | None = None,
) -> Estimate:
    """The statistic of these scores with its stratified bootstrap interval: of every task as many seeds are drawn as it
    has, with replacement, and the interval lies between percentiles of what the statistic is of such tables.

    A task with one seed says nothing about seeds, and nothing that is drawn from it varies: then low and high are nan.
    Where all seeds of every task are equal they are the value. Tasks are not resampled: the interval is about other
    seeds on these tasks, and not about other tasks.

    Args:
        statistic: One of those above, or any that takes (R, M, L) as it takes (M, L).
        scores: What it takes; for `probability_of_improvement` two methods, which are drawn independently.
        repetitions: Resamples R. At 2,000 an end moves by about 2% of the interval's width with the seed.
        confidence: The share of resamples inside, between 0 and 1.
        seed: Of the draws: the same scores give the same interval.
        draws: In place of drawing, for every argument and every task the indices (R, N_m) of seeds.

    >>> found = estimate(mean, [[0.0, 1.0], [5.0, 5.0]])
    >>> float(found.value), float(found.low), float(found.high)
    (2.75, 2.5, 3.0)
    """
    if not 0 < confidence < 1:
        raise SuiteError(f"a confidence of {confidence} is not between 0 and 1: 0.95 is usual")
    if repetitions < 1:
        raise SuiteError(f"{repetitions} resamples are none: take 2000")
    tables = [rows(one) for one in scores]
    value = statistic(*map(even, tables))
    if any(len(row) < 2 for table in tables for row in table):
        unknown = np.full_like(np.asarray(value, np.float64), np.nan)[()]
        return Estimate(value, unknown, unknown)
    if draws is None:
        draws = [resamples(table, repetitions, seed=(seed, number)) for number, table in enumerate(tables)]
    repetitions = len(draws[0][0])
    size = len(tables[0]) * math.prod(math.lcm(*map(len, table)) for table in tables)  # pairs of two methods' seeds
    chunk = max(1, AT_ONCE // (size * max(1, np.asarray(value).size)))  # a profile compares with every threshold
    found = []
    for start in range(0, repetitions, chunk):
        part = slice(start, start + chunk)
        found.append(statistic(*(_drawn(table, one, part) for table, one in zip(tables, draws, strict=True))))
    low, high = np.quantile(np.concatenate(found), [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return Estimate(value, low, high)


def resamples(table: Sequence[Floats], repetitions: int, seed: int | Sequence[int]) -> list[NDArray[np.int64]]:
    """For every task the indices (R, N_m) of seeds drawn with replacement. scipy's bootstrap draws alike, but keeps its
    draws to itself: here two libraries, or two statistics, can be compared on the same."""
    random = np.random.default_rng(seed)
    return [random.integers(0, len(row), (repetitions, len(row))) for row in table]


def _drawn(table: Sequence[Floats], draws: Sequence[NDArray[np.int64]], part: slice) -> Floats:
    """These resamples, (R, M, L)."""
    common = math.lcm(*map(len, table))
    drawn = [row[index[part]].repeat(common // len(row), -1) for row, index in zip(table, draws, strict=True)]
    return np.stack(drawn, 1)


def win_rate(outcomes: ArrayLike, confidence: float = 0.95) -> Estimate:
    """The share of episodes won with Wilson's interval, of outcomes that are 0 or 1 (a draw is not won):

        (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n),   Wilson 1927; p = wins/n, z the normal quantile

    It is about other episodes of the same agents, and too narrow for other seeds: episodes of one agent are no
    independent draws of the method. Raises SuiteError where there is no episode, or an outcome is neither.

    >>> found = win_rate([1, 1, 0, 1])
    >>> found.value, round(found.low, 4), round(found.high, 4)
    (0.75, 0.3006, 0.9544)
    """
    values = np.asarray(outcomes, np.float64).reshape(-1)
    if not len(values):
        raise SuiteError("there is no episode to take a win rate of")
    if not np.isin(values, (0.0, 1.0)).all():
        odd = values[~np.isin(values, (0.0, 1.0))][0]
        raise SuiteError(f"an outcome is {odd}, neither lost (0) nor won (1)")
    found = stats.binomtest(int(values.sum()), len(values)).proportion_ci(confidence, "wilson")
    return Estimate(float(values.mean()), float(found.low), float(found.high))
