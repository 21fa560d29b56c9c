"""An agent's first acts, for tests that learn from what it saw: records and notes go into a replay, as the loop has it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from wm_core.learner import Learner
from wm_core.types import Carry

from wm_run.loop import Environments
from wm_run.replay import Replay


def acting(agent: Learner, envs: Environments, replay: Replay, seed: int = 0) -> Iterator[Carry]:
    """Without end: the carry before each act, once the record that it acted on, and its notes, are in the replay."""
    step, carry = envs.reset(seed), agent.initial(envs.num_envs)
    while True:
        before = carry
        carry, action, notes = agent.act(before, step)
        replay.add({**step, **notes})
        yield before
        step = envs.step(action)


def acted(agent: Learner, envs: Environments, steps: int, *, length: int, **options: Any) -> Replay:
    """What an agent sees and notes of so many steps of each environment, in memory. options: of `Replay`."""
    replay = Replay(None, envs.num_envs, stores=agent.stores, length=length, **({"limit_bytes": 2**30} | options))
    for _ in islice(acting(agent, envs, replay), steps):
        pass
    return replay
