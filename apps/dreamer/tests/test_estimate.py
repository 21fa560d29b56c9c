"""Where updates and acts are recorded as graphs, `info` measures the recorded ones."""

from __future__ import annotations

import dataclasses
from contextlib import closing
from typing import Any

import pytest
from dreamer.agent import Dreamer
from dreamer.cli import APP
from wm_core.fast.dispatched import Dispatched
from wm_run import estimate, loading
from wm_run.configs import resolve


@pytest.mark.parametrize("capture", ["graph", "eager"])
def test_what_is_recorded_is_measured_as_recorded(monkeypatch: pytest.MonkeyPatch, capture: Any) -> None:
    """What is measured last, acts and updates as the run makes them, runs no Python of the agent's."""
    config = dataclasses.replace(
        resolve(APP, "tiny"), task="toy:doors", device="cpu", precision="fp32", capture=capture
    )
    called, measured, spend = [0], list[int](), estimate.spend
    for name in ("choose", "update"):
        real = getattr(Dreamer, name)

        def counted(self: Dreamer, *args: Any, real: Any = real, **options: Any) -> Any:
            called[0] += 1
            return real(self, *args, **options)

        monkeypatch.setattr(Dreamer, name, counted)

    def seen(run: Any, **options: Any) -> Any:
        before = called[0]
        spent = spend(run, **options)
        measured.append(called[0] - before)
        return spent

    monkeypatch.setattr(estimate, "spend", seen)
    with closing(loading.environments(APP, config, 1)) as envs:
        numbers = estimate.estimate(APP, config, envs, Dispatched())
    assert (measured[-2:] == [0, 0]) is (capture == "graph") and all(measured) is (capture == "eager")
    assert numbers["seconds_per_update"] > 0
