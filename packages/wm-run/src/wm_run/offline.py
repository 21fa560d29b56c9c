"""recording -> replay -> updates alone: the training loop of a run without environments.

A run's steps keep their meaning through the ratio: an update counts as the policy steps after which one would be due,
`replayed / train_ratio` of them. So `--steps`, intervals and budgets are those of a run in the environment that makes as
many updates, and everything beside the loop (logs, checkpoints, alarms) is as it is there.

Sizes: n streams, T steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from wm_core.errors import UserError
from wm_core.learner import Learner

from wm_run.alarm import Sentinel
from wm_run.chunks import SPARE
from wm_run.feed import Feed
from wm_run.loop import Log, Position, learned, usage
from wm_run.replay import Replay
from wm_run.stand_in import StandIn


@dataclass
class Made(Position):
    """Where a loop of updates alone stands: `step` are the recording's first records, and nobody acts on them.

    >>> from wm_run.loop import Ratio
    >>> at = Made({}, None, Ratio(train_ratio=64, replayed=1024), np.zeros(1), np.zeros(1, np.int64))
    >>> [at.made_update(repeat=4) for _ in range(2)], at.steps
    ([16, 16], 128)
    """

    made: int = 0  # updates of the whole run

    def made_update(self, repeat: int) -> int:
        """One more; gives how many policy steps have gone by with it: several, one or none."""
        before, (ratio, replayed) = self.steps // repeat, (self.ratio.train_ratio, self.ratio.replayed)
        self.made += 1
        self.updates += 1
        self.ratio.given += 1
        policy = int(self.made * replayed / ratio) - before
        self.steps += policy * repeat
        self.played += policy
        return policy

    def state(self) -> dict[str, Any]:
        return super().state() | {"made": self.made}

    def load_state(self, state: Mapping[str, Any], device: torch.device | str) -> None:
        super().load_state(state, device)
        self.made = state["made"]


def check_fits(envs: StandIn, replay: Replay, record_bytes: int, length: int) -> None:
    """Raises UserError where a row of `length` is longer than the recording, or the replay's budget smaller. record_bytes: of
    a record with its notes, of one stream."""
    part, place = envs.recording.part("train"), envs.recording.folder
    if part.position < length:
        raise UserError(
            f"{place} holds {part.position:,} records in each of its streams, and a row has {length:,}: lower --length"
        )
    block = record_bytes * envs.num_envs * replay.chunk
    needed, room = -(-part.position // replay.chunk) * block, replay.limit_bytes - replay.limit_bytes // SPARE
    if needed > room:
        raise UserError(
            f"{place} takes {needed / 1e9:.2f} GB as a replay, and the replay's budget has {room / 1e9:.2f} GB for it: "
            f"give --replay-bytes {needed + needed // (SPARE - 1) + SPARE}, or more"
        )


def fill(replay: Replay, envs: StandIn, notes: Mapping[str, Tensor]) -> None:
    """Put the recording's train part into an empty replay, with what the agent notes of a step at zero: what it knows before
    it has seen anything. Updates write over it, as over the notes of a policy that has changed since.

    notes: of acting once, (n, ...).
    """
    zeros = {name: np.zeros(note.shape[1:], note.cpu().numpy().dtype) for name, note in notes.items()}
    for block in envs.blocks():
        lead = block["first"].shape
        replay.extend(block | {name: np.broadcast_to(zero, (*lead, *zero.shape)) for name, zero in zeros.items()})


def learn(
    agent: Learner,
    replay: Replay,
    at: Made,
    log: Log,
    *,
    repeat: int,
    log_every: int,
    go_on: Callable[[Position], bool],
    feed: Feed | None = None,
) -> None:
    """Update after update, until `go_on(at)` says no; it is asked before every one, and may save or show.

    Everything is triggered by steps, as in `loop.train`, so that a run stopped and resumed goes the way of an unbroken one.
    Raises NotFinite after an update with a loss or gradient that is not, before `go_on` is asked again.
    """
    timer, earlier = time.monotonic(), at.updates  # of this interval, but before this process
    feed = feed or Feed(replay)
    sentinel = Sentinel()
    while go_on(at):
        metrics = agent.learn(feed)
        sentinel.look(metrics, feed.advance())
        at.meter.add(metrics)
        agent.clock.count_steps(at.made_update(repeat))
        if at.steps // log_every > at.logged:
            now = time.monotonic()
            speed = (at.updates - earlier) * at.ratio.replayed / max(now - timer, 1e-9)
            log.metrics(at.steps, learned(at, agent, replay, at.meter.take()) | {"fps/train": speed} | usage(agent))
            at.logged, at.updates, at.played, timer, earlier = at.steps // log_every, 0, 0, now, 0
        sentinel.check()
