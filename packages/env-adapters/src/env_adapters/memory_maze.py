"""`memory_maze_<size>`: find coloured targets in a maze, one after another; remembering where they were is what pays."""

# side 9, 11, 13 or 15 cells; 4 steps a second of simulated time

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from importlib.metadata import version
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from env_adapters import opengl
from env_adapters.dmc import import_dm_control, lacks
from env_adapters.errors import TaskError
from env_adapters.seeds import read_random_state, read_rng, write_random_state, write_rng

SIZES = ("9x9", "11x11", "13x13", "15x15")
_STEPS = {"9x9": 1000, "11x11": 2000, "13x13": 3000, "15x15": 4000}  # the package's time limits at its 4 Hz


class MemoryMaze(gymnasium.Env[dict[str, Any], Any]):
    """A maze of size x size cells with 3 to 6 targets; reward 1 for the target whose colour borders the image.

    Observation: `image` uint8 (64, 64, 3). Action: Discrete(6), nothing, forward, left, right, forward left, forward
    right. Maze, targets and their order are drawn anew for every episode. An episode never terminates; it is truncated
    after `limit` steps, by default the package's 1,000, 2,000, 3,000 or 4,000.

    `told` is the state, for probes: `agent` (2,) and `targets` (2 K,) places in cells from the middle of the maze, `heading`
    (2,) where the agent looks, and `colour` (K,), one-hot, which of the K targets is looked for: the border shows it.

    An episode with seed s is the first one of the package's own environment whose generator is seeded with the s-th
    draw below; unlike there, an episode depends on no earlier one. Needs OpenGL, see `opengl.choose`.

    >>> from env_adapters.errors import TaskError
    >>> try:
    ...     MemoryMaze("8x8")
    ... except TaskError as error:
    ...     print(error)
    memory_maze has no size '8x8'; it has 9x9, 11x11, 13x13, 15x15
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012  # gymnasium declares it so
    env_adapters = True
    repeat = 1
    signals: tuple[str, ...] = ()

    def __init__(self, size: str, limit: int | None = None, render_mode: str | None = None) -> None:
        if size not in SIZES:
            raise TaskError(f"memory_maze has no size {size!r}; it has {', '.join(SIZES)}")
        most = _STEPS[size]
        if limit is not None and not 1 <= limit <= most:
            raise TaskError(
                f"memory_maze_{size}: limit is {limit}; it is 1 to {most}, where the package ends an episode"
            )
        if (
            importlib.util.find_spec("memory_maze") is None
        ):  # before a back end is tried out, for which mujoco is needed
            raise lacks("memory_maze", "memory_maze")
        if opengl.choose() is None:
            raise opengl.missing(f"memory_maze_{size}")
        tasks, self._mujoco = import_tasks(), importlib.import_module("mujoco")
        self._text_maze: Any = importlib.import_module("memory_maze.maze").TextMazeVaryingWalls
        self._env: Any = getattr(tasks, f"memory_maze_{size}")(image_only_obs=True, seed=0)
        self._task: Any = self._env.task
        self._limit = most if limit is None else limit
        self.observation_space = spaces.Dict({"image": spaces.Box(0, 255, (64, 64, 3), np.uint8)})
        self.action_space = spaces.Discrete(6)
        self.render_mode = render_mode
        self.protocol: dict[str, Any] = {
            "name": "memory_maze" if self._limit == most else "memory_maze, changed: limit",
            "limit": self._limit,
            "repeat": 1,
            "suite": "memory_maze",
            "task": size,
            "limit_is_terminal": False,
            "control_hz": 4,
            "simulator": f"memory-maze {version('memory-maze')}, dm-control {version('dm-control')}, "
            f"mujoco {version('mujoco')}",
        }
        self._seed: int | None = None
        self._steps, self._over = 0, True

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """A new maze that follows from the seed alone; about a hundred steps' time, since the model is compiled anew."""
        super().reset(seed=seed)
        self._seed = int(self.np_random.integers(2**32))
        return {"image": self._begin()}, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """A quarter of a second."""
        if self._over:
            raise gymnasium.error.ResetNeeded("the episode has ended; call reset")
        record = self._env.step(int(action))
        self._steps += 1
        self._over = self._steps >= self._limit or bool(record.last())
        return {"image": np.array(record.observation)}, float(record.reward), False, self._over, {}

    def render(self) -> Any:
        """The walker's view without the border, (256, 256, 3)."""
        return np.array(self._env.physics.render(256, 256, camera_id=self._camera()), np.uint8)

    @property
    def told(self) -> dict[str, NDArray[np.float32]]:
        """Where agent and targets are, and which is looked for; zeros before the first episode."""
        task = vars(self._task)  # told by the package through observations alone, which would be computed in every step
        targets, walker = task["_targets"], task["_walker"]
        flat = np.zeros((len(targets) + 2, 2), np.float32)
        colour = np.zeros(len(targets), np.float32)
        if self._seed is not None:
            physics = self._env.physics
            body = physics.bind(walker.root_body)
            side = float(task["_maze_arena"].xy_scale)
            places = [physics.bind(one.geom).xpos for one in targets]
            turned = np.array(physics.bind(walker.egocentric_camera).xmat).reshape(3, 3)
            looks = -turned[:, 2]  # a camera looks along -z
            flat[0], flat[1] = np.array(body.xpos[:2]) / side, looks[:2] / np.hypot(*looks[:2])
            flat[2:] = np.array(places)[:, :2] / side
            colour[task["_current_target_ix"]] = 1
        return {"agent": flat[0], "heading": flat[1], "targets": flat[2:].ravel(), "colour": colour}

    def close(self) -> None:
        """Free the simulation and what draws it, before the interpreter ends: some drivers complain later."""
        self._env.close()

    def snapshot(self) -> dict[str, Any]:
        """The episode's seed, MuJoCo's integration state, the target looked for, both generators."""
        if self._seed is None:
            return {"seed": None, "rng": write_rng(self.np_random)}
        state = np.empty(self._mujoco.mj_stateSize(self._models()[0], self._whole()), np.float64)
        self._mujoco.mj_getState(*self._models(), state, self._whole())
        task = vars(self._task)
        return {
            "seed": self._seed,
            "physics": state,
            "target": int(task["_current_target_ix"]),
            "obtained": int(task["_targets_obtained"]),
            "random": write_random_state(self._env.random_state),
            "rng": write_rng(self.np_random),
            "steps": self._steps,
            "over": self._over,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of `snapshot`: the same maze is built again, then the state within it is set."""
        read_rng(self.np_random, state["rng"])
        self._seed = None if state["seed"] is None else int(state["seed"])
        if self._seed is None:
            self._over = True
            return
        self._begin()
        self._mujoco.mj_setState(*self._models(), np.array(state["physics"], np.float64), self._whole())
        self._mujoco.mj_step1(*self._models())  # between steps dm_control leaves positions and contacts computed
        task = vars(self._task)  # the package has no other door to these
        task["_current_target_ix"], task["_targets_obtained"] = int(state["target"]), int(state["obtained"])
        self._steps, self._over = int(state["steps"]), bool(state["over"])
        if self._steps:  # a target touched at the start is let go by the first step
            for target in task["_targets"]:
                target.reset(self._env.physics)
        read_random_state(self._env.random_state, state["random"])

    def _begin(self) -> Any:
        """Image of the episode's first record."""
        random, arena = self._env.random_state, vars(self._task)["_maze_arena"]
        random.seed(self._seed)
        old = arena.maze
        # The layouts come from a generator inside labmaze that can be neither seeded nor read: it gets a successor, with
        # the seed that the package would draw for it.
        vars(arena)["_maze"] = self._text_maze(
            height=old.height,
            width=old.width,
            max_rooms=old.max_rooms,
            room_min_size=old.room_min_size,
            room_max_size=old.room_max_size,
            max_variations=old.max_variations,
            spawns_per_room=old.spawns_per_room,
            objects_per_room=old.objects_per_room,
            simplify=True,
            random_seed=random.randint(2147483648),
        )
        image = self._env.reset().observation
        self._steps, self._over = 0, False
        return np.array(image)

    def _camera(self) -> str:
        return str(vars(self._task)["_walker"].egocentric_camera.full_identifier)

    def _models(self) -> tuple[Any, Any]:
        return self._env.physics.model.ptr, self._env.physics.data.ptr

    def _whole(self) -> Any:
        return self._mujoco.mjtState.mjSTATE_INTEGRATION


def import_tasks() -> Any:
    """memory_maze.tasks without memory_maze itself, which insists on the abandoned package gym and sets MUJOCO_GL."""
    name = "memory_maze"
    if name in sys.modules:
        return import_dm_control(name, "memory_maze.tasks")
    found = importlib.util.find_spec(name)
    stand_in = types.ModuleType(name)
    stand_in.__path__ = list((found and found.submodule_search_locations) or ())
    sys.modules[name] = stand_in
    try:
        return import_dm_control(name, "memory_maze.tasks")
    finally:
        del sys.modules[name]  # whoever has gym may still import the package itself
