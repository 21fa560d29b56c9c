"""The app as its users call it, one small run, and one agent with the numbers of STORM's public code."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from env_adapters import ActionSpec, make
from storm.agent import Storm, build
from storm.cli import APP
from wm_run.configs import resolve
from wm_run.testing.fixtures import command, finished, short_films

__all__ = ["catch", "run", "short_films", "tiny"]
run = command(APP)
catch = finished(APP, "--train_ratio", 16, "--var", True)  # value alignment in its second half


@pytest.fixture
def tiny() -> Callable[..., Storm]:
    """tiny(act_on="posterior"): a new agent of the preset on its task, with other numbers, in float64 draws and all."""

    def make_one(**numbers: Any) -> Storm:
        torch.manual_seed(0)
        config = dataclasses.replace(resolve(APP, "tiny"), device="cpu", precision="fp32", **numbers)
        return build(config, make("toy:catch").observation_space, ActionSpec((3,), 0))

    return make_one


@pytest.fixture
def steps() -> Callable[..., dict[str, torch.Tensor]]:
    """steps(rows, length): random records of catch, with an episode's end in them, as replay gives them."""

    def make_steps(rows: int, length: int, seed: int = 0, actions: int = 3) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        shape = make("toy:catch").observation_space["image"].shape
        first = torch.zeros(rows, length, dtype=torch.bool)
        first[0, length // 2] = True
        last = torch.zeros_like(first)
        last[0, length // 2 - 1] = True
        action = torch.nn.functional.one_hot(torch.randint(actions, (rows, length), generator=generator), actions)
        reset = first.clone()
        reset[:, 0] = True
        return {
            "image": torch.randint(256, (rows, length, *shape), generator=generator, dtype=torch.uint8),
            "action": action.float() * ~first[..., None],
            "reward": torch.randn(rows, length, generator=generator) * ~first,
            "first": first,
            "last": last,
            "terminal": last,
            "weight": torch.ones(rows, length),
            "reset": reset,
        }

    return make_steps
