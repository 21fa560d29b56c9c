"""One environment -> what a batch of such tells of them: spaces, facts, and what counts to a score."""

# n environments, N agents, A width of the action vector, S of the global state

from __future__ import annotations

import abc
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from env_adapters.actions import ActionCodec
from env_adapters.facts import fact
from env_adapters.pictures import View
from env_adapters.step import Environment, Step, sources
from env_adapters.team import Team, team_of
from env_adapters.wrappers import Adapted


class Described(abc.ABC):
    """What may be asked of a batch of environments that are all as `one`.

    num_envs: n. observation_space: Dict of ONE environment. sources: of each entry the keys on the way to it in the
    environment's own observation, and its space there. views: how entries are looked at that are not as declared (see
    `pictures`). grids: of observations whose space does not tell it, those taken for grids of symbols. drop: names of
    observations that are left out; unseen: the keys on the way to each. action_space: native, of ONE. action_spec: what
    (A,) holds. protocol: what a score means, JSON-able. repeat: environment steps per agent step. signals: names, mostly
    none. outcomes: those of them whose value in an episode's last record is its result.

    agents: N where the environment is of several agents (see `team.TeamEnv`), else None. The spaces and `action_spec` are
    then ONE agent's. noop: what an agent does that is not alive, None where there is no such action. state_size: S, None
    where there is no global state.
    """

    def __init__(self, one: Environment, n: int) -> None:
        """TaskError where what it says of its agents cannot be."""
        assert isinstance(one.observation_space, spaces.Dict)
        self.num_envs = n
        self.observation_space: spaces.Dict = one.observation_space
        self.sources: dict[str, tuple[tuple[str, ...], spaces.Space[Any]]] = getattr(
            one, "sources", sources(one.observation_space)
        )
        self.views: dict[str, View] = one.views if isinstance(one, Adapted) else {}
        self.grids: tuple[str, ...] = one.grids if isinstance(one, Adapted) else ()
        self.drop: tuple[str, ...] = one.drop if isinstance(one, Adapted) else ()
        self.unseen: frozenset[tuple[str, ...]] = one.unseen if isinstance(one, Adapted) else frozenset()
        self.action_space = one.action_space
        self.action_spec = ActionCodec(one.action_space).spec
        self.protocol: dict[str, Any] = dict(fact(one, "protocol", {}))
        self.repeat = int(fact(one, "repeat", 1))
        self._team: Team = team_of(one)
        self.signals, self.outcomes = self._team.signals, self._team.outcomes
        self._tells = fact(one, "told", None) is not None
        self.agents, self.noop, self.state_size = self._team.agents, self._team.noop, self._team.state_size

    @abc.abstractmethod
    def get(self, name: str) -> list[Any]:
        """An attribute of every environment, None where there is none."""

    def told(self) -> Step:
        """What the environments tell of the states of the last records beyond what these show: `told/<name>` float32
        (n, ...), for probes and no encoder. Empty where they tell nothing; zeros of an environment that has been lost.

        >>> from env_adapters import make_vec
        >>> with make_vec("toy:cue_maze", 2) as envs:
        ...     _ = envs.reset(seed=0)
        ...     {name: value.shape for name, value in envs.told().items()}
        {'told/fact': (2, 4)}
        """
        if not self._tells:
            return {}
        each: list[dict[str, NDArray[Any]] | None] = self.get("told")
        known = next((one for one in each if one is not None), {})
        return {
            f"told/{name}": np.stack([np.zeros_like(value) if one is None else one[name] for one in each]).astype(
                np.float32
            )
            for name, value in known.items()
        }

    def score(self, step: Step) -> NDArray[Any]:
        """(n,) what of these records counts to their episodes' scores: the reward, of several agents its mean."""
        reward = step["reward"]
        return reward if self.agents is None else reward.mean(1, dtype=np.float64)
