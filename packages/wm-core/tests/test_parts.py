"""Parts against brute force, float64 and hand-computed tables."""

import math

import pytest
import torch
from torch import nn
from wm_core import draws
from wm_core.blocks import BlockLinear, truncated_normal_
from wm_core.distributions import Bernoulli, BoundedNormal, OneHot, unimix_logits
from wm_core.encoders import MultiDecoder, MultiEncoder
from wm_core.heads import Head, PolicyHead
from wm_core.kl import BalancedKL
from wm_core.norm import RMSNorm
from wm_core.observations import Observations
from wm_core.returns import Percentiles, lambda_return, replay_return
from wm_core.rssm import RSSM, stoch_index, stoch_onehot
from wm_core.sizes import SIZES
from wm_core.twohot import SettledTwoHot, TwoHot, twohot_bins
from wm_core.types import Latent

# nominal size -> (encoder, dynamics, decoder, reward, continue, policy, value) in millions, and their sum:
# 64x64x3 images, 6 discrete actions; specs/dreamerv3.md section 1
COUNTS = {
    "1m": (0.69, 0.014, 0.377, 0.081, 0.058, 0.041, 0.050, 0.066),
    "12m": (10.49, 0.22, 5.98, 1.27, 0.72, 0.66, 0.79, 0.85),
    "25m": (23.49, 0.49, 13.4, 2.86, 1.57, 1.48, 1.77, 1.87),
    "50m": (41.65, 0.88, 23.9, 5.08, 2.75, 2.62, 3.15, 3.28),
    "100m": (93.46, 1.97, 53.7, 11.4, 6.10, 5.90, 7.09, 7.28),
    "200m": (165.9, 3.49, 95.5, 20.3, 10.7, 10.5, 12.6, 12.9),
    "400m": (372.9, 7.85, 214.8, 45.6, 24.0, 23.6, 28.3, 28.7),
}


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts_equal_the_table(name):
    size, seen = SIZES[name], Observations(images={"image": (64, 64, 3)})
    units = size["units"]
    with torch.device("meta"):
        encoder = MultiEncoder(seen, units=units, depth=size["depth"])
        dynamics = RSSM(
            deter=size["deter"],
            stoch=(32, size["classes"]),
            embed=encoder.width,
            action=6,
            hidden=size["hidden"],
        )
        widths = dynamics.widths
        parts = [
            encoder,
            dynamics,
            MultiDecoder(seen, widths=widths, units=units, depth=size["depth"]),
            Head(TwoHot, 255, widths=widths, units=units, layers=1),
            Head(Bernoulli, 1, widths=widths, units=units, layers=1),
            PolicyHead(discrete=(6,), continuous=0, widths=widths, units=units, layers=3),
            Head(TwoHot, 255, widths=widths, units=units, layers=3),
        ]
    counts = [sum(p.numel() for p in part.parameters()) / 1e6 for part in parts]
    for got, want in zip([sum(counts), *counts], COUNTS[name], strict=True):
        digits = len(str(want).split(".")[1])
        assert abs(got - want) <= 0.5 * 10**-digits + 1e-9, (name, got, want)


def test_vector_walker_count_equals_the_table():
    seen = Observations(vectors={"height": 1, "orientations": 14, "velocity": 9})
    size = SIZES["12m"]
    with torch.device("meta"):
        encoder = MultiEncoder(seen, units=256, depth=16)
        dynamics = RSSM(deter=2048, stoch=(32, 16), embed=encoder.width, action=6, hidden=256)
        widths = dynamics.widths
        parts = [
            encoder,
            dynamics,
            MultiDecoder(seen, widths=widths, units=256, depth=16),
            Head(TwoHot, 255, widths=widths, units=256, layers=1),
            Head(Bernoulli, 1, widths=widths, units=256, layers=1),
            PolicyHead(discrete=(), continuous=6, widths=widths, units=256, layers=3),
            Head(TwoHot, 255, widths=widths, units=256, layers=3),
        ]
    assert size["deter"] == 2048
    assert abs(sum(p.numel() for part in parts for p in part.parameters()) / 1e6 - 9.74) < 0.005


def test_initialisation_has_the_stated_deviation():
    torch.manual_seed(0)
    weight = truncated_normal_(torch.empty(2000, 100), 100)
    assert abs(weight.std().item() - 0.1) < 0.001 and weight.abs().max() <= 2 * 1.1368 / 10 + 1e-6
    block = BlockLinear(64, 64 * 32, 8)
    assert abs(block.weight.std().item() - 1 / 8) < 0.005  # the full fan-in, not the block's


def test_rms_norm_is_the_formula():
    x = torch.randn(5, 7, dtype=torch.float32)
    assert torch.allclose(RMSNorm(7)(x), x / (x.square().mean(-1, keepdim=True) + 1e-4).sqrt(), atol=1e-6)


def test_block_linear_equals_a_dense_block_diagonal():
    layer = BlockLinear(12, 8, 4).double()
    nn.init.normal_(layer.bias)
    dense = torch.block_diag(*[layer.weight[:, g] for g in range(4)])
    x = torch.randn(3, 5, 12, dtype=torch.float64)
    assert torch.allclose(layer(x), x @ dense + layer.bias)


def test_two_hot_bins_and_targets_by_hand():
    bins = twohot_bins()
    assert len(bins) == 255 and bins[127] == 0 and torch.equal(bins, -bins.flip(0))
    assert bins[128].item() == pytest.approx(math.expm1(20 / 127), rel=1e-6)
    head = TwoHot(torch.zeros(3, 255))
    below, weight = head.split(torch.tensor([0.0, bins[130].item(), 1e30]))
    assert below.tolist() == [127, 130, 253] and weight[:2].tolist() == [0.0, 0.0] and weight[2] == 1.0
    x = 0.25 * bins[130] + 0.75 * bins[131]
    below, weight = head.split(x[None])
    assert below.item() == 130 and weight.item() == pytest.approx(0.75, abs=1e-5)
    logits = torch.full((255,), -1e9)
    logits[130], logits[131] = math.log(0.25), math.log(0.75)
    assert TwoHot(logits).mode().item() == pytest.approx(x.item(), rel=1e-5)


def test_two_hot_of_zero_logits_predicts_exactly_zero():
    assert TwoHot(torch.zeros(4, 255)).mode().abs().max() == 0


def test_a_two_hot_mean_is_told_in_float32_whatever_autocast_says() -> None:
    """In bfloat16 300 would be 298."""
    value = torch.tensor([20.0, 200.0, 300.0, 333.0])
    below, weight = TwoHot(torch.zeros(4, 255)).split(value)
    probs = torch.zeros(4, 255).scatter(-1, torch.stack([below, below + 1], -1), torch.stack([1 - weight, weight], -1))
    with torch.autocast("cpu", torch.bfloat16):
        mean = TwoHot(probs.clamp(min=1e-30).log()).mode()
    assert mean.dtype == torch.float32
    torch.testing.assert_close(mean, value, rtol=1e-5, atol=0)


def test_a_settled_mean_is_the_same_number_and_only_what_counts_has_a_gradient() -> None:
    """Pairs within rounding have none, others that of the mean: in float64, with mirrored logits equal, a rounding apart,
    and of no likeness."""
    logits = torch.randn(5, 255, dtype=torch.float64)
    equal = logits.clone()
    equal[:, 128:] = equal[:, :127].flip(-1)
    for given in (logits, equal, equal * (1 + 1e-15 * torch.randn(255, dtype=torch.float64))):
        slopes, means = [], []
        for kind in (TwoHot, SettledTwoHot):
            x = given.clone().requires_grad_()
            mean = kind(x).mode()
            slopes.append(torch.autograd.grad(mean.sum(), x)[0])
            means.append(mean.detach())
        assert torch.equal(*means)
        if given is logits:
            assert torch.allclose(*slopes, rtol=1e-12)
            continue
        x = given.clone().requires_grad_()
        bins = twohot_bins().double()
        far = int(127 * math.log1p(1000) / 20)
        bins[: 127 - far] = bins[128 + far :] = 0
        expected = torch.autograd.grad((torch.softmax(x, -1) @ bins).sum(), x)[0]
        assert torch.allclose(slopes[1], expected, atol=1e-9)
        assert slopes[0].abs().max() > 1e5


def test_samples_follow_the_probabilities_and_carry_their_gradient():
    logits = torch.randn(5, requires_grad=True)
    dist = OneHot(unimix_logits(logits, 0.01))
    with draws.drawing(draws.Generator(0)):
        many = OneHot(dist.logits.expand(40_000, 5)).sample()
    assert torch.allclose(many.mean(0), 0.99 * logits.softmax(-1) + 0.002, atol=0.01)
    probe = torch.randn(5)
    one = torch.autograd.grad((dist.sample() * probe).sum(), logits)[0]
    two = torch.autograd.grad(((0.99 * logits.softmax(-1) + 0.002) * probe).sum(), logits)[0]
    assert torch.allclose(one, two, atol=1e-6)


@pytest.mark.parametrize("temperature", [0.01, 0.5, 2.0])
def test_a_tempered_policy_is_the_density_to_a_power(temperature):
    """Of the mixed probabilities, in float64; a colder policy is all but its mode."""
    logits = torch.randn(7, 4, dtype=torch.float64)
    mixed = 0.99 * logits.softmax(-1) + 0.01 / 4
    powers = mixed ** (1 / temperature)
    cold = OneHot(logits, unimix=0.01).tempered(temperature)
    assert torch.allclose(cold.logits.exp(), powers / powers.sum(-1, keepdim=True), atol=1e-12)
    assert torch.equal(cold.mode(), OneHot(logits).mode())
    mean, std = torch.randn(7, 2, dtype=torch.float64), torch.randn(7, 2, dtype=torch.float64)
    warm = BoundedNormal(mean, std)
    apart = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None, None].expand(9, 7, 2)
    slope = [one.log_prob(apart) - one.log_prob(warm.mean) for one in (warm.tempered(temperature), warm)]
    assert torch.allclose(slope[0], slope[1] / temperature, rtol=1e-10)
    policy = PolicyHead(discrete=(3, 2), continuous=2, widths={"deter": 8, "stoch": 6}, units=16, layers=1)
    joint = policy(Latent(torch.randn(40, 8), torch.randn(40, 2, 3))).tempered(1e-6)
    assert torch.allclose(joint.sample(), joint.mode(), atol=1e-2)


def test_bounded_normal_matches_torch():
    mean, std = torch.randn(6, 3), torch.randn(6, 3)
    mine = BoundedNormal(mean, std)
    torch_normal = torch.distributions.Normal(mean.tanh(), 0.1 + 0.9 * torch.sigmoid(std + 2))
    x = torch.randn(6, 3)
    assert torch.allclose(mine.log_prob(x), torch_normal.log_prob(x).sum(-1), atol=1e-5)
    assert torch.allclose(mine.entropy(), torch_normal.entropy().sum(-1), atol=1e-5)


def test_kl_equals_torch_and_is_flat_below_the_free_nats():
    post = unimix_logits(torch.randn(2, 3, 4, 5), 0.01).requires_grad_()
    prior = unimix_logits(torch.randn(2, 3, 4, 5), 0.01).requires_grad_()
    losses, raw = BalancedKL(free=1.0)(post, prior)
    plain = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=post), torch.distributions.Categorical(logits=prior)
    ).sum(-1)
    assert torch.allclose(raw, plain, atol=1e-5) and torch.allclose(losses["dyn"], plain.clamp(min=1), atol=1e-5)
    assert torch.autograd.grad(losses["dyn"].sum(), post, allow_unused=True, retain_graph=True)[0] is None
    near = (post.detach() + 0.01 * torch.randn_like(post)).log_softmax(-1).requires_grad_()
    small, _ = BalancedKL(free=1.0)(post, near)
    assert torch.autograd.grad(small["dyn"].sum(), near)[0].abs().max() == 0


def test_kl_of_the_batch_mean_is_one_number():
    post, prior = (unimix_logits(torch.randn(2, 3, 4, 5), 0.01) for _ in range(2))
    weight = torch.tensor([[1.0, 0, 1], [1, 1, 1]])
    losses, raw = BalancedKL(free=0.1, clip="mean")(post, prior, weight)
    each = (post.exp() * (post - prior)).sum((-1, -2))
    assert torch.allclose(raw, ((each * weight).sum() / 5).expand(2, 3)) and torch.allclose(losses["rep"], raw)


def test_lambda_return_equals_a_loop():
    torch.manual_seed(0)
    reward, cont, value = torch.randn(3, 6), torch.rand(3, 6), torch.randn(3, 6)
    got = lambda_return(reward, cont, value, 0.95)
    for m in range(3):
        after = value[m, 5]
        for t in reversed(range(5)):
            after = reward[m, t + 1] + cont[m, t + 1] * (0.05 * value[m, t + 1] + 0.95 * after)
            assert torch.isclose(got[m, t], after, atol=1e-5)


def test_replay_return_stops_at_ends_by_a_hand_table():
    reward = torch.tensor([[0.0, 1.0, 2.0, 5.0]])
    last = torch.tensor([[False, True, False, False]])
    boot = torch.tensor([[9.0, 3.0, 4.0, 6.0]])
    terminal = torch.zeros_like(last)
    got = replay_return(reward, last, terminal, boot, discount=0.5, lam=0.5)
    third = 5 + 0.5 * 6  # bootstraps at the row's end
    second = 2 + 0.5 * (0.5 * 4 + 0.5 * third)
    first = 1 + 0.5 * 3  # a truncation bootstraps
    assert got[0].tolist() == [first, second, third]
    got = replay_return(reward, last, last, boot, discount=0.5, lam=0.5)
    assert got[0, 0] == 1.0  # a terminal ends it


def test_percentiles_move_slowly_and_never_below_one():
    scale = Percentiles(rate=0.5)
    assert scale(torch.linspace(0, 1, 101)).item() == 1.0
    for _ in range(30):
        last = scale(torch.linspace(0, 100, 101))
    assert last.item() == pytest.approx(90, abs=0.1)


@pytest.mark.parametrize("dtype, apart", [(torch.float32, 4e-7), (torch.bfloat16, 2**-8)])
@pytest.mark.parametrize("depth", [0.5, 4.0])
def test_far_bins_that_differ_by_rounding_predict_nothing(dtype, apart, depth):
    """Logits of a head that has learned a reward of 0.1, whose far bins a matrix product has left a digit apart."""
    bins, rows = twohot_bins(), 50
    generator = torch.Generator().manual_seed(0)
    logits = torch.where(bins.abs() > 10, -depth, -9.0).repeat(rows, 1)
    below, share = TwoHot(logits).split(torch.full((rows,), 0.1))
    logits.scatter_(1, torch.stack([below, below + 1], 1), torch.stack([1 - share, share], 1).log())
    clean = TwoHot(logits).mode()
    noise = 1 + apart * torch.randint(-1, 2, logits.shape, generator=generator)
    noisy = TwoHot(torch.where(bins.abs() > 1e3, logits * noise, logits).to(dtype).float())
    plain = (noisy.logits.double().softmax(-1) * bins.double()).sum(-1)
    assert (plain - clean).abs().max() > 0.1
    mine = TwoHot(noisy.logits.to(dtype)).mode()
    assert mine.std() < 1e-5 and (mine - clean).abs().max() < (1e-5 if dtype == torch.float32 else 1e-2)


@pytest.mark.parametrize("dtype, near", [(torch.float32, 1e-4), (torch.bfloat16, 1e-2), (torch.float64, 1e-12)])
def test_a_mean_is_that_of_the_bins(dtype, near):
    """Also where far bins are meant, where near pairs differ by little, and under a gradient."""
    bins = twohot_bins().double()
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(40, 255, generator=generator) * 5
    logits[:3] = -30.0
    logits[0, [100, 154]] = torch.tensor([0.0, 0.03])  # returns of +-6.8 that happen about alike
    logits[1, 200] = 0.0  # 96,000
    logits[2, [54, 200]] = torch.tensor([0.0, 1.0])
    kept = logits.to(dtype).requires_grad_()
    exact = kept.detach().double().requires_grad_()
    mine, plain = TwoHot(kept).mode(), exact.softmax(-1) @ bins
    torch.testing.assert_close(mine.double(), plain, rtol=near, atol=1e-4)
    torch.testing.assert_close(mine[:3].double(), plain[:3], rtol=1e-5, atol=1e-5)
    (one,) = torch.autograd.grad(mine[:3].sum(), kept)
    (other,) = torch.autograd.grad(plain[:3].sum(), exact)
    torch.testing.assert_close(one.double(), other, rtol=near, atol=1e-2)
    flat = torch.zeros(1, 255, dtype=dtype, requires_grad=True)  # a mean that counts no far pair has their gradient
    (one,) = torch.autograd.grad(TwoHot(flat).mode().sum(), flat)
    torch.testing.assert_close(one[0].double(), bins / 255, rtol=max(near, 1e-6), atol=1e-2)


def test_joint_actions_have_one_vector():
    policy = PolicyHead(discrete=(3, 2), continuous=2, widths={"deter": 4, "stoch": 4}, units=8, layers=1)
    dist = policy(Latent(torch.randn(5, 4), torch.randn(5, 2, 2)))
    action = dist.sample()
    assert action.shape == (5, 7) and (action[:, :3].sum(-1) == 1).all() and (action[:, 3:5].sum(-1) == 1).all()
    assert dist.log_prob(action).shape == dist.entropy().shape == (5,)


@pytest.mark.parametrize("classes", [2, 256, 300])
def test_replay_keeps_any_number_of_classes(classes: int) -> None:
    stoch = torch.eye(classes)[torch.tensor([[0, classes - 1], [1, classes // 2]])]
    kept = stoch_index(stoch)
    assert kept.dtype == (torch.uint8 if classes <= 256 else torch.int16)
    assert torch.equal(stoch_onehot(kept, classes), stoch)
