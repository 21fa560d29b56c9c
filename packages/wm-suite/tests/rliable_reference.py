"""What rliable makes of shared scores -> data/rliable.json, which test_aggregate.py holds ours against.

rliable needs pandas < 3 and is in no environment of this repository:

    uv venv /tmp/rliable && uv pip install --python /tmp/rliable/bin/python rliable==1.2.0 "pandas<3"
    /tmp/rliable/bin/python packages/wm-suite/tests/rliable_reference.py

The scores are drawn once and stand in the file, and so do the draws of the shared resamples, as digits.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

try:
    from rliable import library, metrics
except ImportError:  # pytest imports this file where it looks for doctests
    library = metrics = None

FILE = Path(__file__).parent / "data" / "rliable.json"
TASKS, SHARED, MANY = 7, 150, 50_000  # M; resamples on shared draws; resamples of rliable's own
THRESHOLDS = [-0.5, 0.0, 0.3, 0.7, 1.0, 1.5, 3.0]


def statistics() -> dict[str, Callable[..., Any]]:
    return {
        "mean": metrics.aggregate_mean,
        "median": metrics.aggregate_median,
        "interquartile_mean": metrics.aggregate_iqm,
        "optimality_gap": metrics.aggregate_optimality_gap,
        "profile": lambda scores: library.score_distributions(scores, THRESHOLDS),
    }


def drawn(scores: np.ndarray, resamples: int, random: np.random.Generator) -> np.ndarray:
    """Indices (R, N, M), as rliable draws them: runs come first there."""
    return random.integers(0, len(scores), (resamples, *scores.shape))


def shared(statistic: Callable[..., Any], *scores: np.ndarray, draws: list[np.ndarray]) -> list[Any]:
    """rliable's interval where its resamples are these."""
    turn = iter(range(SHARED))

    def one(self: Any) -> Any:
        number = next(turn)
        return (draws[0][number], *self._strata_indices)

    def both(self: Any) -> Any:
        number = next(turn)
        indices = zip(draws, self._args_strata_indices, strict=True)
        return [(index[number], *strata) for index, strata in indices], {}

    library.StratifiedBootstrap.update_indices = one
    library.StratifiedIndependentBootstrap.update_indices = both
    return intervals(statistic, *scores, resamples=SHARED)


def intervals(statistic: Callable[..., Any], *scores: np.ndarray, resamples: int) -> list[Any]:
    given = {"it": scores[0] if len(scores) == 1 else list(scores)}
    found = library.get_interval_estimates(given, lambda *x: np.atleast_1d(statistic(*x)), reps=resamples)
    return found[1]["it"].tolist()


def main() -> None:
    random = np.random.default_rng(2021)
    scale = random.lognormal(0, 1, TASKS)
    methods = {"ours": (5, 0.9), "theirs": (3, 0.6)}
    scores = {name: np.round(random.normal(at, 0.4, (n, TASKS)) * scale, 2) for name, (n, at) in methods.items()}
    scores["theirs"][:2, 0] = scores["ours"][:2, 0]  # equal scores, which count half
    draws = {name: drawn(one, SHARED, random) for name, one in scores.items()}
    update = library.StratifiedBootstrap.update_indices, library.StratifiedIndependentBootstrap.update_indices
    told: dict[str, Any] = {
        "thresholds": THRESHOLDS,
        "scores": {name: one.T.tolist() for name, one in scores.items()},  # a row a task
        "draws": {name: "".join(map(str, one.transpose(2, 0, 1).ravel())) for name, one in draws.items()},
        "point": {},
        "shared": {},
        "own": {},
    }
    for name, statistic in statistics().items():
        for method, one in scores.items():
            key = f"{name} {method}"
            told["point"][key] = np.asarray(statistic(one)).tolist()
            told["shared"][key] = shared(statistic, one, draws=[draws[method]])
    pair = [scores["ours"], scores["theirs"]]
    key, statistic = "probability_of_improvement ours theirs", metrics.probability_of_improvement
    told["point"][key] = float(statistic(*pair))
    told["shared"][key] = shared(statistic, *pair, draws=[draws["ours"], draws["theirs"]])
    library.StratifiedBootstrap.update_indices, library.StratifiedIndependentBootstrap.update_indices = update
    np.random.seed(7)  # noqa: NPY002 - which rliable draws from
    for name in ("mean", "median", "interquartile_mean", "optimality_gap"):
        told["own"][f"{name} ours"] = intervals(statistics()[name], scores["ours"], resamples=MANY)
    told["own"][key] = intervals(statistic, *pair, resamples=MANY // 5)  # slow there
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
