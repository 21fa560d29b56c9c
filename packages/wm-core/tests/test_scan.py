"""The posterior scan against the plain loop, and what else is written out by hand against what autograd says."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from wm_core import draws, plain
from wm_core.blocks import BlockGRU
from wm_core.distributions import sample_mixed
from wm_core.fast.resting import once, resting
from wm_core.fast.scan import posterior_scan
from wm_core.posterior import Posterior
from wm_core.twohot import TwoHot
from wm_core.types import Latent

B, T, D, S, K, H, G = 3, 7, 16, 4, 3, 8, 4


class Branch(nn.Module):
    def __init__(self, count: int) -> None:
        super().__init__()
        self.cell = BlockGRU(deter=D, state=(count * D, S * K), action=2, hidden=H, blocks=G)
        self.posterior = Posterior(D, 5, S * K // count, hidden=H)


def case(count: int, dtype: torch.dtype = torch.float64) -> tuple[list[Branch], list[Tensor], Tensor, Tensor]:
    """Branches with weights of every size, the differentiable inputs, keep and noise."""
    torch.manual_seed(count)
    branches = [Branch(count).to(dtype) for _ in range(count)]
    for branch in branches:
        for p in branch.parameters():
            nn.init.normal_(p, 0, 0.5)
    sizes = ((B, count * D + S * K), (T, B, count, D), (T, B, count, H))
    inputs = [torch.randn(size, dtype=dtype, requires_grad=True) for size in sizes]
    keep = (torch.rand(T, B, 1) > 0.2).to(dtype)
    return branches, inputs, keep, torch.rand(T, B, S, K).log().neg().to(dtype)


def gradients(scan, count, dtype=torch.float64):  # type: ignore[no-untyped-def]
    branches, inputs, keep, noise = case(count, dtype)
    found = scan(branches, *inputs, keep, noise, 0.01)
    torch.manual_seed(9)
    loss = sum((part * torch.randn_like(part)).sum() for part in (found[0], found[1], found[2].log()))
    names = [name for name, _ in nn.ModuleList(branches).named_parameters() if ".action." not in name]
    params = [nn.ModuleList(branches).get_parameter(name) for name in names]
    grads = torch.autograd.grad(loss, [*inputs, *params], allow_unused=True)
    return found, dict(zip(["state", "driven", "seen", *names], grads, strict=True))


@pytest.mark.parametrize("count", [1, 2])
def test_the_scan_is_the_loop_forward_and_backward(count: int) -> None:
    loop, fast = gradients(plain.posterior_scan, count), gradients(posterior_scan, count)
    for one, two in zip(loop[0], fast[0], strict=True):
        torch.testing.assert_close(two, one, rtol=0, atol=1e-12)
    assert (loop[0][1].sum(-1) - 1).abs().max() < 1e-12
    for name, one in loop[1].items():
        if one is None:  # biases that `drive` adds
            assert fast[1][name] is None and name.endswith((".cell.bias", ".mix.0.bias"))
        else:
            assert one.abs().max() > 1e-6, name
            torch.testing.assert_close(fast[1][name], one, rtol=0, atol=1e-10, msg=name)


def test_without_a_gradient_asked_for_a_part_the_others_are_right() -> None:
    branches, inputs, keep, noise = case(1)
    one, two = (
        scan(branches, *inputs, keep, noise, 0.0)[0][-1].sum() for scan in (plain.posterior_scan, posterior_scan)
    )
    for a, b in zip(*(torch.autograd.grad(x, inputs) for x in (one, two)), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


def test_in_half_precision_the_scan_stays_near() -> None:
    branches, inputs, keep, noise = case(1, torch.float32)
    exact = posterior_scan(branches, *inputs, keep, noise, 0.01)
    with torch.autocast("cpu", torch.bfloat16):
        rough = posterior_scan(branches, *inputs, keep, noise, 0.01)
    assert rough[0].dtype == torch.float32
    assert 0 < (rough[0][0] - exact[0][0]).abs().max() < 0.1
    sum(part.sum() for part in rough).backward()
    assert all(torch.isfinite(p.grad).all() for p in branches[0].parameters() if p.grad is not None)


def test_the_race_draws_the_mixed_probabilities() -> None:
    probs = torch.tensor([0.7, 0.3, 0.0])
    with draws.drawing(draws.Generator(0)):
        shape = (200_000, 3)
        drawn = sample_mixed(probs.expand(shape), draws.exponential(shape), unimix=0.3)
    expected = 0.7 * probs + 0.1
    assert (drawn.mean(0) - expected).abs().max() < 5 * (0.25 / shape[0]) ** 0.5


def test_several_targets_share_one_softmax() -> None:
    logits, targets = torch.randn(5, 255, requires_grad=True), 100 * torch.randn(5, 2)
    dist = TwoHot(logits)
    one = dist.loss(targets[:, 0]) + 0.5 * dist.loss(targets[:, 1])
    two = dist.loss_to(targets, (1.0, 0.5))
    torch.testing.assert_close(two, one)
    for a, b in zip(*(torch.autograd.grad(x.sum(), logits) for x in (one, two)), strict=True):
        torch.testing.assert_close(a, b)


def test_draws_ahead_are_new_each_time_and_follow_the_generator() -> None:
    def three() -> list[Tensor]:
        with draws.drawing(draws.Generator(3)), draws.ahead(2):
            return [draws.normal((4,)) for _ in range(3)]

    one, two = three(), three()
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert len({tuple(x.tolist()) for x in one}) == 3


def test_what_rests_is_made_once_and_made_anew_afterwards() -> None:
    weight = nn.Parameter(torch.ones(2))
    with resting():
        first, again = (once(lambda: weight * 2, weight) for _ in range(2))
        assert first is again
    with torch.no_grad():
        weight.fill_(5)
    with resting():
        assert once(lambda: weight * 2, weight).tolist() == [10, 10]


def test_features_joined_without_gradient_do_not_take_it_from_those_who_want_it() -> None:
    deter, stoch = torch.ones(2, 3, requires_grad=True), torch.zeros(2, 2, 2)
    latent = Latent(deter, stoch)
    with torch.no_grad():
        assert not latent.read("deter", "stoch").requires_grad
    joined = latent.read("deter", "stoch")
    assert joined.requires_grad and joined is latent.read("deter", "stoch")  # joined once for all who read it
    assert latent.read("stoch", "deter").shape == joined.shape and latent.read("stoch", "deter")[0, 0] == 0
    assert replace(latent, deter=2 * deter).read("deter", "stoch")[0, 0] == 2
