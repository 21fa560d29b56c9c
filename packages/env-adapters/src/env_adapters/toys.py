"""Small worlds: catch (pixels, a few steps; plain or distracted) and doors (one choice, a rule only memory can hold)."""

# H = W = size pixels, K cues, D doors, N blocks

from __future__ import annotations

import functools
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from env_adapters.errors import TaskError
from env_adapters.seeds import mix, read_rng, write_rng

_REDRAW, _RULE, _PATTERN = 1, 2, 3  # separate the uses of one instance seed
_DARK, _WALL, _OPEN = (24, 24, 32), (96, 96, 104), (255, 255, 255)
_BALL, _PADDLE = (250, 215, 50), (70, 110, 240)
_BLOCKS = np.array([(230, 60, 60), (60, 190, 75), (180, 60, 220), (150, 150, 150)], np.uint8)
_PALETTE = np.array([(230, 60, 60), (60, 190, 75), (70, 110, 240), (250, 215, 50), (180, 60, 220), (20, 20, 20)])


class Catch(gymnasium.Env[dict[str, Any], Any]):
    """A ball falls on a grid of `grid` x `grid` cells; the paddle on the lowest row moves left, stays or moves right.

    Observation: `image` uint8 (size, size, 3). Action: Discrete(3). After grid - 1 steps the ball has fallen: reward 1
    if the paddle is under it, else -1, terminal. A perfect player scores 1; standing still about 2 / grid - 1.

    >>> env = Catch(size=16)
    >>> env.reset(seed=0)[0]["image"].shape
    (16, 16, 3)
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}  # noqa: RUF012  # gymnasium declares it so
    env_adapters = True
    cheap = True
    repeat = 1
    signals: tuple[str, ...] = ()

    def __init__(self, size: int = 64, grid: int = 8, render_mode: str | None = None) -> None:
        if grid < 3 or size % grid:
            raise TaskError(f"toy:catch needs a grid of at least 3 cells that divides the size; got {grid} and {size}")
        self.observation_space = spaces.Dict({"image": spaces.Box(0, 255, (size, size, 3), np.uint8)})
        self.action_space = spaces.Discrete(3)
        self.render_mode = render_mode
        self.protocol: dict[str, Any] = {"name": "catch", "grid": grid, "size": size, "repeat": 1}
        self._size, self._grid = size, grid
        self._row = self._ball = self._paddle = 0
        self._over = True

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """The ball appears in a random column, the paddle stands in the middle."""
        super().reset(seed=seed)
        self._ball = int(self.np_random.integers(self._grid))
        self._row, self._paddle, self._over = 0, self._grid // 2, False
        return {"image": self._draw()}, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Action 0 left, 1 stay, 2 right."""
        if self._over:
            raise gymnasium.error.ResetNeeded("the episode has ended; call reset")
        self._paddle = min(max(self._paddle + int(action) - 1, 0), self._grid - 1)
        self._row += 1
        self._over = self._row == self._grid - 1
        reward = (1.0 if self._paddle == self._ball else -1.0) if self._over else 0.0
        return {"image": self._draw()}, reward, self._over, False, {}

    def render(self) -> Any:
        """The image itself."""
        return self._draw()

    @property
    def told(self) -> dict[str, NDArray[np.float32]]:
        """Where the ball is and where the paddle, in cells as shares of the grid."""
        cells = np.array([self._row, self._ball, self._paddle], np.float32)
        return {"state": cells / np.float32(self._grid - 1)}

    def snapshot(self) -> dict[str, Any]:
        """Everything the future depends on."""
        names = {"row": self._row, "ball": self._ball, "paddle": self._paddle, "over": self._over}
        return names | {"rng": write_rng(self.np_random)}

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of `snapshot`."""
        self._row, self._ball, self._paddle = int(state["row"]), int(state["ball"]), int(state["paddle"])
        self._over = bool(state["over"])
        read_rng(self.np_random, state["rng"])

    def _draw(self) -> NDArray[np.uint8]:
        cell = self._size // self._grid
        image = self._background()
        image[-cell:, self._paddle * cell : (self._paddle + 1) * cell] = _PADDLE
        edge = cell // 8  # the ball is smaller than its cell, so that a caught one shows the paddle around it
        rows = slice(self._row * cell + edge, (self._row + 1) * cell - edge)
        image[rows, self._ball * cell + edge : (self._ball + 1) * cell - edge] = _BALL
        return image

    def _background(self) -> NDArray[np.uint8]:
        return np.full((self._size, self._size, 3), _DARK, np.uint8)


class DistractedCatch(Catch):
    """Catch before `blocks` bright blocks that move about and mean nothing.

    Each block is as large as a cell, so that it matters about as much to a reconstruction as ball and paddle do. It has
    a colour, a place and a velocity of its own, drawn with the episode, and returns on the other side where it leaves
    the picture. Neither actions nor rewards have to do with
    them: for a seed and actions the rewards are those of `Catch`. Ball and paddle are drawn over them, in colours that
    no block has.

    >>> plain, distracted = Catch(), DistractedCatch()
    >>> scene, picture = plain.reset(seed=0)[0]["image"], distracted.reset(seed=0)[0]["image"]
    >>> bool(picture.sum() > scene.sum()), distracted.step(0)[1] == plain.step(0)[1]
    (True, True)
    """

    def __init__(self, size: int = 64, grid: int = 8, blocks: int = 4, render_mode: str | None = None) -> None:
        super().__init__(size, grid, render_mode)
        if blocks < 1:
            raise TaskError(f"toy:catch_distracted needs at least one block; got {blocks}")
        self.protocol |= {"name": "catch_distracted", "blocks": blocks}
        self._count = blocks
        self._start = self._velocity = np.zeros((blocks, 2), np.int64)
        self._colour = np.zeros(blocks, np.int64)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As in `Catch`; then the blocks are drawn from the same generator."""
        super().reset(seed=seed)
        fastest = max(1, self._size // 16)
        self._start = self.np_random.integers(self._size, size=(self._count, 2))
        self._velocity = self.np_random.integers(1, fastest + 1, size=(self._count, 2))  # every block moves both ways
        self._velocity *= self.np_random.choice([-1, 1], size=(self._count, 2))
        self._colour = self.np_random.integers(len(_BLOCKS), size=self._count)
        return {"image": self._draw()}, {}

    def snapshot(self) -> dict[str, Any]:
        """Everything the future depends on; where the blocks are follows from the row."""
        blocks = {"start": self._start, "velocity": self._velocity, "colour": self._colour}
        return super().snapshot() | {name: array.copy() for name, array in blocks.items()}

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of `snapshot`."""
        super().restore(state)
        self._start, self._velocity, self._colour = (np.array(state[k]) for k in ("start", "velocity", "colour"))

    def _background(self) -> NDArray[np.uint8]:
        image, wide = super()._background(), np.arange(self._size // self._grid)
        for (row, column), colour in zip(self._start + self._row * self._velocity, self._colour, strict=True):
            image[np.ix_((row + wide) % self._size, (column + wide) % self._size)] = _BLOCKS[colour]
        return image


class Doors(gymnasium.Env[dict[str, Any], Any]):
    """A cue is seen, a door is chosen, the right door is shown: two records and one action make an episode.

    Which door is right follows a hidden rule (K,) -> D of this instance. The rule outlives episodes and seeded resets;
    at each new episode it is redrawn with probability 1 / redraw (0: never). So weights cannot hold it, a memory can.
    `rule` and `cue` are for measurement; no observation holds the rule.

    Observation: `vector` float32 (K + D,), the cue's one-hot and the right door's (zeros before the choice); or, with
    image=True, `image` uint8 (size, size, 3): the cue as a pattern of twelve coloured cells above the D doors, of which
    the right one lights up. Action: Discrete(D). Reward 1 if the door was right, else 0; chance is 1 / D.

    `seed` decides the instance's rules; without it the first seeded reset does. The cue of an episode follows from the
    seed of its reset. Two instances with one seed are one and the same: give every instance its own.

    >>> env = Doors(seed=5)
    >>> observation, _ = env.reset(seed=0)
    >>> observation, reward, terminal, _, _ = env.step(env.rule[env.cue])
    >>> reward, terminal, observation["vector"].shape
    (1.0, True, (36,))
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 1}  # noqa: RUF012  # gymnasium declares it so
    env_adapters = True
    cheap = True
    repeat = 1
    signals: tuple[str, ...] = ()

    def __init__(
        self,
        cues: int = 32,
        doors: int = 4,
        redraw: int = 400,
        image: bool = False,
        size: int = 64,
        seed: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        if cues < 1 or doors < 2 or redraw < 0:
            raise TaskError(f"doors needs cues >= 1, doors >= 2, redraw >= 0; got {cues}, {doors}, {redraw}")
        if image and (size % 16 or size < doors):
            raise TaskError(f"doors draws images whose size is a multiple of 16, at least its doors; got {size}")
        self._table = _images(cues, doors, size) if image else _vectors(cues, doors)
        self._key = "image" if image else "vector"
        shape = self._table.shape[2:]
        box = spaces.Box(0, 255, shape, np.uint8) if image else spaces.Box(0.0, 1.0, shape, np.float32)
        self.observation_space = spaces.Dict({self._key: box})
        self.action_space = spaces.Discrete(doors)
        self.render_mode = render_mode
        self.protocol: dict[str, Any] = {
            "name": "doors",
            "cues": cues,
            "doors": doors,
            "redraw": redraw,
            "observation": self._key,
            "repeat": 1,
        }
        self._cues, self._doors, self._redraw = cues, doors, redraw
        self.cue, self._door, self._over = 0, -1, True
        self._instance: int | None = None
        self.rule: NDArray[np.int64] = np.zeros(cues, np.int64)
        if seed is not None:
            self.reseed(seed)

    def reseed(self, seed: int) -> None:
        """Begin a new instance: draw its first rule, forget its history."""
        self._instance, self._episodes, self._born = mix(seed) >> 2, -1, 0
        self._draw_rule()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """The next episode of this instance: perhaps a new rule, then a cue drawn from the episode's seed."""
        super().reset(seed=seed)
        if self._instance is None:
            self.reseed(int(np.random.default_rng().integers(2**62)) if seed is None else seed)
        assert self._instance is not None
        self._episodes += 1
        if self._redraw and self._episodes and mix(self._instance, _REDRAW, self._episodes) % self._redraw == 0:
            self._born = self._episodes
            self._draw_rule()
        self.cue, self._door, self._over = int(self.np_random.integers(self._cues)), -1, False
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Open a door; the right one is shown and the episode is over."""
        if self._over:
            raise gymnasium.error.ResetNeeded("the episode has ended; call reset")
        self._door, self._over = int(self.rule[self.cue]), True
        return self._observe(), float(action == self._door), True, False, {}

    def render(self) -> Any:
        """The image form of the current record, 64 x 64 if the observation is the vector."""
        images = self._table if self._key == "image" else _images(self._cues, self._doors, 64)
        return images[self.cue, self._door + 1].copy()

    @property
    def told(self) -> dict[str, NDArray[np.float32]]:
        """The right door (D,) for the cue that is seen, which the first record of an episode does not show."""
        return {"right": np.eye(self._doors, dtype=np.float32)[self.rule[self.cue]]}

    def snapshot(self) -> dict[str, Any]:
        """Everything the future depends on; the rule itself follows from (instance, born)."""
        history = [-1, 0] if self._instance is None else [self._episodes, self._born]
        return {
            "instance": self._instance,
            "episodes": history[0],
            "born": history[1],
            "cue": self.cue,
            "door": self._door,
            "over": self._over,
            "rng": write_rng(self.np_random),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of `snapshot`."""
        self._instance = None if state["instance"] is None else int(state["instance"])
        self._episodes, self._born = int(state["episodes"]), int(state["born"])
        self.cue, self._door, self._over = int(state["cue"]), int(state["door"]), bool(state["over"])
        read_rng(self.np_random, state["rng"])
        if self._instance is not None:
            self._draw_rule()

    def _draw_rule(self) -> None:
        # A pure function of (instance, episode of birth): a snapshot needs two numbers, and no other draw moves it.
        assert self._instance is not None
        doors = [mix(self._instance, _RULE, self._born, cue) % self._doors for cue in range(self._cues)]
        self.rule = np.array(doors, np.int64)
        self.rule.flags.writeable = False

    def _observe(self) -> dict[str, Any]:
        return {self._key: self._table[self.cue, self._door + 1].copy()}


@functools.cache
def _vectors(cues: int, doors: int) -> NDArray[Any]:
    """(K, D + 1, K + D): cue's one-hot, then the door's; column 0 shows no door."""
    table = np.zeros((cues, doors + 1, cues + doors), np.float32)
    table[np.arange(cues), :, np.arange(cues)] = 1
    table[:, np.arange(doors) + 1, cues + np.arange(doors)] = 1
    return table


@functools.cache
def _images(cues: int, doors: int, size: int) -> NDArray[Any]:
    """(K, D + 1, size, size, 3): 4 x 3 coloured cells over the doors; in column 0 every door is shut."""
    unit, edge = size // 16, size // 64
    table = np.empty((cues, doors + 1, size, size, 3), np.uint8)
    table[:] = _DARK
    for cue in range(cues):
        for cell in range(12):
            row, column = divmod(cell, 4)
            colour = _PALETTE[mix(_PATTERN, cue, cell) % len(_PALETTE)]
            table[cue, :, row * 4 * unit : (row + 1) * 4 * unit, column * 4 * unit : (column + 1) * 4 * unit] = colour
    width = size // doors
    for door in range(doors):
        columns = slice(door * width + edge, max((door + 1) * width - edge, door * width + edge + 1))
        table[:, :, 12 * unit + edge : size - edge, columns] = _WALL
        table[:, door + 1, 12 * unit + edge : size - edge, columns] = _OPEN
    return table
