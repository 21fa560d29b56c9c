"""Teams by their shapes alone, `zoo:gpu_teams`: for a machine that has neither JAX nor Melting Pot.

Whatever is done, nothing happens; what an update of such a team costs depends on shapes alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

# agents, what each sees, how many actions it has
SHAPES: dict[str, tuple[int, spaces.Box, int]] = {
    "smax:25m": (25, spaces.Box(-np.inf, np.inf, (647,), np.float32), 30),
    "smax:smacv2_5_units": (5, spaces.Box(-np.inf, np.inf, (127,), np.float32), 10),
    "meltingpot:coop_mining": (4, spaces.Box(0, 255, (44, 44, 3), np.uint8), 9),
}


class Idle:
    """A `pettingzoo.ParallelEnv`, without that package."""

    def __init__(self, like: str) -> None:
        count, self._seen, self._actions = SHAPES[like]
        self.possible_agents = [f"agent_{i}" for i in range(count)]
        self.agents = list(self.possible_agents)

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        return self._seen

    def action_space(self, agent: str) -> spaces.Space[Any]:
        return spaces.Discrete(self._actions)

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        self.agents = list(self.possible_agents)
        return self._each(np.zeros(self._seen.shape, self._seen.dtype)), self._each({})

    def step(self, actions: dict[str, Any]) -> tuple[dict[str, Any], ...]:
        seen, infos = self.reset()
        return seen, self._each(0.0), self._each(False), self._each(False), infos

    def close(self) -> None: ...

    def _each(self, value: Any) -> dict[str, Any]:
        return dict.fromkeys(self.agents, value)


def parallel_env(like: str) -> Idle:
    return Idle(like)
