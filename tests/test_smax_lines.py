"""tools/smax_lines.py: every environment counts the same number of episodes, resets are no actions."""

from __future__ import annotations

import pathlib
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tools"))

import smax_lines


class Battles:
    """Environment i has episodes of i + 1 actions, each of reward 1; it wins its even ones."""

    num_envs, agents = 4, 2

    def reset(self, seed: int) -> dict[str, NDArray[Any]]:
        self.time, self.episode = np.zeros(4, int), np.zeros(4, int)
        return self.record(np.ones(4, bool))

    def step(self, action: Any) -> dict[str, NDArray[Any]]:
        reset = self.time == np.arange(4) + 1
        self.time, self.episode = np.where(reset, 0, self.time + 1), self.episode + reset
        return self.record(reset)

    def record(self, first: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:
        last = self.time == np.arange(4) + 1
        reward = np.repeat((~first).astype(float)[:, None], 2, 1)
        return {"first": first, "last": last, "won": last & (self.episode % 2 == 0), "reward": reward}

    def score(self, step: dict[str, NDArray[Any]]) -> NDArray[Any]:
        return step["reward"][:, 0]


def test_short_episodes_do_not_count_more_than_long_ones() -> None:
    env: Any = Battles()
    lengths = (1 + 2 + 3 + 4) / 4
    assert smax_lines.line(env, lambda step: step["reward"], 8, 0) == {"won": 0.5, "return": lengths, "length": lengths}
    assert smax_lines.line(env, lambda step: step["reward"], 9, 0)["won"] == 2 / 3  # three episodes of each
