"""A corridor with a junction at its end, and a question whose answer was shown episodes ago."""

# L cells of the corridor, D arms of the junction, G episodes from a cue to its question

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from env_adapters.errors import TaskError
from env_adapters.seeds import mix, read_rng, write_rng

_FACT = 4  # separates this use of the instance's seed from those of `toys`
_DARK, _FLOOR, _SELF = (24, 24, 32), (70, 70, 78), (70, 110, 240)
_CUE, _LAMP, _ASKED = (60, 190, 75), (255, 240, 160), (230, 60, 60)
_BAND = 16  # rows of a picture of 64: cue, corridor, arms, question


class CueMaze(gymnasium.Env[dict[str, Any], Any]):
    """A walk of L cells to a junction of D arms; an action is an arm, and matters at the junction alone.

    Episodes come in cycles of G + 1. In the first episode of a cycle a cue on the wall of the first cell names one of the
    arms, the `fact` of this cycle: it is in one record, and nowhere else. In every episode but the last of a cycle a lamp
    at the junction lights the right arm, drawn with the episode. In the last no lamp is lit, all records show that this is
    the question, and the right arm is the fact. Nothing tells afterwards whether the arm was right but the reward. So what
    decides lies about G * (L + 1) records back, and G ends of episodes.

    Reward 1 for the right arm, else 0; L steps an episode. Random play scores 1 / D, who follows the lamps and guesses the
    question (G + 1 / D) / (G + 1), who remembers 1: with the defaults 0.25, 0.8125 and 1.

    Observation: `vector` float32 (L + 1 + D + D + 1,): the cell's one-hot (the last is behind the junction), the cue's, the
    lamp's, and whether this is the question; or, with image=True, `image` uint8 (size, size, 3). Action: Discrete(D).
    `told["fact"]` is the fact's one-hot, for probes; `right` the arm that pays in this episode.

    `seed` decides the instance's facts; without it the first seeded reset does. Like the count of its episodes they outlive
    seeded resets; the lamp of an episode follows from the seed of its reset.

    >>> env = CueMaze(length=2, gap=1, seed=5)
    >>> first = env.reset(seed=0)[0]["vector"]
    >>> fact = int(first[3:7].argmax())
    >>> _ = env.step(0), env.step(0), env.reset(seed=1)
    >>> env.step(0)[0]["vector"][3:].sum(), env.step(fact)[1:3], bool(env.told["fact"][fact])
    (np.float32(1.0), (1.0, True), True)
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 3}  # noqa: RUF012  # gymnasium declares it so
    env_adapters = True
    cheap = True
    repeat = 1
    signals: tuple[str, ...] = ()

    def __init__(
        self,
        length: int = 4,
        arms: int = 4,
        gap: int = 3,
        image: bool = False,
        size: int = 64,
        seed: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        if length < 1 or arms < 2 or gap < 1:
            raise TaskError(f"toy:cue_maze needs length >= 1, arms >= 2, gap >= 1; got {length}, {arms}, {gap}")
        if image and (size % 64 or size < max(length + 1, arms)):
            raise TaskError(
                f"toy:cue_maze draws images whose size is a multiple of 64, at least its cells and its arms; got {size}"
            )
        self._length, self._arms, self._gap, self._size = length, arms, gap, size
        self._key = "image" if image else "vector"
        box = (
            spaces.Box(0, 255, (size, size, 3), np.uint8)
            if image
            else spaces.Box(0.0, 1.0, (length + 2 * arms + 2,), np.float32)
        )
        self.observation_space = spaces.Dict({self._key: box})
        self.action_space = spaces.Discrete(arms)
        self.render_mode = render_mode
        self.protocol: dict[str, Any] = {
            "name": "cue_maze",
            "length": length,
            "arms": arms,
            "gap": gap,
            "observation": self._key,
            "repeat": 1,
        }
        self._instance: int | None = None
        self._episode, self._cell, self._lamp, self._over = -1, 0, 0, True
        if seed is not None:
            self.reseed(seed)

    def reseed(self, seed: int) -> None:
        """Begin a new instance: its next episode is the first of a cycle."""
        self._instance, self._episode = mix(seed) >> 2, -1

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """The next episode of this instance, with a lamp drawn from the episode's seed."""
        super().reset(seed=seed)
        if self._instance is None:
            self.reseed(int(np.random.default_rng().integers(2**62)) if seed is None else seed)
        self._episode += 1
        self._cell, self._lamp, self._over = 0, int(self.np_random.integers(self._arms)), False
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One cell on; at the junction into an arm, which ends the episode."""
        if self._over:
            raise gymnasium.error.ResetNeeded("the episode has ended; call reset")
        self._cell += 1
        self._over = self._cell == self._length
        return self._observe(), float(self._over and int(action) == self.right), self._over, False, {}

    @property
    def fact(self) -> int:
        """The arm that the cue of this cycle names."""
        if self._instance is None:
            return 0
        return mix(self._instance, _FACT, max(self._episode, 0) // (self._gap + 1)) % self._arms

    @property
    def asked(self) -> bool:
        """Whether this episode is the question."""
        return self._episode % (self._gap + 1) == self._gap

    @property
    def right(self) -> int:
        """The arm that pays in this episode."""
        return self.fact if self.asked else self._lamp

    @property
    def told(self) -> dict[str, NDArray[np.float32]]:
        """The hidden fact (D,), which no observation but one holds."""
        return {"fact": np.eye(self._arms, dtype=np.float32)[self.fact]}

    def render(self) -> Any:
        """The image form of the current record, 64 x 64 if the observation is the vector."""
        return self._draw(self._size if self._key == "image" else 64)

    def snapshot(self) -> dict[str, Any]:
        """Everything the future depends on; the fact follows from (instance, episode)."""
        return {
            "instance": self._instance,
            "episode": self._episode,
            "cell": self._cell,
            "lamp": self._lamp,
            "over": self._over,
            "rng": write_rng(self.np_random),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of `snapshot`."""
        self._instance = None if state["instance"] is None else int(state["instance"])
        self._episode, self._cell, self._lamp = int(state["episode"]), int(state["cell"]), int(state["lamp"])
        self._over = bool(state["over"])
        read_rng(self.np_random, state["rng"])

    def _shown(self) -> tuple[int | None, int | None]:
        """The cue's arm and the lit arm of this record, None where none is shown."""
        cue = self.fact if self._cell == 0 and self._episode % (self._gap + 1) == 0 else None
        return cue, self._lamp if self._cell == self._length - 1 and not self.asked else None

    def _observe(self) -> dict[str, Any]:
        if self._key == "image":
            return {"image": self._draw(self._size)}
        vector = np.zeros(self._length + 2 * self._arms + 2, np.float32)
        cue, lamp = self._shown()
        vector[self._cell] = 1
        if cue is not None:
            vector[self._length + 1 + cue] = 1
        if lamp is not None:
            vector[self._length + 1 + self._arms + lamp] = 1
        vector[-1] = self.asked
        return {"vector": vector}

    def _draw(self, size: int) -> NDArray[np.uint8]:
        image = np.full((size, size, 3), _DARK, np.uint8)
        band = _BAND * size // 64
        cue, lamp = self._shown()

        def mark(row: int, at: int, of: int, colour: tuple[int, int, int]) -> None:
            image[row * band + 2 : (row + 1) * band - 2, at * size // of + 1 : (at + 1) * size // of - 1] = colour

        for cell in range(self._length + 1):
            mark(1, cell, self._length + 1, _SELF if cell == self._cell else _FLOOR)
        for arm in range(self._arms):
            mark(0, arm, self._arms, _CUE if arm == cue else _DARK)
            mark(2, arm, self._arms, _LAMP if arm == lamp else _FLOOR)
        if self.asked:
            image[3 * band :] = _ASKED
        return image
