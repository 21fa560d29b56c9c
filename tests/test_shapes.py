"""Every app's networks can be made of shapes alone, so that too little memory for them is told before they are there."""

from __future__ import annotations

import dataclasses
import importlib
from typing import Any

import pytest
import torch
from wm_core.learner import Learner
from wm_run import allotted, loading
from wm_run.configs import resolve
from wm_run.preflight import nested_bytes

TASKS = {
    "dreamer": "toy:catch",
    "po_dreamer": "toy:doors_team",
    "r2i": "toy:catch",
    "storm": "toy:catch",
    "dmawm": "toy:whisper",
    "mappo": "toy:whisper",
}


@pytest.mark.parametrize("name", TASKS)
def test_shapes_tell_what_networks_take(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = importlib.import_module(f"{name}.cli").APP
    config: Any = dataclasses.replace(resolve(app, "tiny"), task=TASKS[name], device="cpu", workers=0)
    asked: list[allotted.Whole | None] = []

    def built(make: Any, device: str) -> Learner:
        asked.append(allotted.whole(make))
        made: Learner = make(device)
        return made

    monkeypatch.setattr(loading, "built", built)
    envs = loading.environments(app, config, 1)
    learner = loading.build(app, config, envs)
    envs.close()
    weights = nested_bytes(learner.state_dict())
    assert asked == [(weights, 2 * weights + nested_bytes(learner.state()))]
    assert {one.device for one in learner.parameters()} == {torch.device("cpu")}
