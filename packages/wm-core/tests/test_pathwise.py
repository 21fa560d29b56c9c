"""Dreams with the gradient of their actions: against float64 finite differences, and nothing of it where it must not be."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from wm_core import draws
from wm_core.distributions import BoundedNormal
from wm_core.encoders import MultiDecoder, MultiEncoder
from wm_core.heads import Head, PolicyHead, reward_and_continue
from wm_core.kl import BalancedKL
from wm_core.observations import Observations
from wm_core.parallel import GRUBackbone, Parallel
from wm_core.pathwise import PathwiseActorCritic, dream_by_actions
from wm_core.twohot import TwoHot
from wm_core.types import Carry, Latent
from wm_core.world import WorldModel

M, H, A, D = 3, 4, 2, 5
WIDTHS = {"deter": D, "stoch": 1}


class Smooth(nn.Module):
    """A world without chance: deter' = tanh(W deter + B a), so that differences of it are its derivative."""

    widths = WIDTHS

    def __init__(self) -> None:
        super().__init__()
        self.state, self.act = nn.Linear(D, D), nn.Linear(A, D)

    def imagine(self, carry: Carry, action: Tensor) -> tuple[Carry, Latent]:
        bounded = action / action.detach().abs().clamp(min=1)
        deter = torch.tanh(self.state(carry) + self.act(bounded))
        return deter, Latent(deter, torch.zeros(len(deter), 1, 1, dtype=deter.dtype))


def behaviour(widths: dict[str, int] = WIDTHS, **parts: Any) -> PathwiseActorCritic:
    critic = Head(TwoHot, 255, widths=widths, units=8, layers=1)
    policy = PolicyHead(discrete=(), continuous=A, widths=widths, units=8, layers=1, outscale=1.0)
    return PathwiseActorCritic(policy=policy, critic=critic, entropy=0.1, **parts)


def smooth() -> tuple[Any, PathwiseActorCritic, tuple[Carry, Latent]]:
    """World, behaviour and starts in float64; the policy gives one distribution everywhere, its bias."""
    torch.manual_seed(0)
    world = nn.Module()
    world.dynamics, world.heads = Smooth(), nn.ModuleDict(reward_and_continue(WIDTHS, units=8))  # type: ignore[assignment]
    world.imagine = world.dynamics.imagine
    learner = behaviour()
    for part in (world, learner):
        part.double()
    with torch.no_grad():
        world.heads["reward"].out.weight.normal_()
        learner.critic.out.weight.normal_()
        learner.actor.out.weight.zero_()
        learner.actor.out.bias.copy_(torch.tensor([0.3, -0.2, -3.0, -3.0]))
    deter = torch.randn(M, D, dtype=torch.float64)
    return world, learner, (deter, Latent(deter, torch.zeros(M, 1, 1, dtype=torch.float64)))


def narrow(world: Any, learner: PathwiseActorCritic) -> None:
    """Two-hot means are of numbers about 1: mass in the middle bins."""
    with torch.no_grad():
        for head in (world.heads["reward"], learner.critic):
            head.out.bias.copy_(-0.05 * (torch.arange(255) - 127.0).square())


def objective(world: Any, learner: PathwiseActorCritic, start: Any) -> Tensor:
    with draws.drawing(draws.Generator(7)):
        dream = dream_by_actions(world, start, learner.policy, H)
    evaluation = learner.evaluate(dream)
    return learner.policy_loss(dream, evaluation).sum()


def test_the_policys_gradient_is_that_of_finite_differences() -> None:
    """Of the whole objective: returns, the values they are compared with, weights held, and entropy."""
    world, learner, start = smooth()
    narrow(world, learner)
    world.heads["cont"].out.bias.data.fill_(30.0)  # weights of dreams have no gradient: let them be 1
    bias = learner.actor.out.bias
    bias.grad = None
    objective(world, learner, start).backward()
    assert bias.grad is not None
    found, expected = bias.grad.clone(), torch.zeros_like(bias)
    for i in range(len(bias)):
        sides = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                bias[i] += step
            sides.append(objective(world, learner, start).item())
            with torch.no_grad():
                bias[i] -= step
        expected[i] = (sides[0] - sides[1]) / 2e-6
    assert found.abs().min() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


def test_nothing_but_the_policy_gets_a_gradient() -> None:
    world, learner, start = smooth()
    objective(world, learner, start).backward()
    got = {
        n for n, p in [*learner.named_parameters(), *world.named_parameters()] if p.grad is not None and p.grad.any()
    }
    assert got == {"actor.out.weight", "actor.out.bias"}  # the layers before it are multiplied by a weight of zero


def model(units: int = 8) -> WorldModel:
    """One with chance: categorical latents, and a start whose graph leads into it."""
    torch.manual_seed(0)
    seen = Observations(vectors={"vector": 3})
    encoder = MultiEncoder(seen, units=units, depth=2)
    dynamics = Parallel(GRUBackbone(8), deter=8, stoch=(4, 3), embed=encoder.width, action=A, hidden=units)
    return WorldModel(
        encoder=encoder,
        dynamics=dynamics,
        decoder=MultiDecoder(seen, widths=dynamics.widths, units=units, depth=2, blocks=2),
        heads=reward_and_continue(dynamics.widths, units=units),
        kl=BalancedKL(1.0),
    )


def test_it_is_the_same_dream_and_straight_through_samples_pass_the_gradient_on() -> None:
    world = model()
    learner = behaviour(dict(world.dynamics.widths))
    with torch.no_grad():
        world.heads["reward"].out.weight.normal_()
    narrow(world, learner)
    flags = torch.zeros(2, 3, dtype=torch.bool)
    steps = {"vector": torch.randn(2, 3, 3), "action": torch.randn(2, 3, A), "first": flags}
    start = world.starts(world.observe(world.dynamics.initial(2), steps))
    dreams = []
    for make in (world.dream, lambda *given: dream_by_actions(world, *given)):
        with draws.drawing(draws.Generator(3)):
            dreams.append(make(start, learner.policy, H))
    plain, mine = dreams
    for name in ("action", "reward", "cont"):
        torch.testing.assert_close(getattr(mine, name), getattr(plain, name))
    torch.testing.assert_close(mine.latent.stoch, plain.latent.stoch)
    assert len(mine.taken) == H and not mine.action.requires_grad and not plain.reward.requires_grad
    slopes = torch.autograd.grad(mine.reward[:, -1].sum(), mine.taken, retain_graph=True)
    assert all(slope.abs().max() > 0 for slope in slopes)
    learner.losses(mine, learner.evaluate(mine))["policy"].mean().backward()
    assert all(p.grad is None for p in world.parameters())
    assert all(p.grad is None for p in learner.critic.parameters())
    assert all(p.grad is not None and p.grad.any() for p in learner.actor.parameters())
    with pytest.raises(ValueError, match="gradient of their actions"):
        learner.losses(plain)


def test_a_resampled_action_is_itself() -> None:
    mean, std = torch.randn(6, A, requires_grad=True), torch.randn(6, A, requires_grad=True)
    normal = BoundedNormal(mean, std)
    action = normal.sample().detach()
    again = normal.resampled(action)
    torch.testing.assert_close(again, action)
    noise = (action - mean.tanh()) / (0.1 + 0.9 * torch.sigmoid(std + 2))
    grads = torch.autograd.grad(again.sum(), (mean, std))
    sigmoid = torch.sigmoid(std + 2)
    torch.testing.assert_close(grads[0], 1 - mean.tanh().square())
    torch.testing.assert_close(grads[1], noise * 0.9 * sigmoid * (1 - sigmoid))
