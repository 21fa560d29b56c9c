"""The app as its users call it; a small learner, and rows that it played itself in a world where agents leave and masks change."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import closing
from itertools import islice
from typing import Any, NamedTuple

import pytest
from env_adapters import make_vec
from mappo.agent import Mappo, build
from mappo.cli import APP
from mappo.config import Config
from wm_core.types import Batch
from wm_run.configs import resolve
from wm_run.run_replay import run_replay
from wm_run.teams import team_of
from wm_run.testing.acting import acting
from wm_run.testing.fixtures import command, one_thread

__all__ = ["one_thread", "play", "run", "tiny"]
run = command(APP)


class Played(NamedTuple):
    """A learner that has not moved since it acted, its rows one after the other, and the carry before each record of them."""

    agent: Mappo
    rows: list[Batch]
    carries: list[Any]


@pytest.fixture
def tiny() -> Callable[..., Config]:
    """tiny(actor="gru"): the preset's numbers on toy:leavers, some of them others."""

    def numbers(**others: Any) -> Config:
        given: dict[str, Any] = {"task": "toy:leavers", "device": "cpu", "precision": "fp32", "backward": 4}
        return dataclasses.replace(resolve(APP, "tiny"), **(given | others))  # type: ignore[return-value]

    return numbers


@pytest.fixture
def play(tiny: Callable[..., Config]) -> Callable[..., Played]:
    """play(rows=2, actor="gru"): as many rows as the loop would hand over, without an update in between."""

    def played(rows: int = 1, options: dict[str, Any] | None = None, **others: Any) -> Played:
        config = tiny(**others)
        with closing(make_vec(config.task, config.envs, workers=0, **(options or {}))) as envs:
            team = team_of(envs)
            assert team is not None
            agent = build(config, envs.observation_space, envs.action_spec, team)
            replay = run_replay(agent, config, config.envs, chunk=256)
            carries, given, past = [], [], max(agent.stores.values(), default=0)
            for t, carry in enumerate(islice(acting(agent, envs, replay, 3), rows * config.transitions + 1)):
                carries.append(carry)
                if t and t % config.transitions == 0:
                    given.append(replay.sample(config.batch, config.length, past=past))
        return Played(agent, given, carries)

    return played
