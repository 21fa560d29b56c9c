"""An estimate is of the updates that a run makes most of, not of its first ones."""

from __future__ import annotations

import dataclasses
import importlib
from contextlib import closing

import pytest
from wm_run.configs import resolve
from wm_run.cost import cost, filled
from wm_run.estimate import estimate
from wm_run.loading import build, environments
from wm_run.trials import tried


@pytest.mark.parametrize("app", ["dmawm", "po_dreamer"])
def test_updates_of_the_model_alone_are_not_what_a_run_costs(app: str) -> None:
    found = importlib.import_module(f"{app}.cli").APP
    config = dataclasses.replace(
        resolve(found, "tiny"), task="toy:whisper", device="cpu", precision="fp32", capture="eager"
    )
    with closing(environments(found, config, 1)) as envs:
        for told in (estimate, cost):
            flops = [
                told(found, dataclasses.replace(config, model_first=first), envs)["flops_per_update"]
                for first in (0, 9)
            ]
            assert flops[0] == flops[1] > 0, told


@pytest.mark.parametrize("app", ["dreamer", "po_dreamer", "r2i", "storm", "dmawm", "mappo"])
def test_what_is_looked_at_now_and_then_is_not_part_of_an_update(app: str) -> None:
    found = importlib.import_module(f"{app}.cli").APP
    config = dataclasses.replace(resolve(found, "tiny"), device="cpu", precision="fp32", capture="eager").settled
    with closing(environments(found, config, 1)) as envs:
        step = {key: value[:1] for key, value in envs.reset(0).items()}
        agent = build(found, config, envs)
        _, _, notes = agent.act(agent.initial(1), step)
        made = tried(agent, filled({**step, **notes}, agent, config.longest), times=0)  # as an agent's first
        assert made.flops == cost(found, config, envs)["flops_per_update"] > 0
