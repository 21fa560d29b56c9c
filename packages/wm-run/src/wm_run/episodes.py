"""Records of environments -> what their episodes came to: score, length, and outcomes such as a win."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Episode(NamedTuple):
    """score: sum of what each record counts; length: actions; outcomes: of the last record, by name, so that the mean of
    `won` over episodes is the win rate."""

    score: float
    length: int
    outcomes: Mapping[str, float] = {}


def score_of(envs: Any, step: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """What each environment's record counts towards its episode's score: (n,). The environments say so; where they do
    not, it is the reward, (n,) as long as there is one agent, and the mean over agents of (n, N).

    >>> score_of(None, {"reward": np.array([[1.0, 3.0]])}).tolist()
    [2.0]
    """
    score = getattr(envs, "score", None)  # no promise of Environments
    if score is not None:
        counted: NDArray[Any] = score(step)
        return counted
    reward = step["reward"]
    return reward if reward.ndim == 1 else reward.mean(-1)


def outcomes_of(envs: Any, step: Mapping[str, NDArray[Any]], row: int) -> dict[str, float]:
    """Of the episode that ends with this record of environment `row`, one number each; {} for most tasks.

    >>> from types import SimpleNamespace
    >>> outcomes_of(SimpleNamespace(outcomes=("won",)), {"won": np.array([False, True])}, 1)
    {'won': 1.0}
    """
    return {name: float(np.mean(step[name][row])) for name in getattr(envs, "outcomes", ())}
