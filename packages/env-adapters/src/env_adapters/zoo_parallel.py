"""A task of several agents -> a PettingZoo `ParallelEnv`, for whoever's learner wants that."""

# N agents, A actions, S of the global state

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from pettingzoo import ParallelEnv  # type: ignore[import-untyped]

from env_adapters.actions import ActionCodec
from env_adapters.errors import TaskError
from env_adapters.make import Factory, make_vec
from env_adapters.step import Step


class Parallel(ParallelEnv[str, Any, Any]):  # type: ignore[misc]  # it has no types
    """One environment of a task, its agents called "agent_0" to "agent_N-1"; `parallel.parallel_env` makes one.

    An agent whose record says that it is not alive terminates with that record, and leaves. Where a choice is Discrete, what an
    agent sees is a Dict of `observation` and `action_mask` (int8), as PettingZoo's own masked games have it; info holds the
    mask, too, and the signals. `state()` is the record's where there is one. `metadata["noop"]` is the task's.

    TaskError for a task of a single agent.
    """

    def __init__(self, task: str | Factory, **options: Any) -> None:
        name = task if isinstance(task, str) else getattr(task, "__name__", type(task).__name__)
        self._vector: Any = make_vec(task, 1, workers=0, **options)  # a VectorEnv, or what has its methods
        if self._vector.agents is None:
            self._vector.close()
            raise TaskError(f"{name} has a single agent; PettingZoo is for several: use env_adapters.make")
        self.metadata: dict[str, Any] = {
            "name": name,
            "render_modes": [],
            "is_parallelizable": True,
            "noop": self._vector.noop,
        }
        self.possible_agents = [f"agent_{at}" for at in range(self._vector.agents)]
        self.agents: list[str] = []
        self._places = {one: at for at, one in enumerate(self.possible_agents)}
        self._codec = ActionCodec(self._vector.action_space)
        self._masked = isinstance(self._vector.action_space, spaces.Discrete)
        self._entries = list(self._vector.observation_space.spaces)
        inner = self._vector.observation_space
        seen = inner[self._entries[0]] if len(self._entries) == 1 else inner
        if self._masked:
            mask = spaces.Box(0, 1, (self._codec.spec.size,), np.int8)
            seen = spaces.Dict({"observation": seen, "action_mask": mask})
        # an object for each agent: whoever seeds one leaves the others'
        self.observation_spaces = {one: copy.deepcopy(seen) for one in self.possible_agents}
        self.action_spaces = {one: copy.deepcopy(self._vector.action_space) for one in self.possible_agents}
        if self._vector.state_size is not None:
            self.state_space = spaces.Box(-np.inf, np.inf, (self._vector.state_size,), np.float32)
        self._random = np.random.default_rng()
        self._record: Step | None = None

    def observation_space(self, agent: str) -> Any:
        """Of one agent."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> Any:
        """Of one agent."""
        return self.action_spaces[agent]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """A new episode; without a seed one is drawn, after the last seed given. `options` mean nothing here."""
        if seed is not None:
            self._random = np.random.default_rng(seed)
        self._record = self._vector.reset(int(self._random.integers(2**31)))
        self.agents = [one for one in self.possible_agents if self._record["alive"][0, self._places[one]]]
        return {one: self._seen(one) for one in self.agents}, {one: self._info(one) for one in self.agents}

    def step(
        self, actions: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        """The actions of all `agents`. KeyError where one is missing, ValueError for one that its mask forbids."""
        if self._record is None or not self.agents:
            raise RuntimeError("nobody is left to act; call reset")
        acting = self.agents
        vector = np.zeros((1, len(self.possible_agents), self._codec.spec.size), np.float32)
        if self._vector.noop is not None:
            vector[..., self._vector.noop] = 1
        for one in acting:
            vector[0, self._places[one]] = self._codec.encode(actions[one])
        self._record = record = self._vector.step(vector)
        for fault in self._vector.take_faults():
            warnings.warn(fault, stacklevel=2)
        over, terminal = bool(record["last"][0]), bool(record["terminal"][0])
        gone = {one: not record["alive"][0, self._places[one]] for one in acting}
        terminated = {one: bool(gone[one]) or terminal for one in acting}
        truncated = {one: over and not terminated[one] for one in acting}
        self.agents = [one for one in acting if not (terminated[one] or truncated[one])]
        reward = {one: float(record["reward"][0, self._places[one]]) for one in acting}
        seen, info = {one: self._seen(one) for one in acting}, {one: self._info(one) for one in acting}
        return seen, reward, terminated, truncated, info

    def state(self) -> NDArray[np.float32]:
        """(S,) the global state. NotImplementedError where the task has none."""
        if self._vector.state_size is None or self._record is None:
            return super().state()  # which raises
        state: NDArray[np.float32] = self._record["state"][0].copy()
        return state

    def close(self) -> None:
        """Ends the environment."""
        self._vector.close()

    def _seen(self, one: str) -> Any:
        assert self._record is not None
        shown = {key: self._record[key][0, self._places[one]] for key in self._entries}
        value = shown[self._entries[0]] if len(shown) == 1 else shown
        return {"observation": value, "action_mask": self._mask(one)} if self._masked else value

    def _mask(self, one: str) -> NDArray[np.int8]:
        assert self._record is not None
        mask: NDArray[np.int8] = self._record["action_mask"][0, self._places[one]].astype(np.int8)
        return mask

    def _info(self, one: str) -> dict[str, Any]:
        assert self._record is not None
        signals = {name: self._record[name][0] for name in self._vector.signals}
        mine = {name: bool(value[self._places[one]] if np.ndim(value) else value) for name, value in signals.items()}
        return mine | {"action_mask": self._mask(one)}
