"""Where updates and acts are recorded as graphs, `info` measures the recorded ones."""

from __future__ import annotations

import dataclasses
import gc
from contextlib import closing
from typing import Any

import pytest
from dreamer.agent import Dreamer
from dreamer.cli import APP
from dreamer.config import Config
from wm_core.dispatched import Dispatched
from wm_core.errors import UserError
from wm_run import cost, estimate, loading
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


def updated(config: Config, envs: Any) -> tuple[Any, int]:
    """An agent after a real update, and the FLOPs of that."""
    agent = loading.build(APP, config, envs)
    step = envs.reset(config.seed)
    _, _, notes = agent.act(agent.initial(1), step)
    with cost.Flops() as real:
        agent.learn(cost.filled({**step, **notes}, agent, config.longest))
    return agent, real.total


def test_an_update_is_counted_without_being_made() -> None:
    """Of shapes alone comes what a real update computes and keeps, to the last FLOP."""
    config = dataclasses.replace(
        resolve(APP, "tiny"), task="toy:doors", device="cpu", precision="fp32", capture="eager"
    )
    with closing(loading.environments(APP, config, 1)) as envs:
        found = cost.cost(APP, config, envs)
        agent, real = updated(config, envs)
        timed = estimate.estimate(
            APP, dataclasses.replace(config, capture="graph"), envs, Dispatched()
        )  # makes a whole update
    assert found["flops_per_update"] == real > 1e6 and found["flops_per_action"] > 1e4
    assert all(found[name] == timed[name] for name in ("updates", "disk_bytes"))
    # a product of oneDNN's keeps other tensors than a plain one
    assert found["vram_bytes"] == pytest.approx(timed["vram_bytes"], rel=0.2)
    assert found["parameters"] == agent.parameters_by_module()["total"] and "hours" not in found


def test_an_update_whose_losses_draw_numbers_of_their_own_is_counted() -> None:
    """Value alignment has a generator beside the agent's."""
    config = dataclasses.replace(
        resolve(APP, "tiny"), task="toy:doors", device="cpu", precision="fp32", capture="eager", var=True
    )
    with closing(loading.environments(APP, config, 1)) as envs:
        found = cost.cost(APP, config, envs)
        _, real = updated(config, envs)
    assert found["flops_per_update"] == real > 1e6


def test_of_what_was_counted_nothing_is_left_in_the_process() -> None:
    """What is kept for the process, such as the bins of a two-hot head, would be fake in the run that follows."""
    for module, name in cost.KEPT:
        getattr(module, name).cache_clear()
    config = dataclasses.replace(resolve(APP, "tiny"), task="toy:doors", device="cpu", precision="fp32", var=True)
    with closing(loading.environments(APP, config, 1)) as envs:
        cost.cost(APP, config, envs)
    gc.collect()
    assert not [found for found in gc.get_objects() if type(found).__name__ == "FakeTensor"]


@pytest.mark.parametrize("ask", [lambda reward: float(reward.sum()), lambda reward: reward[reward > 0]])
def test_an_update_that_asks_its_numbers_is_not_counted(monkeypatch: pytest.MonkeyPatch, ask: Any) -> None:
    update = Dreamer.update

    def asks(self: Dreamer, batch: Any) -> Any:
        ask(batch.steps["reward"])
        return update(self, batch)

    monkeypatch.setattr(Dreamer, "update", asks)
    config = dataclasses.replace(resolve(APP, "tiny"), task="toy:doors", device="cpu", precision="fp32")
    with closing(loading.environments(APP, config, 1)) as envs, pytest.raises(UserError, match="leave --count out"):
        cost.cost(APP, config, envs)
