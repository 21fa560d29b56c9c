"""`dmc_<domain>_<task>`: the DeepMind Control suite, its state or its pixels."""

# one agent step is `repeat` control steps; an episode has 1,000 control steps

from __future__ import annotations

import difflib
import importlib
import importlib.util
import logging
import sys
from importlib.metadata import version
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from env_adapters import opengl
from env_adapters.errors import TaskError
from env_adapters.seeds import read_random_state, read_rng, write_random_state, write_rng

# Domain -> tasks, as dm-control 1.0.50 lists them. Written down so that a name can be checked without the package.
# fmt: off
SUITE: dict[str, tuple[str, ...]] = {
    "acrobot": ("swingup", "swingup_sparse"),
    "ball_in_cup": ("catch",),
    "cartpole": ("balance", "balance_sparse", "swingup", "swingup_sparse", "two_poles", "three_poles"),
    "cheetah": ("run",),
    "dog": ("stand", "walk", "trot", "run", "fetch"),
    "finger": ("spin", "turn_easy", "turn_hard"),
    "fish": ("upright", "swim"),
    "hopper": ("stand", "hop"),
    "humanoid": ("stand", "walk", "run", "run_pure_state"),
    "humanoid_CMU": ("stand", "walk", "run"),
    "lqr": ("lqr_2_1", "lqr_6_2"),
    "manipulator": ("bring_ball", "bring_peg", "insert_ball", "insert_peg"),
    "pendulum": ("swingup",),
    "point_mass": ("easy", "hard"),
    "quadruped": ("walk", "run", "escape", "fetch"),
    "reacher": ("easy", "hard"),
    "stacker": ("stack_2", "stack_4"),
    "swimmer": ("swimmer6", "swimmer15"),
    "walker": ("stand", "walk", "run"),
}
# fmt: on
TASKS = {f"{domain}_{task}": (domain, task) for domain, tasks in SUITE.items() for task in tasks}
_ALIASES = {"cup_catch": "ball_in_cup_catch"}
_CAMERAS = {"quadruped": 2}  # its camera 0 looks along the ground; every other domain is seen through camera 0
_DRAWS_ALWAYS = ("quadruped_escape",)  # hands a new terrain to the renderer at each reset, whatever is observed
_COMMON: dict[str, Any] = {"repeat": 2, "limit": 1000, "size": 64}


class Control(gymnasium.Env[dict[str, Any], Any]):
    """One task of the suite; actions Box, an episode is truncated after 1,000 control steps.

    name: `<domain>_<task>`, or `vision_<domain>_<task>`, which is the same with observe="vision".
    observe: "proprio", one float32 vector per entry of the task's observation; or "vision", `image` uint8 (size, size, 3)
        alone, from camera 0 (quadruped: 2). Vision needs OpenGL, see `opengl.choose`.
    repeat: control steps per action, rewards are summed. 2 as in the paper of DreamerV3; its public code has 1.
    limit: control steps until the truncation. Only lqr ever terminates, when the masses are at rest.

    A simulation that diverges (dm_control raises PhysicsError) repeats its last observation, with reward 0, as a
    truncation; `info["diverged"]` says so.

    TaskError for an unknown task, an option out of range, a missing package, or nothing to draw with.

    >>> env = Control("cartpole_balance")
    >>> sorted(env.reset(seed=0)[0]), env.action_space.shape, env.protocol["name"]
    (['position', 'velocity'], (1,), 'dmc_proprio')
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 25}  # noqa: RUF012  # gymnasium declares it so
    env_adapters = True
    signals: tuple[str, ...] = ()

    def __init__(
        self,
        name: str,
        observe: str | None = None,
        repeat: int = 2,
        limit: int = 1000,
        size: int = 64,
        camera: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        domain, task, observe = _find(name, observe)
        for option, value in (("repeat", repeat), ("limit", limit), ("size", size)):
            if value < 1:
                raise TaskError(f"dmc: {option} is {value}; it is at least 1")
        if importlib.util.find_spec("dm_control") is None:  # before a back end is tried out, for which mujoco is needed
            raise lacks("dmc", "dm_control")
        self._task_name, self._draws = f"dmc_{domain}_{task}", opengl.choose() is not None
        if not self._draws and (observe == "vision" or f"{domain}_{task}" in _DRAWS_ALWAYS):
            raise opengl.missing(self._task_name)
        suite = import_dm_control("dmc", "dm_control.suite")
        self._mujoco = importlib.import_module("mujoco")
        self._diverged: type[Exception] = importlib.import_module("dm_control.rl.control").PhysicsError
        # lqr draws its masses and springs from this seed when it is loaded; everything else is drawn at each reset
        env = suite.load(domain, task, task_kwargs={"random": 0})
        self._physics, self._task = env.physics, env.task
        self._substeps = round(env.control_timestep() / self._physics.timestep())
        self._camera = _CAMERAS.get(domain, 0) if camera is None else camera
        if not 0 <= self._camera < self._physics.model.ncam:
            raise TaskError(f"dmc: {domain} has the cameras 0 to {self._physics.model.ncam - 1}, not {self._camera}")
        self._vision, self._size, self._limit = observe == "vision", size, limit
        if self._vision:
            seen: dict[str, spaces.Space[Any]] = {"image": spaces.Box(0, 255, (size, size, 3), np.uint8)}
        else:
            shapes = {key: value.shape for key, value in env.observation_spec().items()}
            seen = {key: _vector(int(np.prod(shape))) for key, shape in shapes.items()}
        bounds = env.action_spec()
        low, high = (np.broadcast_to(bound, bounds.shape) for bound in (bounds.minimum, bounds.maximum))
        self.observation_space = spaces.Dict(seen)
        self.action_space = spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)
        self.render_mode = render_mode
        self.repeat = repeat
        facts: dict[str, Any] = {"repeat": repeat, "limit": limit}
        if self._vision:
            facts |= {"size": size, "camera": self._camera}
        preset = {name: value for name, value in _COMMON.items() if name in facts}
        preset |= {"camera": _CAMERAS.get(domain, 0)} if self._vision else {}
        changed = sorted(name for name, value in facts.items() if value != preset[name])
        self.protocol: dict[str, Any] = {
            "name": f"dmc_{observe}" + (f", changed: {', '.join(changed)}" if changed else ""),
            **facts,
            "suite": "dmc",
            "task": f"{domain}_{task}",
            "observe": observe,
            "limit_is_terminal": False,
            "simulator": f"dm-control {version('dm-control')}, mujoco {version('mujoco')}",
        }
        self._seed: int | None = None
        self._steps, self._over = 0, True
        self._seen: dict[str, Any] = {}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """A new episode that follows from the seed alone; without one it is drawn."""
        super().reset(seed=seed)
        self._seed = int(self.np_random.integers(2**32))
        self._begin()
        self._seen = self._observe()
        return self._seen, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """`repeat` control steps of one action, fewer where the episode ends; rewards are summed."""
        if self._over:
            raise gymnasium.error.ResetNeeded("the episode has ended; call reset")
        reward, terminated, truncated, diverged = 0.0, False, False, False
        for _ in range(self.repeat):
            try:
                self._task.before_step(action, self._physics)
                self._physics.step(self._substeps)
                self._task.after_step(self._physics)
            except self._diverged:
                truncated = diverged = True
                break
            reward += float(self._task.get_reward(self._physics))
            self._steps += 1
            terminated = self._task.get_termination(self._physics) == 0.0
            truncated = self._steps >= self._limit and not terminated
            if terminated or truncated:
                break
        if not diverged:
            self._seen = self._observe()
        self._over = terminated or truncated
        return self._seen, 0.0 if diverged else reward, terminated, truncated, {"diverged": diverged}

    def render(self) -> Any:
        """The camera's view, (size, size, 3), at least 240 where vectors are observed."""
        return self._draw(self._size if self._vision else max(self._size, 240))

    def close(self) -> None:
        """Free the simulation and what draws it, before the interpreter ends: some drivers complain later."""
        self._physics.free()

    def snapshot(self) -> dict[str, Any]:
        """The episode's seed, MuJoCo's integration state, the task's generator and ours."""
        if self._seed is None:
            return {"seed": None, "rng": write_rng(self.np_random)}
        state = np.empty(self._mujoco.mj_stateSize(*self._models()[:1], self._whole()), np.float64)
        self._mujoco.mj_getState(*self._models(), state, self._whole())
        return {
            "seed": self._seed,
            "physics": state,
            "task": write_random_state(self._task.random),
            "rng": write_rng(self.np_random),
            "steps": self._steps,
            "over": self._over,
            "seen": {key: np.array(value) for key, value in self._seen.items()},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of `snapshot`: the episode's first moment again, then the state within it.

        The first moment gives back what the task drew into the model (targets, terrain, gains). dm_control leaves
        everything that follows from position and velocity computed between steps, hence `mj_step1`.
        """
        read_rng(self.np_random, state["rng"])
        self._seed = None if state["seed"] is None else int(state["seed"])
        if self._seed is None:
            self._over = True
            return
        self._begin()
        self._mujoco.mj_setState(*self._models(), np.array(state["physics"], np.float64), self._whole())
        self._mujoco.mj_step1(*self._models())
        read_random_state(self._task.random, state["task"])
        self._steps, self._over = int(state["steps"]), bool(state["over"])
        self._seen = {key: np.array(value) for key, value in state["seen"].items()}

    def _begin(self) -> None:
        self._task.random.seed(self._seed)
        with self._physics.reset_context():
            self._task.initialize_episode(self._physics)
        self._steps, self._over = 0, False

    def _models(self) -> tuple[Any, Any]:
        return self._physics.model.ptr, self._physics.data.ptr

    def _whole(self) -> Any:
        return self._mujoco.mjtState.mjSTATE_INTEGRATION

    def _observe(self) -> dict[str, Any]:
        if self._vision:
            return {"image": self._draw(self._size)}
        values = self._task.get_observation(self._physics)
        return {key: np.asarray(value, np.float32).reshape(-1) for key, value in values.items()}

    def _draw(self, size: int) -> NDArray[np.uint8]:
        if not self._draws:
            raise opengl.missing(self._task_name)
        return np.array(self._physics.render(size, size, camera_id=self._camera), np.uint8)


def import_dm_control(suite: str, module: str) -> Any:
    """A module of dm_control, or of what builds on it; TaskError with the extra's name where it is not installed."""
    quiet = logging.getLogger("absl")
    if _chatter not in quiet.filters:
        quiet.addFilter(_chatter)
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise lacks(suite, error.name) from error


def lacks(suite: str, module: str | None) -> TaskError:
    """What to say where a package of the extra is not installed."""
    if sys.version_info >= (3, 13):
        return TaskError(
            f"{suite} needs dm-control, whose labmaze has no build for Python 3.13: use Python 3.11 or 3.12"
        )
    return TaskError(f"{suite} needs {module}; install `env-adapters[{suite.replace('_', '-')}]`")


def _chatter(record: logging.LogRecord) -> bool:
    """dm_control's own models and tasks draw these two warnings; nobody here can do anything about them."""
    text = record.getMessage()
    return "settotalmass" not in text and "no free joint" not in text


def _vector(width: int) -> spaces.Box:
    return spaces.Box(-np.inf, np.inf, (width,), np.float32)


def _find(name: str, observe: str | None) -> tuple[str, str, str]:
    """Domain, task and what is observed."""
    plain = name
    for kind in ("vision", "proprio"):
        if name.startswith(f"{kind}_"):
            plain = name.removeprefix(f"{kind}_")
            if observe not in (None, kind):
                raise TaskError(f"dmc_{name} observes {kind}; leave out observe={observe!r} or name dmc_{plain}")
            observe = kind
    observe = observe or "proprio"
    if observe not in ("proprio", "vision"):
        raise TaskError(f"dmc: observe is {observe!r}; it is one of proprio, vision")
    plain = _ALIASES.get(plain, plain)
    if plain not in TASKS:
        close = difflib.get_close_matches(plain, list(TASKS), 3, 0.5)
        hint = f"close: {', '.join('dmc_' + one for one in close)}" if close else f"domains: {', '.join(SUITE)}"
        raise TaskError(f"dmc has no task {plain!r}; {hint}")
    return *TASKS[plain], observe
