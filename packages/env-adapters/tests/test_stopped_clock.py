"""A stopped clock is no hung worker."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from env_adapters import make_vec, workers
from env_adapters.patience import Patience


class Time:
    """A clock by which waiting takes as long as it may, or as long as it is said to."""

    def __init__(self, *jumps: float) -> None:
        self.now, self.jumps, self.waited = 0.0, list(jumps), 0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> list[str]:
        self.waited += 1
        self.now += self.jumps.pop(0) if self.jumps else seconds
        return []


@pytest.mark.parametrize("jumps, end", [((), 60), ((70.0,), 129), ((1e6, 0.5, 1e6), 2e6 + 57.5 + 0.5)])
def test_time_in_which_nobody_runs_does_not_count(jumps: tuple[float, ...], end: float) -> None:
    """Of each jump no more than a second of the 60 is used up."""
    clock = Time(*jumps)
    assert Patience(60, clock).until(clock.wait) == [] and clock.now == pytest.approx(end)


def test_an_answer_ends_the_wait_and_none_is_asked_for_at_least_once() -> None:
    clock = Time()
    answers: list[list[str]] = [[], [], ["here"]]
    patience = Patience(60, clock)
    assert patience.until(lambda seconds: clock.wait(seconds) + answers.pop(0)) == ["here"] and patience.left == 57
    assert Patience(0, clock).until(lambda seconds: ["at once"]) == ["at once"]


def test_workers_that_were_stopped_with_us_are_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first wait for their answer takes longer than their timeout, as after SIGSTOP of the whole group."""
    envs = make_vec("gym:CartPole-v1", 2, workers=2, timeout=60)
    envs.reset(seed=0)
    pids, wait, now, ahead = envs.pids(), workers.wait, time.monotonic, [0.0]

    def stopped(ends: Any, seconds: float) -> Any:
        if not ahead[0]:
            ahead[0] = 70.0
            return []
        return wait(ends, seconds)

    monkeypatch.setattr(workers, "wait", stopped)
    monkeypatch.setattr("time.monotonic", lambda: now() + ahead[0])
    step = envs.step(np.eye(2, dtype=np.float32))
    monkeypatch.undo()
    assert ahead == [70.0] and envs.take_faults() == [] and envs.pids() == pids and not step["last"].any()
    envs.close()
