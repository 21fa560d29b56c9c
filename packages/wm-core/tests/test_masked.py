"""Masks: what is forbidden has probability exactly 0, after the uniform share, in samples, dreams and acts."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from wm_core import draws
from wm_core.actor_critic import ActorCritic
from wm_core.distributions import Bernoulli, Bernoullis, OneHot, filled
from wm_core.heads import Head, PolicyHead
from wm_core.kl import BalancedKL
from wm_core.masked import MaskedOneHot
from wm_core.returns import gae, lambda_return
from wm_core.rssm import RSSM
from wm_core.twohot import TwoHot
from wm_core.types import Latent
from wm_core.world import WorldModel


def random_case(unimix: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, MaskedOneHot]:
    source = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(200, 7, generator=source, dtype=torch.float64)
    mask = torch.rand(200, 7, generator=source) < 0.5
    mask[:, 3] |= ~mask.any(-1)
    return logits, mask, MaskedOneHot(logits, mask, unimix)


@pytest.mark.parametrize("unimix", [0.0, 0.01])
def test_probabilities_are_those_of_the_mixture_given_that_it_is_allowed(unimix: float) -> None:
    logits, mask, dist = random_case(unimix)
    mixed = (1 - unimix) * logits.softmax(-1) + unimix / 7
    plain = mixed * mask / (mixed * mask).sum(-1, keepdim=True)
    assert torch.allclose(dist.logits.exp(), plain, atol=1e-12)
    assert (dist.logits.exp()[~mask] == 0).all()
    entropy = -torch.special.xlogy(plain, plain).sum(-1)
    assert torch.allclose(dist.entropy(), entropy, atol=1e-10)
    picked = nn.functional.one_hot((plain * mask).argmax(-1), 7).double()
    assert torch.allclose(dist.log_prob(picked), (plain * picked).sum(-1).log(), atol=1e-10)


@pytest.mark.parametrize("unimix", [0.0, 0.01])
def test_nothing_forbidden_is_ever_sampled_and_frequencies_are_the_probabilities(unimix: float) -> None:
    logits = torch.tensor([2.0, 0.0, 9.0, -1.0])
    mask = torch.tensor([True, True, False, True])
    dist = MaskedOneHot(logits.expand(200_000, 4), mask.expand(200_000, 4), unimix)
    with draws.drawing(draws.Generator(1)):
        found = dist.sample()
    assert found[:, 2].sum() == 0 and (found.sum(-1) == 1).all()
    expected = dist.logits[0].exp()
    assert torch.allclose(found.mean(0), expected, atol=5e-3)
    with draws.drawing(draws.Generator(2)):
        assert dist.tempered(0.5).sample()[:, 2].sum() == 0
    assert dist.mode()[0].tolist() == [1.0, 0.0, 0.0, 0.0]


def test_an_allowed_action_may_be_as_unlikely_as_it_likes() -> None:
    """A softmax over all actions would round it to 0, like the forbidden ones."""
    dist = MaskedOneHot(torch.tensor([300.0, -300.0, 0.0]), torch.tensor([False, True, False]))
    with draws.drawing(draws.Generator(0)):
        assert dist.sample().tolist() == [0.0, 1.0, 0.0]
    assert dist.log_prob(torch.tensor([0.0, 1.0, 0.0])).item() == 0


@pytest.mark.parametrize("unimix", [0.0, 0.01])
def test_gradients_are_finite_and_stop_at_what_is_forbidden(unimix: float) -> None:
    logits = torch.tensor([0.3, -0.2, 1.0], dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([True, False, True])

    def plain(x: torch.Tensor) -> torch.Tensor:
        mixed = ((1 - unimix) * x.softmax(-1) + unimix / 3)[mask]
        p = mixed / mixed.sum()
        return 0.7 * p[0].log() - (p * p.log()).sum()

    dist = MaskedOneHot(logits, mask, unimix)
    found = 0.7 * dist.log_prob(torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)) + dist.entropy()
    mine, told = (torch.autograd.grad(value, logits)[0] for value in (found, plain(logits)))
    assert torch.allclose(mine, told, atol=1e-12) and torch.isfinite(mine).all()
    if not unimix:
        assert mine[1] == 0


def test_a_mask_of_ones_says_nothing_and_an_empty_one_neither() -> None:
    logits = torch.randn(5, 4)
    free = OneHot(logits, 0.01)
    for mask in (torch.ones(5, 4, dtype=torch.bool), torch.zeros(5, 4, dtype=torch.bool)):
        dist = MaskedOneHot(logits, mask, 0.01)
        assert torch.allclose(dist.logits, free.logits, atol=1e-6)


def test_a_policy_of_several_parts_splits_its_mask() -> None:
    policy = PolicyHead(discrete=(3, 2), continuous=1, widths={"deter": 4}, units=8, layers=1, reads=("deter",))
    latent = Latent(torch.randn(1000, 4), torch.zeros(1000, 1, 1))
    mask = torch.tensor([True, False, True, False, True, False]).expand(1000, 6)
    action = policy(latent, mask).sample()
    assert (action[:, 1] == 0).all() and (action[:, 4] == 1).all() and action[:, 5].abs().max() > 0


def test_bernoullis_sum_over_the_event_and_fill_what_is_empty() -> None:
    logits, target = torch.randn(6, 5), torch.rand(6, 5) < 0.5
    each = sum(Bernoulli(logits[:, k, None]).loss(target[:, k]) for k in range(5))
    assert torch.allclose(Bernoullis(logits).loss(target), each, atol=1e-6)
    low = logits - 10
    assert not Bernoullis(low).mode().any()
    assert torch.equal(Bernoullis(low).allowed(), nn.functional.one_hot(low.argmax(-1), 5).bool())
    assert torch.equal(filled(target | True, logits), torch.ones_like(target))


def test_gae_is_the_lambda_return_minus_the_value_and_the_sum_of_errors() -> None:
    source = torch.Generator().manual_seed(0)
    reward, cont, value = (torch.rand(3, 9, generator=source, dtype=torch.float64) for _ in range(3))
    assert torch.allclose(gae(reward, cont, value, 0.9), lambda_return(reward, cont, value, 0.9) - value[:, :-1])
    lam = torch.rand(3, 8, generator=source, dtype=torch.float64)
    told, after = torch.zeros(3, 8, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for t in reversed(range(8)):
        error = reward[:, t + 1] + cont[:, t + 1] * value[:, t + 1] - value[:, t]
        told[:, t] = after = error + lam[:, t] * cont[:, t + 1] * after
    assert torch.allclose(gae(reward, cont, value, lam), told)


class Decoder(nn.Module):
    def forward(self, latent: Latent) -> dict[str, object]:
        return {}


def world_with_masks(told: torch.Tensor) -> WorldModel:
    """A world whose mask head says `told` (A,) logits wherever it is asked."""
    torch.manual_seed(0)
    widths = {"deter": 8, "stoch": 12}
    size = {"widths": widths, "units": 8, "layers": 1}
    mask = Head(Bernoullis, len(told), outscale=0.0, **size)
    with torch.no_grad():
        mask.out.bias.copy_(told)
    heads = {"reward": Head(TwoHot, 255, **size), "cont": Head(Bernoulli, 1, **size), "action_mask": mask}
    dynamics = RSSM(deter=8, stoch=(4, 3), embed=5, action=len(told), hidden=8, blocks=2)
    return WorldModel(
        encoder=lambda steps: {"obs": steps["vector"]},
        dynamics=dynamics,
        decoder=Decoder(),
        heads=heads,
        kl=BalancedKL(),
    )


def test_a_dream_obeys_the_masks_that_it_predicts() -> None:
    world = world_with_masks(torch.tensor([5.0, -5.0, 5.0]))
    policy = PolicyHead(discrete=(3,), continuous=0, widths=world.dynamics.widths, units=8, layers=1)
    latent = Latent(torch.randn(500, 8), torch.zeros(500, 4, 3))
    start = {"deter": latent.deter, "stoch": latent.stoch}, latent
    with draws.drawing(draws.Generator(0)):
        dream = world.dream(start, policy, 6)
    assert dream.mask is not None and dream.mask.shape == (500, 7, 3)
    assert (dream.action[..., 1] == 0).all() and dream.action.sum() == 500 * 6
    assert (dream.action.bool() <= dream.mask[:, :-1]).all()


def test_a_policy_is_judged_by_the_mask_that_it_acted_under() -> None:
    world = world_with_masks(torch.tensor([5.0, -5.0, 5.0]))
    behaviour = ActorCritic.of((3,), 0, widths=world.dynamics.widths, units=8, layers=1)
    latent = Latent(torch.randn(20, 8), torch.zeros(20, 4, 3))
    with draws.drawing(draws.Generator(0)):
        dream = world.dream(({"deter": latent.deter, "stoch": latent.stoch}, latent), behaviour.policy, 4)
    policy = behaviour.evaluate(dream).policy
    assert isinstance(policy, OneHot)
    assert (policy.logits.exp()[..., 1] == 0).all() and (policy.log_prob(dream.action) > -2).all()


def test_the_mask_head_learns_what_was_allowed() -> None:
    world = world_with_masks(torch.tensor([5.0, -5.0, 5.0]))
    flags = torch.zeros(2, 4, dtype=torch.bool)
    steps = {
        "vector": torch.zeros(2, 4, 5), "action": torch.zeros(2, 4, 3), "reward": torch.zeros(2, 4), "first": flags,
        "last": flags, "terminal": flags, "weight": torch.ones(2, 4),
        "action_mask": torch.tensor([True, True, False]).expand(2, 4, 3),
    }  # fmt: skip
    losses, _ = world.losses(world.prefill(None, 2), steps)
    assert torch.allclose(losses["action_mask"], torch.full((2, 4), 10.0), atol=0.1)
