"""`--var`: value alignment reaches the world model and nothing else, and changes nothing before its warm-up ends."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from dreamer.agent import Dreamer, build
from dreamer.cli import APP
from env_adapters import make_vec
from wm_core.replay import Replay
from wm_core.run.cli import parse, resolve

WARMUP = 40


def trained(updates: int, **numbers: Any) -> tuple[Dreamer, list[dict[str, torch.Tensor]]]:
    """An agent after that many updates on random play, one agent step counted before each, and its metrics."""
    config = dataclasses.replace(resolve(APP, "tiny"), device="cpu", precision="fp32", lr=1e-2, warmup=0, **numbers)
    envs = make_vec("toy:catch", 2, workers=0)
    agent = build(config, envs.observation_space, envs.action_spec)
    replay = Replay(None, 2, stores=agent.stores, limit_bytes=10**9, length=config.length)
    step, carry = envs.reset(0), agent.initial(2)
    for _ in range(2 * config.length + 10):
        carry, action, notes = agent.act(carry, step)
        replay.add({**step, **notes})
        step = envs.step(action)
    found = []
    for _ in range(updates):
        agent.clock.count_steps(1)
        found.append(agent.learn(replay))
    return agent, found


def test_a_bare_var_switches_it_on() -> None:
    words = ["train", "--preset", "catch_distracted"]
    assert parse(APP, [*words, "--var"]).config.var and not parse(APP, [*words, "--var", "False"]).config.var


def test_nothing_changes_before_the_warm_up_ends_and_something_does_afterwards() -> None:
    plain, _ = trained(4)
    off, metrics = trained(4, var=True, var_warmup=4)
    on, active = trained(4, var=True, var_warmup=2)
    for name, value in plain.state_dict().items():
        assert torch.equal(value, off.state_dict()[name]), name
    assert [int(m["var/updates"]) for m in metrics] == [0, 0, 0, 0]
    assert [int(m["var/updates"]) for m in active] == [0, 0, 1, 2]
    assert 0 < active[-1]["var/beta"] <= 1 and active[-1]["var/distance"] > 0
    changed = {
        name.split(".")[1]
        for name, value in plain.state_dict().items()
        if not torch.equal(value, on.state_dict()[name])
    }
    assert "dynamics" in changed and "encoder" in changed


def test_the_gradient_reaches_what_the_spec_lists() -> None:
    agent, _ = trained(3, var=True, var_warmup=0)
    envs = make_vec("toy:catch", 2, workers=0)
    steps = {key: torch.as_tensor(value)[:, None] for key, value in envs.reset(0).items()}
    steps |= {"weight": torch.ones(2, 1)}
    agent.clock.count_steps(10)
    loss = agent.world.losses(agent.world.prefill(None, 2), steps, agent.clock)[0]["var"].mean()
    loss.backward()
    has = {name for name, p in agent.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert any(name.startswith("world.dynamics.prior") for name in has)
    assert any(name.startswith("world.encoder") for name in has)
    assert any(name.startswith("world.dynamics.cell") for name in has)
    assert not {name for name in has if name.startswith(("behaviour", "world.decoder", "world.heads"))}


@pytest.mark.parametrize("name", ["var-static", "var-detach", "var-no-warmup", "var-slow-critic", "var-probabilities"])
def test_every_ablation_makes_an_update(name: str) -> None:
    config = resolve(APP, "tiny", None, name)
    mine = {k: getattr(config, k) for k in ("var", "var_weight", "var_detach", "var_critic", "var_state")}
    _, metrics = trained(2, **mine | {"var_warmup": 0})
    assert torch.isfinite(metrics[-1]["loss/var"])
