"""Environments with several agents side by side -> what an app has to know of a team."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from wm_core.errors import UserError


@dataclass(frozen=True)
class Team:
    """Of every environment of a task, whose spaces describe one agent.

    agents: N of the records' axis. noop: the action of an agent that is out, None where there is none. state: the width
    of the global state in the records, for critics alone; None where there is none.
    """

    agents: int
    noop: int | None = None
    state: int | None = None

    def entries(self, actions: int, mask: Any = None) -> dict[str, NDArray[Any]]:
        """What a record (1, N, ...) has beside observation and action where somebody acts outside of a run: mask, all True
        where none is given; everybody alive; a state of zeros, for no policy looks at it. Raises UserError for a mask of
        another shape, or one that allows an agent nothing.

        >>> Team(2, state=3).entries(4)["action_mask"].shape
        (1, 2, 4)
        """
        shape = (self.agents, actions)
        allowed = np.ones(shape, np.bool_) if mask is None else np.asarray(mask, np.bool_)
        if allowed.shape != shape or not allowed.any(-1).all():
            raise UserError(f"the mask of a team is {shape} booleans, at least one of each agent's True")
        found = {"action_mask": allowed[None], "alive": np.ones((1, self.agents), np.bool_)}
        return found if self.state is None else found | {"state": np.zeros((1, self.state), np.float32)}

    def observed(self, observation: Any, one: Callable[[Any], Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
        """An observation whose entries have the agents in front -> its entries (N, ...), each agent's read by `one`. Raises
        UserError where an entry has not as many agents."""
        if isinstance(observation, Mapping):
            counts = {len(value) for value in observation.values()}
            each = [{key: value[i] for key, value in observation.items()} for i in range(min(counts, default=0))]
        else:
            counts, each = {len(observation)}, list(observation)
        if counts != {self.agents}:
            raise UserError(f"an observation of this team has {self.agents} agents in front, not {sorted(counts)}")
        seen = [one(its) for its in each]
        return {key: np.stack([its[key] for its in seen]) for key in seen[0]}


def team_of(envs: Any) -> Team | None:
    """None where records have no axis of agents.

    >>> from types import SimpleNamespace
    >>> team_of(SimpleNamespace(agents=3, noop=4, state_size=72)), team_of(SimpleNamespace())
    (Team(agents=3, noop=4, state=72), None)
    """
    agents = getattr(envs, "agents", None)  # no promise of Environments: most have no such axis
    return None if agents is None else Team(agents, getattr(envs, "noop", None), getattr(envs, "state_size", None))
