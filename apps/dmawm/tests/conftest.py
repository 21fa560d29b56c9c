"""A small DMAWM of three agents, and batches of teams for it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from dmawm.agent import Dmawm, build
from dmawm.cli import APP
from env_adapters import ActionSpec
from wm_core.types import Batch, Index
from wm_run.configs import overlay, resolve
from wm_run.loading import runtime
from wm_run.teams import Team
from wm_run.testing.fixtures import asked_for_apart

__all__ = ["asked_for_apart"]

AGENTS, WIDTH, ACTIONS, NOOP = 3, 6, 5, 0


def small(agents: int = AGENTS, **numbers: Any) -> Dmawm:
    """The preset tiny with some numbers changed, for observations of 6 numbers and 5 actions."""
    config = runtime(overlay(resolve(APP, "tiny"), {"device": "cpu", **numbers}, "a test"))
    space = gymnasium.spaces.Dict({"vector": gymnasium.spaces.Box(-np.inf, np.inf, (WIDTH,), np.float32)})
    return build(config, space, ActionSpec((ACTIONS,)), Team(agents, NOOP, None))  # type: ignore[arg-type]


def teams(batch: int = 2, length: int = 8, agents: int = AGENTS, seed: int = 0) -> Batch:
    """Rows of teams whose episodes end here and there, some agents dead."""
    source = torch.Generator().manual_seed(seed)
    lead = (batch, length, agents)
    first = torch.rand(batch, length, generator=source) < 0.2
    last = torch.nn.functional.pad(first[:, 1:], (0, 1))
    alive = torch.rand(lead, generator=source) < 0.8
    mask = torch.rand(*lead, ACTIONS, generator=source) < 0.5
    mask[..., NOOP] = True
    action = torch.nn.functional.one_hot(torch.randint(ACTIONS, lead, generator=source), ACTIONS).float()
    steps = {
        "vector": torch.randn(*lead, WIDTH, generator=source),
        "action": action,
        "reward": torch.randn(lead, generator=source),
        "first": first,
        "last": last,
        "terminal": last & (torch.rand(batch, length, generator=source) < 0.5),
        "action_mask": mask,
        "alive": alive,
        "weight": torch.ones(batch, length),
        "reset": first.clone(),
    }
    return Batch(steps, None, Index(torch.zeros(batch, dtype=torch.long), torch.zeros(batch, dtype=torch.long)))


@pytest.fixture(scope="session")
def given() -> SimpleNamespace:
    """`small(agents, **numbers)` and `teams(batch, length, agents, seed)`."""
    return SimpleNamespace(small=small, teams=teams)


@pytest.fixture
def agent() -> Dmawm:
    return small()
