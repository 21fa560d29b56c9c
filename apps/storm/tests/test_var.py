"""Value alignment in STORM: what it reaches, what it leaves alone, and when it begins."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from storm.agent import Storm
from storm.cli import APP
from storm.world import rows
from torch import Tensor
from wm_core import draws
from wm_core.errors import UserError
from wm_core.types import Batch, Index
from wm_run.cli import parse

BACKBONES = {"public": {}, "common": {"resets": True, "act_on": "posterior", "kl_clip": "step", "value_index": "t+1"}}


def update(agent: Storm, steps: Any, seed: int) -> dict[str, Tensor]:
    """One update on made-up rows."""
    index = Index(torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))
    torch.manual_seed(seed)  # dropout
    batch, contexts = steps(agent.batch, agent.length + 1, seed), steps(agent.dreams, agent.context + 1, seed + 100)
    return agent.update(Batch(batch, None, index), Batch(contexts, None, index))[0]


@pytest.mark.parametrize("numbers", BACKBONES.values(), ids=BACKBONES)
@pytest.mark.parametrize("state", ["sample", "probabilities"])
@pytest.mark.parametrize("critic", ["online", "slow"])
def test_it_reaches_encoder_posterior_tokens_transformer_and_prior(
    tiny: Any, steps: Any, numbers: dict[str, Any], state: str, critic: str
) -> None:
    agent = tiny(var=True, var_warmup=0, var_state=state, var_critic=critic, **numbers).train()
    agent.clock.count_steps(1)
    with draws.drawing(agent.source):
        losses, _ = agent.world.losses(agent.world.prefill(None, 2), rows(steps(2, 9)), agent.clock)
    losses["var"].mean().backward()
    moved = {name for name, p in agent.named_parameters() if p.grad is not None and bool(p.grad.any())}
    reached = ("world.encoder.", "world.dynamics.")
    assert moved and all(name.startswith(reached) for name in moved)
    for part in ("encoder.convs", "posterior", "token", "backbone.blocks", "prior"):
        assert any(part in name for name in moved), part
    assert all(p.grad is None for p in agent.behaviour.parameters())


def test_the_critic_belongs_to_one_optimiser(tiny: Any) -> None:
    agent = tiny(var=True)
    world, behaviour = ({id(p) for p in rule.params} for rule in agent.optimiser.rules.values())
    assert not world & behaviour
    assert {id(p) for p in agent.behaviour.critic.parameters()} <= behaviour
    names = {name for name in agent.state_dict() if "critic" in name or "slow" in name}
    assert all(name.startswith("behaviour.") for name in names)
    assert agent.parameters_by_module() == tiny().parameters_by_module()


@pytest.mark.parametrize("numbers", BACKBONES.values(), ids=BACKBONES)
def test_training_equals_the_baseline_bit_by_bit_until_the_warm_up_ends(
    tiny: Any, steps: Any, numbers: dict[str, Any]
) -> None:
    baseline, aligned = tiny(**numbers), tiny(var=True, var_warmup=3, **numbers)
    for count in range(1, 6):
        for agent in (baseline, aligned):
            agent.clock.count_steps(1)
            metrics = update(agent, steps, count)
        weights = baseline.state_dict()
        same = all(torch.equal(value, weights[name]) for name, value in aligned.state_dict().items() if name in weights)
        assert same is (count <= 3)
        assert bool(metrics["loss/var"] > 0) is (count > 3)
        assert bool(0 < metrics["var/beta"] <= 1) is (count > 3)
        assert metrics["var/updates"] == max(0, count - 3)


def test_pairs_are_the_posterior_of_a_step_and_the_prior_of_the_same(tiny: Any, steps: Any) -> None:
    """Of [z_{t+1}, h_t]: with a prior that equals the posterior, and no noise, there is nothing to align but at the
    first step, which has no h and no weight."""
    agent = tiny(var=True, var_warmup=0).eval()
    agent.clock.count_steps(1)
    world = agent.world
    kept = rows(steps(2, 9))
    with torch.no_grad(), draws.drawing(draws.Fixed()):
        trace = world.observe(world.prefill(None, 2), kept)
        world.draw = lambda logits: trace.latent.stoch
        world.regularisers["var"].probed = True
        assert not world.losses(world.prefill(None, 2), kept, agent.clock)[0]["var"].any()
        world.draw = lambda logits: trace.latent.stoch.roll(1, 1)  # a pairing off by one
        shifted = world.losses(world.prefill(None, 2), kept, agent.clock)[0]["var"]
    assert bool((shifted[:, 1:] > 0).any()) and not shifted[:, 0].any()


def test_the_logged_numbers_are_of_records_with_a_weight(tiny: Any, steps: Any) -> None:
    agent = tiny(var=True, var_warmup=0, kl_clip="step")
    agent.clock.count_steps(1)
    metrics = update(agent, steps, 1)
    beta, distance = agent.world.regularisers["var"].noted
    assert metrics["var/distance"].item() == pytest.approx(distance[:, 1:].mean().item(), rel=1e-5)
    assert metrics["var/beta"].item() == pytest.approx(beta[:, 1:].mean().item(), rel=1e-5)
    assert metrics["var/distance"].item() != pytest.approx(distance.mean().item(), rel=1e-5)


def test_a_constant_weight_and_a_detached_state(tiny: Any, steps: Any) -> None:
    agent = tiny(var=True, var_warmup=0, var_weight=0.5)
    agent.clock.count_steps(1)
    assert update(agent, steps, 1)["var/beta"] == 0.5
    agent = tiny(var=True, var_warmup=0, var_detach=True).train()
    agent.clock.count_steps(1)
    with draws.drawing(agent.source):
        losses, _ = agent.world.losses(agent.world.prefill(None, 2), rows(steps(2, 2)), agent.clock)
    losses["var"].mean().backward()
    assert agent.world.dynamics.prior.weight.grad.any()


def test_no_values_are_aligned_with_that_nobody_learns() -> None:
    with pytest.raises(UserError, match="none are learned: leave out one of them"):
        parse(APP, ["train", "--preset", "tiny", "--device", "cpu", "--var", "True", "--behaviour", "False"])
