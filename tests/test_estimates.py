"""An estimate is of the updates that a run makes most of, not of its first ones."""

from __future__ import annotations

import dataclasses
import importlib
from contextlib import closing

import pytest
from wm_run.configs import resolve
from wm_run.cost import cost
from wm_run.estimate import estimate
from wm_run.loading import environments


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
