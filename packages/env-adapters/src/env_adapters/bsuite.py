"""`bsuite_memory_len/<id>`, `bsuite_memory_size/<id>`, `bsuite_discounting_chain/<id>`: memory and credit, in pure form."""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from env_adapters.errors import TaskError

# Experiment -> number of its ids in bsuite 0.3.6
EXPERIMENTS = {"memory_len": 23, "memory_size": 17, "discounting_chain": 20}


class Bsuite(gymnasium.Env[dict[str, Any], Any]):
    """One setting of an experiment; observation `vector` float32, action Discrete.

    memory_len/0..22: a bit is shown at first and asked for after 1 to 100 steps. vector (3,): time to go, query, the
        bit as -1 or 1; 2 actions; reward 1 or -1 at the end, so that the mean return is 1 - 2 * error.
    memory_size/0..16: the same with 1 to 40 bits, one of which is asked for after 2 steps: 3 actions an episode. vector
        (2 + bits,).
    discounting_chain/0..19: the first action picks a chain, which pays 1 after 1, 3, 10, 30 or 100 steps; the chain
        number id % 5 pays 1.1. vector (2,): the chain (-1 at first), time; 5 actions; 100 steps.

    The package's environments, unchanged, built with an explicit seed; an episode follows from the seed of its reset.
    Their ends are terminal (discount 0), also that of the chain, which is a fixed length and no time limit.

    TaskError for another experiment or id, or without the package.

    >>> env = Bsuite("memory_len/11")
    >>> env.reset(seed=0)[0]["vector"].shape, env.protocol["memory_length"]
    ((3,), 14)
    """

    metadata = {"render_modes": []}  # noqa: RUF012  # gymnasium declares it so
    env_adapters = True
    cheap = True
    repeat = 1
    signals: tuple[str, ...] = ()

    def __init__(self, name: str) -> None:
        experiment, _, number = name.partition("/")
        if experiment not in EXPERIMENTS:
            raise TaskError(
                f"bsuite has no experiment {experiment!r} here; it has {', '.join(EXPERIMENTS)}, as in bsuite_memory_len/0"
            )
        if not number.isdecimal() or int(number) >= EXPERIMENTS[experiment]:
            missing = f"no id {number!r}" if number else "no task without an id"
            raise TaskError(
                f"bsuite_{experiment} has {missing}; it has bsuite_{experiment}/0 to {EXPERIMENTS[experiment] - 1}"
            )
        try:
            sweep: Any = importlib.import_module(f"bsuite.experiments.{experiment}.sweep")
        except ModuleNotFoundError as error:
            raise TaskError(f"bsuite needs {error.name}; install `env-adapters[bsuite]`") from error
        setting: dict[str, int] = dict(sweep.SETTINGS[int(number)])
        self._env = _build(experiment, setting)
        (_, width), actions = self._env.observation_spec().shape, self._env.action_spec().num_values
        self.observation_space = spaces.Dict({"vector": spaces.Box(-np.inf, np.inf, (width,), np.float32)})
        self.action_space = spaces.Discrete(actions)
        self.protocol: dict[str, Any] = {
            "name": "bsuite",
            "suite": "bsuite",
            "task": f"{experiment}/{int(number)}",
            **setting,
            "episodes": int(sweep.NUM_EPISODES),
            "repeat": 1,
            "package": f"bsuite {version('bsuite')}",
        }
        self._over = True

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """An episode that follows from the seed alone."""
        super().reset(seed=seed)
        generator: np.random.RandomState | None = vars(self._env).get("_rng")  # the chain has none; no other door
        if generator is not None:
            generator.seed(int(self.np_random.integers(2**32)))
        self._over = False
        return _vector(self._env.reset().observation), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One step of the package's environment."""
        if self._over:
            raise gymnasium.error.ResetNeeded("the episode has ended; call reset")
        record = self._env.step(int(action))
        self._over = bool(record.last())
        terminated = self._over and record.discount == 0.0
        return _vector(record.observation), float(record.reward), terminated, self._over and not terminated, {}


def _build(experiment: str, setting: dict[str, int]) -> Any:
    if experiment == "discounting_chain":
        return importlib.import_module("bsuite.environments.discounting_chain").DiscountingChain(**setting)
    chain: Any = importlib.import_module("bsuite.environments.memory_chain").MemoryChain
    full = {"memory_length": 2, "num_bits": 1} | setting  # memory_size asks after two steps, memory_len holds one bit
    return chain(**full, seed=0)


def _vector(observation: Any) -> dict[str, NDArray[np.float32]]:
    return {"vector": np.array(observation, np.float32).reshape(-1)}
