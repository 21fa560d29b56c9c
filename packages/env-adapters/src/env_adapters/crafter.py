"""`gym:CrafterReward-v1`, `gym:CrafterNoReward-v1`: Crafter, whose package speaks the interface of the old package gym.

It registers with that one alone. Importing this module registers both with gymnasium; the package is imported when a game is
made.
"""

from __future__ import annotations

import importlib
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray


class Crafter(gymnasium.Env[Any, Any]):
    """Death is terminal, the end of time (`length` steps) a truncation.

    A new game a reset, with the reset's seed; the same seed and actions do not lead to the same records, for the game walks
    through sets of its creatures. options: those of `crafter.Env` without its seed: area, view, size, length.
    """

    env_adapters = True
    render_mode = "rgb_array"

    def __init__(self, reward: bool = True, render_mode: str | None = None, **options: Any) -> None:
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
        self._options = {"reward": reward, **options}
        self.protocol = {
            "name": "CrafterReward" if reward else "CrafterNoReward",
            "max_episode_steps": options.get("length", 10_000),
            "deterministic": False,
        }
        package: Any = importlib.import_module("crafter")  # beside the project, so that nobody has its types
        self._made: Any = package.Env
        self._game = self._made(seed=0, **self._options)
        shape = tuple(map(int, self._game.observation_space.shape))
        self.observation_space = spaces.Box(0, 255, shape, np.uint8)
        self.action_space = spaces.Discrete(int(self._game.action_space.n))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As gymnasium's."""
        super().reset(seed=seed)
        self._game = self._made(seed=int(self.np_random.integers(2**31)), **self._options)
        return self._game.reset(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """As gymnasium's."""
        seen, reward, done, info = self._game.step(int(action))
        dead = not info["discount"]
        return seen, float(reward), dead, bool(done and not dead), info

    def render(self) -> NDArray[np.uint8]:
        """The picture that is seen."""
        drawn: NDArray[np.uint8] = self._game.render()
        return drawn


for _id, _reward in (("CrafterReward-v1", True), ("CrafterNoReward-v1", False)):
    gymnasium.register(_id, entry_point=Crafter, kwargs={"reward": _reward})
