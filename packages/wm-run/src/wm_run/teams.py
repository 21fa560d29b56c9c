"""Environments with several agents side by side -> what an app has to know of a team."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Team:
    """Of every environment of a task, whose spaces describe one agent.

    agents: N of the records' axis. noop: the action of an agent that is out, None where there is none. state: the width
    of the global state in the records, for critics alone; None where there is none.
    """

    agents: int
    noop: int | None = None
    state: int | None = None


def team_of(envs: Any) -> Team | None:
    """None where records have no axis of agents.

    >>> from types import SimpleNamespace
    >>> team_of(SimpleNamespace(agents=3, noop=4, state_size=72)), team_of(SimpleNamespace())
    (Team(agents=3, noop=4, state=72), None)
    """
    agents = getattr(envs, "agents", None)  # no promise of Environments: most have no such axis
    return None if agents is None else Team(agents, getattr(envs, "noop", None), getattr(envs, "state_size", None))
