"""World model and behaviour together: what gradients reach, what weights do, what a fresh model predicts."""

import copy
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from wm_core import draws
from wm_core.actor_critic import ActorCritic
from wm_core.clock import Clock
from wm_core.distributions import Bernoulli, HardContinue
from wm_core.encoders import MultiDecoder, MultiEncoder
from wm_core.heads import Head, PolicyHead
from wm_core.joint import model_scales, model_update
from wm_core.kl import BalancedKL
from wm_core.observations import Observations
from wm_core.optim import Adam, LaProp, total
from wm_core.rssm import RSSM
from wm_core.twohot import TwoHot
from wm_core.types import Past
from wm_core.world import WorldModel

ROWS, LENGTH, HORIZON = 3, 7, 5
SEEN = Observations(vectors={"vector": 4})


@pytest.fixture
def world():
    torch.manual_seed(0)
    encoder = MultiEncoder(SEEN, units=8, depth=2)
    dynamics = RSSM(deter=16, stoch=(4, 3), embed=encoder.width, action=2, hidden=8, blocks=2)
    widths = dynamics.widths
    return WorldModel(
        encoder=encoder,
        dynamics=dynamics,
        decoder=MultiDecoder(SEEN, widths=widths, units=8, depth=2, blocks=2),
        heads={
            "reward": Head(TwoHot, 255, widths=widths, units=8, layers=1, outscale=0.0),
            "cont": Head(Bernoulli, 1, widths=widths, units=8, layers=1),
        },
        kl=BalancedKL(),
    )


@pytest.fixture
def behaviour(world):
    torch.manual_seed(1)
    widths = world.dynamics.widths
    critic = Head(TwoHot, 255, widths=widths, units=8, layers=2, outscale=1.0)
    return ActorCritic(policy=PolicyHead(discrete=(2,), continuous=0, widths=widths, units=8, layers=2), critic=critic)


@pytest.fixture
def steps():
    torch.manual_seed(2)
    first = torch.zeros(ROWS, LENGTH, dtype=torch.bool)
    first[:, 0] = first[1, 3] = True
    last = torch.zeros_like(first)
    last[1, 2] = True
    return {
        "vector": torch.randn(ROWS, LENGTH, 4),
        "action": torch.nn.functional.one_hot(torch.randint(0, 2, (ROWS, LENGTH)), 2).float() * (~first)[..., None],
        "reward": torch.randn(ROWS, LENGTH) * ~first,
        "first": first,
        "last": last,
        "terminal": last.clone(),
        "weight": torch.ones(ROWS, LENGTH),
    }


def dream_of(world, behaviour, trace):
    return world.dream(world.starts(trace), behaviour.policy, HORIZON)


def gradients(loss, module):
    found = torch.autograd.grad(
        loss, [p for p in module.parameters() if p.requires_grad], allow_unused=True, retain_graph=True
    )
    return [g for g in found if g is not None and g.abs().max() > 0]


def test_losses_are_per_step_and_named(world, steps):
    losses, trace = world.losses(world.prefill(None, ROWS), steps)
    assert losses.keys() == {"obs/vector", "reward", "cont", "dyn", "rep"}
    assert all(loss.shape == (ROWS, LENGTH) for loss in losses.values())
    assert trace.latent.read("deter", "stoch").shape == (ROWS, LENGTH, 28)


def test_what_is_only_measured_is_every_loss_but_the_regularisers_which_are_not_asked(world, steps):
    def losses_of(how):
        with draws.drawing(draws.Generator(3)):
            return how(world.prefill(None, ROWS), steps)[0]

    plain, looked = losses_of(world.losses), losses_of(world.measured)
    assert plain.keys() == looked.keys() and all(map(torch.allclose, plain.values(), looked.values()))
    assert plain["dyn"].requires_grad and not any(loss.requires_grad for loss in looked.values())
    asked = []

    def term(latent, prior, kl, clock):
        asked.append(clock)
        return kl

    world.draw, world._terms = (lambda logits: logits.exp()), {"var": term}  # noqa: SLF001
    assert losses_of(world.losses).keys() == plain.keys() | {"var"} and len(asked) == 1
    assert losses_of(world.measured).keys() == plain.keys() and len(asked) == 1


def test_a_fresh_model_predicts_zero_reward(world, steps):
    _, trace = world.losses(world.prefill(None, ROWS), steps)
    assert world.heads["reward"](trace.latent).mode().abs().max() == 0


@pytest.mark.parametrize(("hard", "discount"), [(False, 0.9), (True, 1.0)])
def test_whether_an_episode_goes_on_is_told_as_a_probability_without_the_discount(world, steps, hard, discount):
    """A head of yes or no has its discount in the mode and none in the target, another one has it in the target."""
    logits = torch.tensor([[-2.0], [0.1], [9.0]])
    world.discount = discount
    world.heads["cont"].forward = lambda latent: HardContinue(logits, 0.9) if hard else Bernoulli(logits)
    expected = (torch.sigmoid(logits[:, 0]) / discount).clamp(max=1)
    torch.testing.assert_close(world.going(None), expected)


def test_behaviour_losses_leave_the_world_alone_and_replay_value_does_not(world, behaviour, steps):
    _, trace = world.losses(world.prefill(None, ROWS), steps)
    dream = dream_of(world, behaviour, trace)
    evaluation = behaviour.evaluate(dream)
    losses = behaviour.losses(dream, evaluation)
    assert all(loss.shape == (ROWS * LENGTH, HORIZON) for loss in losses.values())
    joint = losses["policy"].mean() + losses["value"].mean()
    assert not gradients(joint, world)
    assert gradients(losses["policy"].mean(), behaviour.actor) and not gradients(
        losses["policy"].mean(), behaviour.critic
    )
    assert gradients(losses["value"].mean(), behaviour.critic) and not gradients(
        losses["value"].mean(), behaviour.actor
    )
    replay = behaviour.replay_value(trace, steps, evaluation)["replay_value"]
    assert replay.shape == (ROWS, LENGTH - 1) and replay[1, 2] == 0  # nothing is asked of a last step
    assert gradients(replay.mean(), world.dynamics.cell) and gradients(replay.mean(), behaviour.critic)
    assert all(p.grad is None and not p.requires_grad for p in behaviour.slow.parameters())


@pytest.mark.parametrize("last", [0, 2, 4, 99])
def test_a_dream_from_the_last_steps_is_that_part_of_one_from_all(world, behaviour, steps, last):
    """`dream_last`: states, values and the critic's targets, against a loop over the last steps in float64."""
    _, trace = world.losses(world.prefill(None, ROWS), steps)
    _, every = world.starts(trace)
    _, some = world.starts(trace, last)
    kept = last if 0 < last < LENGTH else LENGTH
    whole = every.deter.unflatten(0, (ROWS, LENGTH))
    assert torch.equal(some.deter.unflatten(0, (ROWS, kept)), whole[:, -kept:])
    dream = world.dream(world.starts(trace, last), behaviour.policy, HORIZON)
    evaluation = behaviour.evaluate(dream)
    found = behaviour.replay_value(trace, steps, evaluation)["replay_value"]
    boot = evaluation.returns[:, 0].double().unflatten(0, (ROWS, kept))
    target = torch.zeros(ROWS, kept, dtype=torch.float64)
    target[:, -1] = boot[:, -1]
    begun = LENGTH - kept
    for t in reversed(range(kept - 1)):
        on = behaviour.lam * (~steps["last"][:, begun + t + 1]).double()
        mixed = (1 - on) * boot[:, t + 1] + on * target[:, t + 1]
        cont = behaviour.discount * (~steps["terminal"][:, begun + t + 1]).double()
        target[:, t] = steps["reward"][:, begun + t + 1] + cont * mixed
    slow = evaluation.slow[:, 0].unflatten(0, (ROWS, kept))[:, :-1]
    value = behaviour.critic(trace.latent)
    both = [TwoHot(value.logits[:, begun:-1]).loss(t.float()) for t in (target[:, :-1], slow)]
    expected = (both[0] + behaviour.slow_weight * both[1]) * ~steps["last"][:, begun:-1]
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert world.metrics(trace, steps, dream)["health/reward_mae"] >= 0


def test_world_losses_leave_the_behaviour_alone(world, behaviour, steps):
    losses, _ = world.losses(world.prefill(None, ROWS), steps)
    loss = total(losses, dict.fromkeys(losses, 1.0))
    assert not gradients(loss, behaviour) and len(gradients(loss, world)) > 20


def test_a_step_of_weight_zero_asks_nothing(world, steps):
    weight = torch.ones(ROWS, LENGTH)
    weight[0, 2] = 0
    with draws.drawing(draws.Fixed()):
        plain, _ = world.losses(world.prefill(None, ROWS), steps)
        weighted, _ = world.losses(world.prefill(None, ROWS), steps | {"weight": weight})
    assert weighted["obs/vector"][0, 2] == 0
    scale = ROWS * LENGTH / (ROWS * LENGTH - 1)
    assert torch.allclose(weighted["obs/vector"][1], plain["obs/vector"][1] * scale, rtol=1e-5)


def test_the_dynamics_follows_reset_and_losses_follow_first(world, steps):
    steps["first"][0, 0] = False
    with draws.drawing(draws.Fixed()):
        past = Past(
            {"/deter": torch.ones(ROWS, 1, 16).half(), "/stoch": torch.zeros(ROWS, 1, 4, dtype=torch.uint8)},
            torch.zeros(ROWS, 1, 2),
            torch.zeros(ROWS, 1, dtype=torch.bool),
            torch.ones(ROWS, 1, dtype=torch.bool),
        )
        carry = world.prefill(past, ROWS)
        kept = world.observe(carry, steps).latent.deter
        cut = world.observe(carry, steps | {"reset": steps["first"] | (torch.arange(LENGTH) == 0)}).latent.deter
        fresh = world.observe(world.prefill(None, ROWS), steps).latent.deter
    assert not torch.allclose(kept[0, 0], cut[0, 0]) and torch.allclose(cut[0, 0], fresh[0, 0], atol=1e-6)
    assert torch.allclose(kept[1], cut[1])


def test_dreams_start_where_they_should_and_carry_no_gradient(world, behaviour, steps):
    _, trace = world.losses(world.prefill(None, ROWS), steps)
    dream = dream_of(world, behaviour, trace)
    assert dream.action.shape == (ROWS * LENGTH, HORIZON, 2) and dream.reward.shape == (ROWS * LENGTH, HORIZON + 1)
    start = trace.latent.read("deter", "stoch").reshape(ROWS * LENGTH, -1)
    assert torch.equal(dream.latent.read("deter", "stoch")[:, 0], start)
    assert not dream.latent.deter.requires_grad and not dream.reward.requires_grad


def test_the_slow_critic_follows_at_its_rate(behaviour):
    before = behaviour.slow.out.weight.clone()
    with torch.no_grad():
        behaviour.critic.out.weight.add_(1.0)
    behaviour.follow()
    assert torch.allclose(behaviour.slow.out.weight, before + 0.02, atol=1e-6)


def test_the_world_model_learns_a_predictable_world(world):
    torch.manual_seed(3)
    action = torch.nn.functional.one_hot(torch.randint(0, 2, (8, 16)), 2).float()
    walk = action[..., 1].cumsum(1)
    steps = {
        "vector": torch.stack([torch.sin(walk * f) for f in (0.5, 1.0, 1.5, 2.0)], -1),
        "action": action,
        "reward": action[..., 1],
        "weight": torch.ones(8, 16),
        **{key: torch.zeros(8, 16, dtype=torch.bool) for key in ("first", "last", "terminal")},
    }
    rule = LaProp(world.parameters(), lr=3e-3)
    history = []
    for _ in range(200):
        losses, _ = world.losses(world.prefill(None, 8), steps)
        rule.step(total(losses, dict.fromkeys(losses, 1.0)))
        history.append({name: loss.mean().item() for name, loss in losses.items()})
    assert history[-1]["obs/vector"] < 0.4 * history[0]["obs/vector"]
    assert history[-1]["reward"] < 0.4 * history[0]["reward"]


def test_missing_heads_are_named(world):
    with pytest.raises(ValueError, match="cont"):
        WorldModel(
            encoder=world.encoder,
            dynamics=world.dynamics,
            decoder=world.decoder,
            heads={"reward": world.heads["reward"]},
            kl=BalancedKL(),
        )


def test_a_step_of_the_model_counts_as_an_update_unless_it_is_said_not_to(world, steps):
    """Counted or not, it is the same step."""
    learned = []
    for counted in (True, False):
        twin = copy.deepcopy(world)
        agent = SimpleNamespace(world=twin, source=draws.Fixed(), computing=nullcontext, clock=Clock())
        scales = model_scales(["vector"])
        model_update(agent, steps, rule=Adam(twin.parameters(), lr=1e-2), scales=scales, counted=counted)
        assert int(agent.clock.updates) == counted
        learned.append(twin.state_dict())
    before = world.state_dict()
    assert all(torch.equal(value, learned[1][name]) for name, value in learned[0].items())
    assert any(not torch.equal(value, before[name]) for name, value in learned[0].items())
