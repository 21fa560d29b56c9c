"""Every row of the paper's ablation tables: another part in one place, and all else as it was."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from env_adapters import make_vec
from po_dreamer.agent import PODreamer, build
from po_dreamer.cli import APP
from po_dreamer.parts import NoObservation
from torch import nn
from wm_core.encoders import MultiEncoder
from wm_core.images import StridedDecoder, StridedEncoder
from wm_core.optim import Together
from wm_core.rssm import RSSM
from wm_memory import (
    BottleneckEncoder,
    FusedRSSM,
    Gaussian,
    MemoryEncoder,
    NoActions,
    NoPositions,
    NormGRU,
    OneHotActionEncoder,
    PairAttention,
    RankPositions,
    Recall,
    RecalledRSSM,
    Repeat,
    across_episodes,
    this_episode,
)
from wm_run.configs import resolve
from wm_run.replay import Replay
from wm_run.testing.acting import acted


def make_agent(ablation: str = "", task: str = "toy:doors", **fields: Any) -> PODreamer:
    config = dataclasses.replace(resolve(APP, "tiny", "", ablation), device="cpu", task=task, **fields)
    envs = make_vec(task, 1, workers=0)
    return build(config, envs.observation_space, envs.action_spec)


def live(agent: PODreamer, task: str = "toy:doors") -> Replay:
    """What the agent sees and notes of 40 steps in two environments."""
    return acted(agent, make_vec(task, 2, workers=0), 40, length=agent.length, chunk=64)


def learn(agent: PODreamer, task: str = "toy:doors") -> dict[str, torch.Tensor]:
    """One update on what the agent itself has seen; gives its metrics."""
    return agent.learn(live(agent, task))


def count(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def types(agent: PODreamer) -> dict[str, type]:
    """The parts that ablations replace; absent ones are left out."""
    world, found = agent.world, {"dynamics": type(agent.world.dynamics), "encoder": type(agent.world.encoder)}
    if isinstance(world.encoder, MemoryEncoder):
        found["obs"] = type(world.encoder.obs)
    if isinstance(world.dynamics, (FusedRSSM, RecalledRSSM)):
        memory = world.dynamics.memory
        found |= {"recall": type(memory.recall), "bottleneck": type(memory.bottleneck)}
        found |= {"positions": type(memory.recall.positions), "actions": type(memory.recall.actions)}
    if isinstance(world.dynamics, FusedRSSM):
        found["attention"] = type(world.dynamics.attention)
    return found | {name: type(head) for name, head in world.heads.items() if name == "memory"}


@pytest.fixture(scope="module")
def full() -> PODreamer:
    return make_agent()


def test_the_full_model_is_the_papers(full: PODreamer) -> None:
    found = types(full)
    assert found.pop("memory").__name__ == "MemoryDecoder"
    assert found == {
        "dynamics": FusedRSSM,
        "encoder": MemoryEncoder,
        "obs": MultiEncoder,
        "recall": Recall,
        "bottleneck": Gaussian,
        "positions": RankPositions,
        "actions": OneHotActionEncoder,
        "attention": PairAttention,
    }
    assert full.world.dynamics.memory.sight is across_episodes
    assert full.world.dynamics.stores == {"deter": 1, "stoch": 1, "key": 30}


Removed = Callable[[PODreamer, PODreamer], int]  # full and ablated model -> parameters that the full one has more
ONE_BRANCH = ("recall", "bottleneck", "positions", "actions", "attention", "memory", "obs")

# Each: the parts that are of another type, those that are gone, and by how many parameters the model shrinks
# (None: one branch, where every consumer of the latent is narrower).
ABLATIONS: dict[str, tuple[dict[str, type], tuple[str, ...], Removed | None]] = {
    "no-vae": (
        {"bottleneck": nn.Identity},
        (),
        lambda a, b: count(a.world.dynamics.memory.bottleneck) - (16 - 4) * 8,  # f is 16 wide, f^v 4, hidden 8
    ),
    "no-cross-attention": ({"attention": nn.Identity}, (), lambda a, b: count(a.world.dynamics.attention)),
    "no-position": ({"positions": NoPositions}, (), lambda a, b: 0),
    "no-action": ({"actions": NoActions}, (), lambda a, b: count(a.world.dynamics.memory.recall.actions)),
    "no-memory-decoder": ({}, ("memory",), lambda a, b: count(a.world.heads["memory"])),
    "co-vae": ({"dynamics": RSSM, "encoder": BottleneckEncoder}, ONE_BRANCH, None),
    "co-only": ({"dynamics": RSSM, "encoder": MultiEncoder}, ONE_BRANCH, None),
    "mg-only": ({"dynamics": RecalledRSSM, "obs": NoObservation}, ("attention",), None),
    "co-co": ({"recall": Repeat}, (), lambda a, b: 0),
    "this-episode": ({}, (), lambda a, b: 0),
}


def test_the_ten_rows_are_there() -> None:
    assert APP.files("ablations").keys() == ABLATIONS.keys()


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_replaces_its_part_alone(name: str, full: PODreamer) -> None:
    agent = make_agent(name)
    changed, gone, removed = ABLATIONS[name]
    assert types(agent) == {part: kind for part, kind in types(full).items() if part not in gone} | changed
    if removed is not None:
        assert count(full.world) - count(agent.world) == removed(full, agent)
        assert agent.world.dynamics.widths == full.world.dynamics.widths
        assert count(full.behaviour) == count(agent.behaviour)
    else:
        assert {name: 2 * width for name, width in agent.world.dynamics.widths.items()} == full.world.dynamics.widths
        assert count(agent.behaviour) < count(full.behaviour)
    sight = this_episode if name == "this-episode" else across_episodes
    assert name.startswith("co-") and name != "co-co" or agent.world.dynamics.memory.sight is sight


@pytest.mark.parametrize("name", ["", *ABLATIONS])
def test_every_row_learns(name: str) -> None:
    """One update: every loss is finite, and every part that is trained moves (without a warm-up, which begins at 0)."""
    agent = make_agent(name, warmup=0)
    before = {key: value.clone() for key, value in agent.state_dict().items()}
    metrics = learn(agent)
    assert all(bool(torch.isfinite(value)) for value in metrics.values())
    assert ("loss/memory" in metrics) == ("memory" in agent.world.heads)
    assert ("recall/entropy" in metrics) == ("key" in agent.world.dynamics.stores)
    moved = {key.split(".")[1] for key, value in agent.state_dict().items() if not torch.equal(value, before[key])}
    assert {"encoder", "dynamics", "decoder", "heads", "actor", "critic", "slow"} <= moved
    if "key" in agent.world.dynamics.stores:
        inner = [key for key, value in agent.state_dict().items() if not torch.equal(value, before[key])]
        for part in ("encoder.frames", "dynamics.memory.recall.blocks"):
            assert any(f"world.{part}" in key for key in inner), part


@pytest.mark.parametrize("task", ["toy:catch", "toy:doors"])
def test_the_nets_of_2023_learn_too(task: str) -> None:
    """The size `paper`, shrunk: strided convolutions, dense GRUs, Adam in three groups."""
    agent = make_agent(
        task=task,
        nets="2023",
        optimiser="adam",
        head_layers=2,
        behaviour_layers=2,
        prior_layers=1,
        replay_value_scale=0.0,
    )
    assert isinstance(agent.world.dynamics.co.cell, NormGRU) and isinstance(agent.optimiser, Together)
    metrics = learn(agent, task)
    assert all(bool(torch.isfinite(value)) for value in metrics.values())
    assert "loss/replay_value" not in metrics
    assert {f"opt/grad_norm/{name}" for name in ("world", "actor", "critic")} <= metrics.keys()
    if task == "toy:catch":
        assert isinstance(agent.world.encoder.obs.conv, StridedEncoder)
        assert isinstance(agent.world.decoder.conv, StridedDecoder)


@pytest.mark.parametrize(
    "fields, kind",
    [
        ({"positions": "age"}, "AgePositions"),
        ({"attention": "cross"}, "CrossAttention"),
        ({"memory_decoder": "squared"}, "Squared"),
        ({"memory_norm": "rms"}, "RMSNorm"),
        ({"memory_content": "none"}, "Memory"),
        ({"memory_keys": "fresh"}, "Memory"),
    ],
)
def test_other_readings_of_the_paper_learn(fields: dict[str, Any], kind: str) -> None:
    agent = make_agent(**fields)
    names = {type(module).__name__ for module in agent.modules()}
    assert kind in names or agent.world.heads["memory"].distribution.__name__ == kind
    assert np.isfinite(float(learn(agent)["loss/memory"]))


def test_fresh_keys_are_the_stored_ones_until_the_weights_change() -> None:
    agent = make_agent(memory_keys="fresh")
    assert agent.stores == {"/deter": 1, "/stoch": 1, "/key": 30, "vector": 30}
    past = live(agent).sample(4, 8, past=30).past
    assert past is not None and 0 < int(past.valid.sum()) < past.valid.numel()
    kept, valid = past.stored["/key"].float(), past.valid[..., None]
    fresh = agent.refresh(past)
    assert fresh.stored.keys() == agent.world.stores.keys()
    torch.testing.assert_close(fresh.stored["/key"] * valid, kept * valid, atol=4e-3, rtol=4e-3)  # kept as float16
    with torch.no_grad():
        agent.world.encoder.frames.out.weight.mul_(2)
    assert ((agent.refresh(past).stored["/key"] - kept) * valid).abs().max() > 0.1


NETS = {"size": "paper", "deter": 32, "hidden": 8, "depth": 2, "units": 16, "stoch": 4, "classes": 4}


def paper(ablation: str = "", **fields: Any) -> PODreamer:
    """The paper's nets, small."""
    config = resolve(APP, "tiny", "paper", ablation)
    small = {name: NETS[name] for name in NETS if name != "size"} | fields
    envs = make_vec("toy:doors", 1, workers=0)
    return build(dataclasses.replace(config, device="cpu", **small), envs.observation_space, envs.action_spec)


def test_the_papers_nets_begin_as_its_code_base_does() -> None:
    """Rows from the initial state, uniform replay, a policy at full scale; the nets of 2025 otherwise."""
    old, new = paper(), make_agent()
    assert old.stores == {"/key": 30} and new.stores == {"/deter": 1, "/stoch": 1, "/key": 30}
    assert not old.online and new.online
    spread = [float(agent.behaviour.actor.out.weight.detach().std()) for agent in (old, new)]
    assert 50 < spread[0] / spread[1] < 200
    assert all(bool(value.isfinite()) for value in learn(old).values())
    assert paper(row_start="stored").stores.keys() == {"/deter", "/stoch", "/key"}


@pytest.mark.parametrize("ablation", ["co-only", "co-vae", "mg-only"])
def test_one_branch_of_the_papers_nets(ablation: str) -> None:
    """Alone on the observation it is DreamerV3 of 2023: its GRU's input is (z, a)."""
    agent = paper(ablation)
    (cell,) = [module for module in agent.world.dynamics.modules() if isinstance(module, NormGRU)]
    assert cell.state == (16 if ablation != "mg-only" else 32 + 16)
    assert "/deter" not in agent.stores
    metrics = learn(agent)
    assert all(bool(value.isfinite()) for value in metrics.values())
    (whole,) = [m for m in paper(ablation, co_reads="state").world.dynamics.modules() if isinstance(m, NormGRU)]
    assert whole.state == 32 + 16
