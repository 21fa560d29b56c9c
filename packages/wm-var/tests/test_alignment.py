"""Values of the loss by hand, where its gradient goes, when it begins, and which critics are refused."""

import copy
import math
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from wm_var import BlindCritic, ValueAlignment, probabilities, sample

ROWS, LENGTH, FACTORS, CLASSES, DETER = 3, 5, 2, 3, 6
FLAT = FACTORS * CLASSES


@dataclass(frozen=True)
class State:
    """Named features, as a world model may have them."""

    deter: Tensor
    stoch: Tensor


class Critic(nn.Module):
    """[deter, stoch] -> an object with logits."""

    def __init__(self, outscale=1.0, sees=True):
        super().__init__()
        self.sees = sees
        self.hidden, self.out = nn.Linear(DETER + FLAT * sees, 8), nn.Linear(8, 7)
        nn.init.uniform_(self.out.weight, -outscale, outscale)
        nn.init.zeros_(self.out.bias)

    def forward(self, state):
        features = torch.cat([state.deter, state.stoch.flatten(-2)], -1) if self.sees else state.deter
        return SimpleNamespace(logits=self.out(torch.tanh(self.hidden(features))))


class Toy(nn.Module):
    """A world model with every part of spec 2.3. `sees_state`: the posterior reads h too, as in an RSSM, or not (STORM)."""

    def __init__(self, sees_state):
        super().__init__()
        self.sees_state = sees_state
        self.encoder, self.sequence = nn.Linear(4, 8), nn.GRUCell(FLAT, DETER)
        self.posterior, self.prior = nn.Linear(8 + DETER * sees_state, FLAT), nn.Linear(DETER, FLAT)
        self.decoder, self.reward, self.cont = (nn.Linear(DETER + FLAT, n) for n in (4, 7, 1))
        self.actor, self.critic = nn.Linear(DETER + FLAT, 2), Critic()

    def observe(self, seen, generator):
        h, z, steps = seen.new_zeros(len(seen), DETER), seen.new_zeros(len(seen), FACTORS, CLASSES), []
        for e in torch.tanh(self.encoder(seen)).unbind(1):
            h = self.sequence(z.flatten(-2), h)
            post = self.posterior(torch.cat([e, h], -1) if self.sees_state else e).unflatten(-1, (FACTORS, CLASSES))
            z = sample(post, generator)
            steps.append((h, z, post, self.prior(h).unflatten(-1, (FACTORS, CLASSES))))
        return [torch.stack(parts, 1) for parts in zip(*steps, strict=True)]


def kl(left, right):
    left, right = left.log_softmax(-1), right.log_softmax(-1)
    return (left.exp() * (left - right)).sum((-2, -1))


def aligned(toy, var, clock=1, draw=sample, seed=0):
    """L_var (B, T) of a toy on fixed observations."""
    seen = torch.randn(ROWS, LENGTH, 4, generator=torch.Generator().manual_seed(seed))
    h, z, post, prior = toy.observe(seen, torch.Generator().manual_seed(seed + 1))
    other = draw(prior, torch.Generator().manual_seed(seed + 2)) if draw is sample else draw(prior)
    return var(State(h, z), State(h, other), kl(post, prior), clock)


def reached(toy):
    """The parts with any gradient that is not zero."""
    parts = {name: list(part.parameters()) for name, part in toy.named_children()}
    return {n for n, ps in parts.items() if any(p.grad is not None and p.grad.abs().sum() > 0 for p in ps)}


# ---- where gradient goes

PATHS = [
    ("both terms", {}, {"encoder", "posterior", "sequence", "prior"}),
    ("dyn alone", {"rep": 0.0}, {"encoder", "posterior", "sequence", "prior"}),  # by way of earlier samples
    ("rep alone", {"dyn": 0.0}, {"encoder", "posterior", "sequence"}),
    ("dyn alone, h detached", {"rep": 0.0, "detach": ("deter",)}, {"encoder", "posterior", "sequence", "prior"}),
    ("static", {"weight": 0.5}, {"encoder", "posterior", "sequence", "prior"}),
]


@pytest.mark.parametrize("sees_state", [True, False], ids=["recurrent", "parallel"])
@pytest.mark.parametrize("draw", [sample, probabilities])
@pytest.mark.parametrize(("name", "options", "expected"), PATHS, ids=[path[0] for path in PATHS])
def test_gradient_reaches_exactly_these_parts(sees_state, draw, name, options, expected):
    torch.manual_seed(0)
    toy = Toy(sees_state)
    aligned(toy, ValueAlignment(toy.critic, warmup=0, **options), draw=draw).mean().backward()
    assert reached(toy) == expected
    assert all(p.grad is None for p in toy.critic.parameters())


@pytest.mark.parametrize(("options", "expected"), [({"rep": 0.0}, {"prior"}), ({"dyn": 0.0}, {"posterior", "encoder"})])
def test_within_a_step_each_term_moves_its_own_side(options, expected):
    """Of a single first step, where h is the same for everyone, the first term knows the prior and the second the
    posterior; the sequence model gets what goes through h."""
    torch.manual_seed(0)
    toy = Toy(sees_state=False)
    var = ValueAlignment(toy.critic, warmup=0, detach=("deter",), **options)
    aligned(
        toy, lambda s, p, k, c: var(*(State(x.deter[:, :1], x.stoch[:, :1]) for x in (s, p)), k[:, :1], c)
    ).sum().backward()
    assert reached(toy) - {"sequence"} == expected


def test_the_critic_is_no_part_of_it():
    critic = Critic()
    var = ValueAlignment(critic)
    world = nn.ModuleDict({"var": var})
    assert not list(world.parameters())
    assert set(world.state_dict()) == {"var.updates"}


def test_the_critic_of_this_moment_is_asked():
    """Its parameters change between updates, and nothing of them is kept."""
    critic, var = Critic(), None
    var = ValueAlignment(critic, warmup=0)
    toy = Toy(True)
    before = aligned(toy, var)
    with torch.no_grad():
        critic.out.weight.mul_(3)
    assert not torch.equal(before, aligned(toy, var))


def test_frozen_parameters_stay_as_trainable_as_they_were():
    critic = Critic()
    aligned(Toy(True), ValueAlignment(critic, warmup=0))
    assert all(p.requires_grad for p in critic.parameters())


# ---- values by hand


def hand(weight=None, nats=2.0, **options):
    """Two bins, V(s) = (1/2, 1/2), V(s~) = (9/10, 1/10): the loss (1, 1), and the gradient of both logits."""
    s = torch.zeros(1, 1, 2, dtype=torch.float64, requires_grad=True)
    prior = torch.tensor([[[math.log(0.9), math.log(0.1)]]], dtype=torch.float64, requires_grad=True)
    var = ValueAlignment(nn.Identity(), warmup=0, weight=weight, **options)
    loss = var(s, prior, torch.full((1, 1), nats, dtype=torch.float64), 1)
    return loss.item(), *(g.flatten().tolist() for g in torch.autograd.grad(loss.sum(), [s, prior]))


DISTANCE = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)  # KL[(1/2, 1/2) || (9/10, 1/10)]


@pytest.mark.parametrize(
    ("options", "factor"),
    [
        ({"nats": 2.0}, 0.5),
        ({"nats": 0.3}, 1.0),
        ({"nats": 8.0}, 0.125),
        ({"nats": 8.0, "weight": 0.5}, 0.5),
    ],
)
def test_values_by_hand(options, factor):
    loss, of_posterior, of_prior = hand(**options)
    assert loss == pytest.approx(factor * 0.6 * DISTANCE, abs=1e-12)
    # d KL[sg v || softmax(x)] / dx = softmax(x) - v, and d KL[softmax(x) || sg w] / dx = v (log v - log w - KL)
    assert of_prior == pytest.approx([factor * 0.5 * (0.9 - 0.5), factor * 0.5 * (0.1 - 0.5)], abs=1e-12)
    logs = [math.log(0.5 / 0.9), math.log(0.5 / 0.1)]
    assert of_posterior == pytest.approx([factor * 0.1 * 0.5 * (x - DISTANCE) for x in logs], abs=1e-12)


def test_terms_have_the_scales_given():
    assert hand(dyn=1.0, rep=0.0)[0] == pytest.approx(0.5 * DISTANCE)
    assert hand(dyn=0.0, rep=3.0)[0] == pytest.approx(1.5 * DISTANCE)


def test_a_mean_kl_weighs_all_alike():
    """STORM's free bits are of the batch mean, and so is its beta."""
    one, other = torch.randn(2, 2, 5, 4)
    var = ValueAlignment(nn.Identity(), warmup=0)
    each = var(one, other, torch.full((2, 5), 4.0), 1)
    assert torch.equal(var(one, other, torch.tensor(4.0), 1), each)
    assert var.metrics()["beta"].item() == 0.25


def test_a_mean_kl_and_a_number_give_every_record_its_zero_in_the_warm_up():
    one, other = torch.randn(2, 2, 5, 4)
    for features in (lambda x: x, lambda x: {"deter": x, "stoch": x.unflatten(-1, (2, 2))}):
        loss = ValueAlignment(nn.Identity(), warmup=9)(features(one), features(other), torch.tensor(4.0), 9)
        assert loss.shape == (2, 5) and not loss.any()


def test_metrics_speak_of_the_records_that_count():
    one, other = torch.randn(2, 2, 5, 4)
    weight, nats = torch.ones(2, 5), torch.full((2, 5), 4.0)
    weight[:, 0], nats[:, 0] = 0, 100.0
    var, part = (ValueAlignment(nn.Identity(), warmup=0) for _ in range(2))
    assert var.metrics(weight)["beta"] == var.metrics()["beta"] == 0  # nothing was asked yet
    var(one, other, nats, 1)
    part(one[:, 1:], other[:, 1:], nats[:, 1:], 1)
    torch.testing.assert_close(var.metrics(weight), part.metrics())
    assert var.metrics()["beta"] < 0.21 < var.metrics(weight)["beta"] == 0.25


def test_the_kl_gets_no_gradient():
    nats = torch.full((1, 1), 4.0, requires_grad=True)
    s = torch.randn(1, 1, 3, requires_grad=True)
    ValueAlignment(nn.Identity(), warmup=0)(s, torch.randn(1, 1, 3), nats, 1).sum().backward()
    assert nats.grad is None and s.grad is not None


def test_a_critic_that_is_zero_gives_no_loss_and_no_gradient():
    toy = Toy(True)
    toy.critic = Critic(outscale=0.0)
    loss = aligned(toy, ValueAlignment(toy.critic, warmup=0))
    loss.sum().backward()
    assert not loss.any() and not reached(toy)


def test_the_softmax_is_not_computed_in_half_precision():
    critic = nn.Linear(4, 7)
    with torch.autocast("cpu", torch.bfloat16):
        loss = ValueAlignment(critic, warmup=0)(torch.randn(2, 3, 4), torch.randn(2, 3, 4), torch.ones(2, 3), 1)
    assert loss.dtype == torch.float32


# ---- when it begins


def clocks(steps, updates):
    return SimpleNamespace(steps=torch.tensor(steps), updates=torch.tensor(updates))


@pytest.mark.parametrize(
    ("unit", "clock", "begun"),
    [
        ("steps", 10, False),
        ("steps", 11, True),
        ("steps", torch.tensor(10), False),
        ("steps", torch.tensor(11), True),
        ("steps", clocks(10, 99), False),
        ("steps", clocks(11, 0), True),
        ("updates", clocks(99, 10), False),
        ("updates", clocks(0, 11), True),
        ("updates", SimpleNamespace(steps=99, updates=10), False),
    ],
)
def test_it_begins_after_the_warm_up(unit, clock, begun):
    torch.manual_seed(0)
    toy = Toy(True)
    var = ValueAlignment(toy.critic, warmup=10, unit=unit)
    loss = aligned(toy, var, clock)
    assert bool((loss > 0).any()) is begun
    if not begun:
        assert not loss.any()
    found = {name: value.item() for name, value in var.metrics().items()}
    assert found["updates"] == begun
    assert (0 < found["beta"] <= 1) is begun and (found["distance"] > 0) is begun


def trained(with_var, clock_of, warmup, sees_state=True, updates=6):
    torch.manual_seed(0)
    toy = Toy(sees_state)
    var = ValueAlignment(toy.critic, warmup=warmup)
    world = [p for n, part in toy.named_children() if n not in ("actor", "critic") for p in part.parameters()]
    optimiser = torch.optim.Adam(world, lr=1e-2)
    own = torch.Generator().manual_seed(7)
    for update in range(updates):
        seen = torch.randn(ROWS, LENGTH, 4)
        h, z, post, prior = toy.observe(seen, None)
        loss = (toy.decoder(torch.cat([h, z.flatten(-2)], -1)) - seen).square().sum(-1)
        loss = loss + kl(post.detach(), prior).clamp(min=0.1) + 0.1 * kl(post, prior.detach()).clamp(min=0.1)
        if with_var:
            loss = loss + var(State(h, z), State(h, sample(prior, own)), kl(post, prior), clock_of(update))
        optimiser.zero_grad()
        loss.mean().backward()
        optimiser.step()
    return toy.state_dict()


@pytest.mark.parametrize("sees_state", [True, False])
@pytest.mark.parametrize("clock_of", [lambda n: n, lambda n: clocks(n, 0)], ids=["number", "tensor"])
def test_training_before_the_warm_up_ends_equals_the_baseline_bit_by_bit(clock_of, sees_state):
    baseline = trained(False, clock_of, 5, sees_state)
    same, later = trained(True, clock_of, 5, sees_state), trained(True, clock_of, 4, sees_state)
    assert all(torch.equal(baseline[name], same[name]) for name in baseline)
    assert any(not torch.equal(baseline[name], later[name]) for name in baseline)


def test_a_value_that_is_not_finite_during_the_warm_up_is_not_returned():
    critic = nn.Linear(4, 3)
    with torch.no_grad():
        critic.weight.fill_(math.inf)
    loss = ValueAlignment(critic, warmup=10)(
        torch.ones(1, 1, 4), torch.zeros(1, 1, 4), torch.ones(1, 1), torch.tensor(3)
    )
    assert loss.item() == 0


def test_active_updates_are_counted_and_saved():
    toy = Toy(True)
    var = ValueAlignment(toy.critic, warmup=2)
    for now in range(6):
        aligned(toy, var, clocks(now, 0))
    again = ValueAlignment(toy.critic, warmup=2)
    again.load_state_dict(copy.deepcopy(var.state_dict()))
    assert again.metrics()["updates"].item() == 3


# ---- critics that cannot see


class Reads(Critic):
    reads = ("deter",)


def test_a_critic_that_says_it_does_not_read_the_stochastic_state_is_refused_at_once():
    with pytest.raises(BlindCritic, match="reads \\('deter',\\) and not 'stoch'"):
        ValueAlignment(Reads())


@pytest.mark.parametrize("clock", [lambda n: n, lambda n: clocks(n, 0)], ids=["number", "tensor"])
def test_a_critic_that_does_not_see_is_refused_when_the_warm_up_ends(clock):
    toy = Toy(True)
    toy.critic = Critic(sees=False)
    var = ValueAlignment(toy.critic, warmup=2)
    for now in range(3):
        aligned(toy, var, clock(now))
    with pytest.raises(BlindCritic, match="same values"):
        aligned(toy, var, clock(3))


def test_a_critic_that_is_still_zero_is_looked_at_again():
    toy = Toy(True)
    toy.critic = Critic(outscale=0.0, sees=False)
    var = ValueAlignment(toy.critic, warmup=0)
    aligned(toy, var, 1)
    assert not var.probed
    nn.init.normal_(toy.critic.out.weight)
    with pytest.raises(BlindCritic):
        aligned(toy, var, 2)


def test_a_critic_that_sees_is_looked_at_once(monkeypatch):
    toy, asked = Toy(True), []
    var = ValueAlignment(toy.critic, warmup=0)
    probe = ValueAlignment.probe
    monkeypatch.setattr(ValueAlignment, "probe", lambda self, *args: asked.append(1) or probe(self, *args))
    for now in range(1, 4):
        aligned(toy, var, clocks(now, 0))
    assert var.probed and len(asked) == 1


def test_features_without_the_stochastic_state_are_refused():
    critic, h = nn.Linear(4, 3), torch.randn(2, 5, 4)
    with pytest.raises(BlindCritic):
        ValueAlignment(critic, warmup=0)(h, h, torch.full((2, 5), 3.0), 1)
    var = ValueAlignment(critic, warmup=0)
    assert not var(h, h, torch.full((2, 5), 0.01), 1).any()  # a posterior that equals its prior is no fault
    assert not var.probed


def test_what_is_no_module_is_refused():
    with pytest.raises(TypeError, match="must be a torch module"):
        ValueAlignment(lambda features: features)
    with pytest.raises(TypeError, match="detach plain tensors yourself"):
        ValueAlignment(nn.Identity(), warmup=0, detach=("deter",))(*torch.randn(2, 1, 1, 3), torch.ones(1, 1), 1)


# ---- the prior's state


def test_samples_follow_the_probabilities_and_carry_their_gradient():
    logits = torch.tensor([0.0, 1.0, 2.0], requires_grad=True)
    drawn = sample(logits.expand(20_000, 3), torch.Generator().manual_seed(0))
    assert torch.allclose(drawn.detach().mean(0), logits.softmax(-1), atol=0.02)
    assert bool(((drawn == 0) | (drawn == 1)).all())
    weight = torch.tensor([1.0, -2.0, 0.5])
    (mine,) = torch.autograd.grad((drawn * weight).sum(-1).mean(), logits)
    (true,) = torch.autograd.grad((F.softmax(logits, -1) * weight).sum(), logits)
    assert torch.allclose(mine, true, atol=1e-6)


def test_a_generator_of_its_own_leaves_the_others_alone():
    state = torch.get_rng_state()
    one, other = (sample(torch.zeros(50, 4), torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one, other) and torch.equal(torch.get_rng_state(), state)
