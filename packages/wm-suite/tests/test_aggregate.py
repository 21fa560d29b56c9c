"""Numbers for all tasks: by hand, as rliable has them, as scipy has them; and what has no number."""

from __future__ import annotations

import inspect
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from wm_suite import SuiteError
from wm_suite.aggregate import (
    Estimate,
    estimate,
    even,
    interquartile_mean,
    mean,
    median,
    optimality_gap,
    probability_of_improvement,
    profile,
    resamples,
    rows,
    tasks_above,
    win_rate,
)

RLIABLE = json.loads((Path(__file__).parent / "data" / "rliable.json").read_text())
STATISTICS: dict[str, Any] = {
    "mean": mean,
    "median": median,
    "interquartile_mean": interquartile_mean,
    "optimality_gap": optimality_gap,
    "profile": partial(profile, thresholds=RLIABLE["thresholds"]),
    "probability_of_improvement": probability_of_improvement,
}
SCALARS = [mean, median, interquartile_mean, optimality_gap, tasks_above]


def named(key: str) -> tuple[Any, list[list[list[float]]]]:
    statistic, *methods = key.split()
    return STATISTICS[statistic], [RLIABLE["scores"][method] for method in methods]


def their_draws(method: str) -> list[np.ndarray]:
    scores = RLIABLE["scores"][method]
    digits = np.array(list(map(int, RLIABLE["draws"][method]))).reshape(len(scores), -1, len(scores[0]))
    return list(digits)


# ---- by hand


def test_statistics_of_a_table_made_by_hand():
    table = [[0.0, 0.5, 1.0], [1.0, 2.0, 3.0], [4.0, 4.0, 10.0]]  # means 0.5, 2, 6
    assert mean(table) == pytest.approx(8.5 / 3)
    assert median(table) == 2.0
    # sorted 0 .5 1 1 2 3 4 4 10: int(9 / 4) = 2 go at each end
    assert interquartile_mean(table) == pytest.approx((1 + 1 + 2 + 3 + 4) / 5)
    assert optimality_gap(table) == pytest.approx(1 - (0 + 0.5 + 1 + 6 * 1) / 9)
    assert optimality_gap(table, 4.0) == pytest.approx(4 - (0 + 0.5 + 1 + 1 + 2 + 3 + 4 + 4 + 4) / 9)
    assert tasks_above(table) == 2 and tasks_above(table, 2.0) == 1  # a task at the threshold is not above it
    assert profile(table, [0.0, 1.0, 9.9, 10.0]).tolist() == pytest.approx([8 / 9, 5 / 9, 1 / 9, 0])


def test_probability_of_improvement_counts_pairs_and_half_of_equal_ones():
    ours, theirs = [[1.0, 2.0], [5.0, 5.0]], [[1.0, 0.0], [5.0, 9.0]]
    # task 1: 1=1, 1>0, 2>1, 2>0: 3.5 of 4; task 2: two equal, two below: 1 of 4
    assert probability_of_improvement(ours, theirs) == pytest.approx((3.5 / 4 + 1 / 4) / 2)
    assert probability_of_improvement(ours, theirs) + probability_of_improvement(theirs, ours) == pytest.approx(1)
    assert probability_of_improvement(ours, ours) == 0.5


def test_tasks_weigh_the_same_however_many_seeds_they_have():
    ragged = [[0.0, 1.0], [2.0, 4.0, 9.0], [3.0]]
    longhand = [[0.0, 0, 0, 1, 1, 1], [2.0, 2, 4, 4, 9, 9], [3.0] * 6]
    assert even(ragged).tolist() == longhand
    for statistic in SCALARS:
        assert statistic(ragged) == pytest.approx(statistic(longhand))
    assert mean(ragged) == pytest.approx((0.5 + 5 + 3) / 3)
    assert profile(ragged, [2.5]) == pytest.approx((0 + 2 / 3 + 1) / 3)
    assert probability_of_improvement(ragged, [[0.5], [3.0], [3.0]]) == pytest.approx((1 / 2 + 2 / 3 + 1 / 2) / 3)


def test_order_of_seeds_and_of_tasks_does_not_matter():
    random = np.random.default_rng(0)
    table = random.normal(size=(5, 4))
    mixed = random.permuted(table, axis=1)[random.permutation(5)]
    for statistic in SCALARS:
        assert statistic(table) == pytest.approx(statistic(mixed))


def test_many_tables_at_once_are_each_as_alone():
    tables = np.random.default_rng(1).normal(size=(6, 5, 4))
    for statistic in (*SCALARS, partial(profile, thresholds=[0.0, 1.0])):
        assert np.allclose(statistic(tables), [statistic(table) for table in tables])
    both = probability_of_improvement(tables, tables[::-1])
    assert np.allclose(both, [probability_of_improvement(a, b) for a, b in zip(tables, tables[::-1], strict=True)])


# ---- as others have them


@pytest.mark.parametrize("key", RLIABLE["point"])
def test_point_statistics_are_those_of_rliable(key: str):
    statistic, scores = named(key)
    assert np.allclose(statistic(*scores), RLIABLE["point"][key], rtol=0, atol=1e-9)


@pytest.mark.parametrize("key", RLIABLE["shared"])
def test_intervals_are_those_of_rliable_on_the_same_resamples(key: str):
    statistic, scores = named(key)
    found = estimate(statistic, *scores, draws=[their_draws(method) for method in key.split()[1:]])
    low, high = np.array(RLIABLE["shared"][key])
    assert np.allclose(found.low, low, rtol=0, atol=1e-9)
    assert np.allclose(found.high, high, rtol=0, atol=1e-9)


@pytest.mark.parametrize("key", RLIABLE["own"])
def test_intervals_of_own_draws_lie_within_a_fiftieth_of_rliables_width(key: str):
    statistic, scores = named(key)
    found = estimate(statistic, *scores, repetitions=20_000)
    low, high = np.array(RLIABLE["own"][key])[:, 0]
    assert abs(found.low - low) < 0.02 * (high - low)
    assert abs(found.high - high) < 0.02 * (high - low)


def test_probability_of_improvement_is_mann_and_whitneys_u():
    random = np.random.default_rng(2)
    ours, theirs = [random.integers(0, 6, 5) for _ in range(4)], [random.integers(0, 6, 3) for _ in range(4)]
    u = [stats.mannwhitneyu(x, y).statistic / 15 for x, y in zip(ours, theirs, strict=True)]
    assert probability_of_improvement(ours, theirs) == pytest.approx(np.mean(u))


def test_the_interval_of_ragged_seeds_is_scipys():
    """scipy draws the samples of its arguments independently: the same stratified bootstrap."""
    random = np.random.default_rng(3)
    table = [random.normal(size=n) for n in (3, 5, 8)]

    def of_means(*tasks: Any, axis: int) -> Any:
        return np.mean([task.mean(axis) for task in tasks], 0)

    found = estimate(mean, table, repetitions=20_000)
    source = "rng" if "rng" in inspect.signature(stats.bootstrap).parameters else "random_state"  # before scipy 1.15
    theirs = stats.bootstrap(
        table,
        of_means,
        n_resamples=20_000,
        method="percentile",
        vectorized=True,
        axis=-1,
        **{source: np.random.default_rng(5)},
    ).confidence_interval
    assert abs(found.low - theirs.low) < 0.02 * (theirs.high - theirs.low)
    assert abs(found.high - theirs.high) < 0.02 * (theirs.high - theirs.low)


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    """With 10 seeds a percentile interval is a little narrow (about sqrt(9/10)), no more."""
    random = np.random.default_rng(4)
    held = 0
    for seed in range(200):
        found = estimate(mean, random.normal(size=(6, 10)), repetitions=400, seed=seed)
        held += found.low <= 0 <= found.high
    assert 0.85 < held / 200 < 0.99


# ---- resamples


def test_a_seed_gives_one_interval_and_chunks_do_not_change_it(monkeypatch: pytest.MonkeyPatch):
    table = np.random.default_rng(5).normal(size=(4, 5))
    before = estimate(interquartile_mean, table, repetitions=300)
    monkeypatch.setattr("wm_suite.aggregate.AT_ONCE", 700)
    after = estimate(interquartile_mean, table, repetitions=300)
    assert (before.low, before.high) == (after.low, after.high)
    assert estimate(interquartile_mean, table, repetitions=300, seed=1).low != before.low


def test_draws_stay_within_their_task_and_methods_are_drawn_independently():
    drawn = resamples(rows([[1.0] * 2, [1.0] * 7]), 500, seed=0)
    assert [set(np.unique(one)) for one in drawn] == [set(range(2)), set(range(7))]
    assert [one.shape for one in drawn] == [(500, 2), (500, 7)]
    table = np.random.default_rng(6).normal(size=(1, 5))
    # a method against itself: 0.5, but two runs of it differ, which paired draws would hide
    found = estimate(probability_of_improvement, table, table)
    assert found.low < 0.5 < found.high


def test_more_seeds_make_the_interval_narrower():
    random = np.random.default_rng(7)
    few, many = random.normal(size=(3, 4)), random.normal(size=(3, 64))
    narrow, wide = estimate(mean, many), estimate(mean, few)
    assert narrow.high - narrow.low < 0.5 * (wide.high - wide.low)


# ---- what has no number, and what has no interval


def test_one_seed_has_no_interval_and_says_so():
    for table in ([[1.0], [2.0]], [[1.0, 2.0], [2.0]]):
        found = estimate(mean, table)
        assert found.value == np.mean([np.mean(row) for row in table])
        assert np.isnan(found.low) and np.isnan(found.high)
    found = estimate(partial(profile, thresholds=[0.0, 1.5]), [[1.0], [2.0]])
    assert found.value.tolist() == [1.0, 0.5] and np.isnan(found.low).tolist() == [True, True]
    found = estimate(probability_of_improvement, [[1.0, 2.0]], [[0.0]])
    assert found.value == 1.0 and np.isnan(found.low)


def test_one_task_is_its_own_mean_and_median():
    table = [[1.0, 2.0, 6.0]]
    assert mean(table) == median(table) == 3.0
    assert interquartile_mean(table) == 3.0  # int(3 / 4) = 0 are cut off
    found = estimate(median, table)
    assert 1.0 <= found.low < 3.0 < found.high <= 6.0


def test_equal_scores_have_an_interval_of_no_width():
    table = np.full((3, 4), 0.25)
    for statistic, value in ((mean, 0.25), (median, 0.25), (interquartile_mean, 0.25), (optimality_gap, 0.75)):
        assert estimate(statistic, table) == Estimate(value, value, value)


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        ([], "no task"),
        (np.zeros((0, 3)), "no task"),
        ([[1.0], []], "task 2 of 2 has no score"),
        ([[1.0], [2.0, np.nan]], "a score of task 2 of 2 is nan"),
        ([[np.inf], [2.0]], "a score of task 1 of 2 is inf"),
        (np.full((2, 2, 2), np.nan), "nan"),
        (np.zeros((2, 0, 2)), "of 0 scores"),
    ],
)
def test_what_cannot_be_aggregated_is_a_sentence(scores: Any, words: str):
    for statistic in (*SCALARS, partial(profile, thresholds=[0.0])):
        with pytest.raises(SuiteError, match=words):
            statistic(scores)
    with pytest.raises(SuiteError, match=words):
        probability_of_improvement(scores, [[1.0]])


def test_methods_on_different_tasks_do_not_compare():
    with pytest.raises(SuiteError, match="2 and 1 tasks do not compare"):
        probability_of_improvement([[1.0], [2.0]], [[1.0]])
    with pytest.raises(SuiteError, match="confidence of 95"):
        estimate(mean, [[1.0, 2.0]], confidence=95)
    with pytest.raises(SuiteError, match="0 resamples"):
        estimate(mean, [[1.0, 2.0]], repetitions=0)


# ---- wins


def test_wilsons_interval_by_its_formula():
    """Wins 8 of 10: p = 0.8, z = 1.959964; centre (0.8 + z^2/20) / (1 + z^2/10) = 0.71674..."""
    z, n, p = 1.959963984540054, 10, 0.8
    middle, half = (p + z * z / (2 * n)) / (1 + z * z / n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    found = win_rate([1] * 8 + [0] * 2)
    assert found.value == 0.8
    assert found.low == pytest.approx(middle - half / (1 + z * z / n))
    assert found.high == pytest.approx(middle + half / (1 + z * z / n))


def test_no_win_and_nothing_but_wins_stay_within_0_and_1():
    assert win_rate([0] * 32).low == 0 and win_rate([0] * 32).high == pytest.approx(0.10718, abs=1e-5)
    assert win_rate([True] * 32).high == 1 and win_rate([True] * 32).low == pytest.approx(1 - 0.10718, abs=1e-5)


@pytest.mark.parametrize(("outcomes", "words"), [([], "no episode"), ([0, 0.5], "0.5, neither"), ([np.nan], "nan")])
def test_what_is_no_outcome_is_a_sentence(outcomes: Any, words: str):
    with pytest.raises(SuiteError, match=words):
        win_rate(outcomes)
