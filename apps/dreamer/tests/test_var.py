"""`--var`: value alignment reaches the world model and nothing else, and changes nothing before its warm-up ends."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from dreamer.agent import Dreamer, build
from dreamer.cli import APP
from env_adapters import make_vec
from wm_core.dispatched import Dispatched
from wm_core.fast.capture import WARMUP as CALLS
from wm_core.testing import assert_same
from wm_run.cli import parse
from wm_run.configs import resolve
from wm_run.replay import Replay
from wm_run.testing.acting import acted
from wm_var import BlindCritic


def prepared(**numbers: Any) -> tuple[Dreamer, Replay]:
    """A new agent and a replay of its first acts."""
    config = dataclasses.replace(resolve(APP, "tiny"), device="cpu", precision="fp32", lr=1e-2, warmup=0, **numbers)
    envs = make_vec("toy:catch", 2, workers=0)
    agent = build(config, envs.observation_space, envs.action_spec)
    return agent, acted(agent, envs, 2 * config.length + 10, length=config.length)


def trained(updates: int, **numbers: Any) -> tuple[Dreamer, list[dict[str, torch.Tensor]]]:
    """An agent after that many updates on its own play, one agent step counted before each, and its metrics."""
    agent, replay = prepared(**numbers)
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


@pytest.mark.parametrize("sees", [True, False])
def test_the_critic_is_looked_at_when_the_warm_up_ends_though_updates_are_recorded(sees: bool) -> None:
    """A replay runs none of the update's Python, which looks by itself otherwise."""
    agent, replay = prepared(var=True, var_warmup=100)
    recorder = Dispatched()
    agent.capture("graph", pytest.fail, recorder)
    for _ in range(CALLS + 6):
        agent.clock.count_steps(1)
        agent.learn(replay)
    assert recorder.replays and not agent.world.regularisers["var"].probed
    if not sees:
        with torch.no_grad():
            agent.behaviour.critic.mlp[0].weight[:, agent.world.dynamics.widths["deter"] :] = 0
    agent.clock.count_steps(100)
    before = (
        [one.detach().clone() for one in agent.changing()],
        agent.source.state_dict(),
        agent.sources["own"].state_dict(),
    )
    with nullcontext() if sees else pytest.raises(BlindCritic):
        agent.learn(replay)
    assert agent.world.regularisers["var"].probed is sees
    if not sees:  # a look, no more
        after = [one.detach() for one in agent.changing()]
        assert_same(before, (after, agent.source.state_dict(), agent.sources["own"].state_dict()))


@pytest.mark.parametrize("name", ["var-static", "var-detach", "var-no-warmup", "var-slow-critic", "var-probabilities"])
def test_every_ablation_makes_an_update(name: str) -> None:
    config = resolve(APP, "tiny", None, name)
    mine = {k: getattr(config, k) for k in ("var", "var_weight", "var_detach", "var_critic", "var_state")}
    _, metrics = trained(2, **mine | {"var_warmup": 0})
    assert torch.isfinite(metrics[-1]["loss/var"])


def test_acts_are_as_cold_as_they_are_told() -> None:
    """What IRIS does in Freeway: the temperature is that of the act alone."""
    agent, _ = prepared()
    with torch.no_grad():
        agent.behaviour.actor.out.bias[2] = 0.5
    envs = make_vec("toy:catch", 64, workers=0)
    step = envs.reset(0)
    for temperature, right in ((0.01, range(62, 65)), (1.0, range(15, 45))):  # 45% at 1
        drawn = agent.act(agent.initial(64), step, temperature=temperature)[1]
        assert int(drawn[:, 2].sum()) in right
