"""Two processes, each with its half of the rows, learn what one process learns from all: also where a batch's own mean, a
batch norm's or a loss's, decides what is learned. The agents without such means: apps/dreamer/tests/test_ranks.py."""

from __future__ import annotations

import dataclasses
import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from env_adapters import ActionSpec
from gymnasium import spaces
from torch import distributed
from wm_core import draws
from wm_core.ranks import Group, learning_with
from wm_core.types import Batch, Index
from wm_run.configs import resolve
from wm_run.teams import Team

ROWS, UPDATES = 4, 3
APPS = {  # free nats between those of the halves
    "storm": ({"dropout": 0.0, "lr": 1e-2, "behaviour_lr": 1e-2, "clip": 1e6, "free_nats": 0.62}, ("image",)),
    "po_dreamer": ({"memory_norm": "batch", "memory_dropout": 0.0, "lr": 1e-2, "warmup": 0}, ("vector",)),
    "mappo": ({"minibatches": 1, "lr": 1e-2, "critic_lr": 1e-2, "dead_values": False}, ("vector",)),
}
TEAM = Team(2)  # of mappo, whose advantages' spread, norm of values and number of the living are the whole batch's
SPACES = {"image": spaces.Box(0, 255, (16, 16, 3), np.uint8), "vector": spaces.Box(-9, 9, (4,))}


def agent(app: str) -> Any:
    """In float64 and with fixed draws; every learning rate and scale large enough to move."""
    fields, seen = APPS[app]
    config = resolve(importlib.import_module(f"{app}.cli").APP, "tiny")
    config = dataclasses.replace(config, device="cpu", precision="fp32", seed=3, **fields)  # type: ignore[arg-type]
    made = importlib.import_module(f"{app}.agent").build(
        config,
        spaces.Dict({key: SPACES[key] for key in seen}),
        ActionSpec((3,), 0),
        *([TEAM] if app == "mappo" else []),
    )
    made.source = draws.Fixed()
    if app != "mappo":
        made.behaviour.scale.rate, made.behaviour.scale.least = 1.0, 1e-3  # so that this batch's percentiles count
    for rule in getattr(made.optimiser, "rules", {"": made.optimiser}).values():
        rule.eps = 1e-3  # a bias before a batch norm has no gradient but rounding, of which no step is to be made
    return made


def batch(rows: int, steps: int, part: slice, seed: int = 0) -> Batch:
    """The rows of this part, from the first step of an episode on; unlike each other, and some count for nothing."""
    source = torch.Generator().manual_seed(seed)
    first = torch.zeros(rows, steps, dtype=torch.bool)
    first[:, 0], first[1, 3] = True, True
    weight = torch.ones(rows, steps)
    weight[0, 2:4], weight[3, 1] = 0, 0
    scale = torch.linspace(0.2, 1, rows)[:, None, None, None, None]
    image = 255 * scale * torch.rand(rows, steps, 16, 16, 3, generator=source)
    entries: dict[str, torch.Tensor] = {
        "image": image.to(torch.uint8),
        "vector": torch.randn(rows, steps, 4, generator=source),
        "action": torch.eye(3)[torch.randint(0, 3, (rows, steps), generator=source)] * ~first[..., None],
        "reward": 10 * torch.randn(rows, steps, generator=source),
        "first": first,
        "last": first.roll(-1, 1) & (torch.arange(steps) < steps - 1),
        "terminal": torch.zeros(rows, steps, dtype=torch.bool),
        "weight": weight,
        "reset": first,
    }
    taken = {name: (value.double() if value.is_floating_point() else value)[part] for name, value in entries.items()}
    nothing = torch.zeros(len(taken["first"]), dtype=torch.int64)
    return Batch(taken, None, Index(nothing, nothing))


def of_team(rows: int, steps: int, part: slice) -> Batch:
    """The same of two agents, some of them dead."""
    agents = [batch(rows, steps, part, seed) for seed in range(2)]
    flags = {name: agents[0].steps[name] for name in ("first", "last", "terminal", "weight")}
    seen = {name: torch.stack([one.steps[name] for one in agents], 2) for name in ("vector", "action", "reward")}
    alive = seen["vector"][..., 0] < 1
    allowed = torch.ones_like(seen["action"], dtype=torch.bool)
    beside = {"alive": alive, "action_mask": allowed, "/log_prob": torch.full(alive.shape, -1.1)}
    return Batch(flags | seen | beside, None, agents[0].index)


def learn(app: str, index: int = 0, count: int = 1) -> tuple[list[float], dict[str, torch.Tensor]]:
    """The sum of an update's losses, for each, and weights and running statistics after all of them."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    try:
        one = agent(app)
        batches = [(of_team if app == "mappo" else batch)(ROWS, 6, part(ROWS, index, count))]
        if app == "storm":
            batches.append(batch(2 * ROWS, one.context + 1, part(2 * ROWS, index, count), seed=1))
            one.batch = ROWS // count
        found = [one.update(*batches)[0] for _ in range(UPDATES)]
        losses = [sum(v.item() for k, v in metrics.items() if k.startswith("loss/")) for metrics in found]
    finally:
        torch.set_default_dtype(torch.float32)
    return losses, {name: value.clone() for name, value in one.state_dict().items()}


def part(rows: int, index: int, count: int) -> slice:
    return slice(index * rows // count, (index + 1) * rows // count)


def rank(index: int, folder: str) -> None:
    """One of two processes."""
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=index, world_size=2)
    with learning_with(Group()):
        found = {app: learn(app, index, 2) for app in APPS}
    torch.save(found, Path(folder) / f"{index}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes has learned, by app."""
    folder = tmp_path_factory.mktemp("ranks")
    both = [subprocess.Popen([sys.executable, __file__, str(index), str(folder)]) for index in range(2)]
    assert [one.wait(timeout=240) for one in both] == [0, 0]
    return [torch.load(folder / f"{index}.pt", weights_only=True) for index in range(2)]


@pytest.mark.parametrize("app", APPS)
def test_two_ranks_learn_what_one_learns_from_all_rows(app: str, ranks: list[dict[str, Any]]) -> None:
    (one, mine), (two, theirs) = (found[app] for found in ranks)
    losses, weights = learn(app)
    assert [(first + second) / 2 for first, second in zip(one, two, strict=True)] == pytest.approx(losses, abs=1e-6)
    for name, whole in weights.items():
        torch.testing.assert_close(mine[name], whole, rtol=0, atol=1e-6, msg=name)
        torch.testing.assert_close(theirs[name], mine[name], rtol=0, atol=1e-12, msg=name)
    start = agent(app).state_dict()
    assert any((weights[name] - start[name]).abs().max() > 1e-3 for name in weights)  # they moved
    assert app == "mappo" or any("running_var" in name for name in weights)


if __name__ == "__main__":
    rank(int(sys.argv[1]), sys.argv[2])
