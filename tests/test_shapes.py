"""Every app's networks can be made of shapes alone, so that too little memory for them is told before they are there."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import typing
from typing import Any

import pytest
import torch
from wm_core.errors import UserError
from wm_core.learner import Learner
from wm_run import allotted, loading
from wm_run.config import RunConfig, check
from wm_run.configs import resolve
from wm_run.memory import Free
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
def test_no_number_makes_parts_without_end(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A million is a size of which shapes are made at once, or its field does not admit it: no building goes on for hours."""
    app = importlib.import_module(f"{name}.cli").APP
    config: Any = dataclasses.replace(resolve(app, "tiny"), task=TASKS[name], device="cpu", workers=0)
    made, begin = [0], torch.nn.Module.__init__

    def counted(module: Any, *args: Any, **rest: Any) -> None:
        made[0] += 1
        assert made[0] < 5_000, "parts without end"
        begin(module, *args, **rest)

    monkeypatch.setattr(torch.nn.Module, "__init__", counted)
    monkeypatch.setattr(allotted, "free_memory", lambda: Free(10**7))
    kinds = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        large = dataclasses.replace(config, **{field.name: 10**6})
        if kinds[field.name] is int and field.name not in RunConfig.__dataclass_fields__:
            with contextlib.suppress(UserError):
                check(large)
                config = large
    with contextlib.closing(loading.environments(app, config, 1)) as envs, contextlib.suppress(UserError):
        loading.build(app, config, envs)
    assert made[0] > 10


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
