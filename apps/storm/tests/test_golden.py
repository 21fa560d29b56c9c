"""The agent against a plain loop in the public code's indices, (z_t, a_t) -> h_t, on the same rows and weights.

A plain row of 65 records o_0..o_64 with actions a_0..a_63 taken AT them, rewards r_0..r_63 and ends d_0..d_63 that
followed. (The public code has rows of 64 and so 63 pairs for the KL; the 65th record gives the 64th pair here.)
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from storm.layers import Encoder
from storm.world import rows
from torch import Tensor
from torch.nn import functional as F
from wm_core import draws

ROWS, LENGTH = 2, 64
POSITIONS = {"positions": 64, "length": LENGTH, "batch": ROWS, "dropout": 0.0}


def plain(agent: Any, steps: dict[str, Tensor]) -> dict[str, Tensor]:
    """The shifted row: what was taken at a record and what followed it."""
    return {
        "image": steps["image"],
        "action": steps["action"][:, 1:],
        "reward": steps["reward"][:, 1:],
        "end": steps["terminal"][:, 1:].float(),
    }


def mixed(logits: Tensor, classes: int) -> Tensor:
    """Log-probabilities with one per cent of the uniform."""
    return torch.log(0.99 * logits.unflatten(-1, (-1, classes)).softmax(-1) + 0.01 / classes)


def modes(logp: Tensor) -> Tensor:
    """One-hot modes, straight-through: samples under fixed draws."""
    hard = F.one_hot(logp.argmax(-1), logp.shape[-1]).to(logp.dtype)
    return hard + logp.exp() - logp.exp().detach()


def precise(steps: dict[str, Tensor]) -> dict[str, Tensor]:
    """Every float as float64."""
    return {name: value.double() if value.is_floating_point() else value for name, value in steps.items()}


def kl(left: Tensor, right: Tensor) -> Tensor:
    return (left.exp() * (left - right)).sum((-2, -1))


def transformer(stack: Any, tokens: Tensor) -> Tensor:
    """All tokens through the weights of the stack, attention written out with its causal mask."""
    length, heads = tokens.shape[1], stack.blocks[0].attention.heads
    x = stack.norm(tokens + stack.positions.weight[:length])
    for block in stack.blocks:
        at = block.attention
        q, k, v = (layer(x).unflatten(-1, (heads, -1)).transpose(1, 2) for layer in (at.query, at.key, at.value))
        score = q @ k.mT / q.shape[-1] ** 0.5
        score = score.masked_fill(torch.ones(length, length).triu(1).bool(), -torch.inf)
        heard = at.out((score.softmax(-1) @ v).transpose(1, 2).flatten(-2))
        x = block.norm(x + heard)
        x = block.last(x + block.mlp(x))
    return x


def twohot_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy with a two-hot over 255 even bins of symlog space, one number at a time."""
    losses = []
    width = 40 / 254
    for row, x in zip(logits.reshape(-1, 255), target.flatten().tolist(), strict=True):
        y = (torch.sign(torch.tensor(x)) * torch.log1p(torch.tensor(abs(x)))).item()
        below = min(int((y + 20) / width), 253)
        share = (y + 20) / width - below
        logp = row.log_softmax(-1)
        losses.append(-(1 - share) * logp[below] - share * logp[below + 1])
    return torch.stack(losses).reshape(target.shape)


def plain_losses(agent: Any, row: dict[str, Tensor]) -> dict[str, Tensor]:
    """Every loss as the public code's update computes it, 0-d, from the agent's own weights."""
    world = agent.world
    dynamics, classes = world.dynamics, world.dynamics.shape[1]
    image = row["image"].double() / 255
    embed = world.encoder.convs.convs(image.flatten(0, 1).permute(0, 3, 1, 2)).flatten(1).unflatten(0, image.shape[:2])
    post = mixed(dynamics.posterior(embed), classes)
    z = modes(post)
    tokens = dynamics.token(torch.cat([z[:, :-1].flatten(-2), row["action"]], -1))  # (z_0, a_0) .. (z_63, a_63)
    h = transformer(dynamics.backbone, tokens)
    prior = mixed(dynamics.prior(h), classes)  # of z_1 .. z_64
    pixels = world.decoder.convs(z.flatten(-2))
    reward, end = world.heads["reward"], world.heads["cont"]
    on = end.out(end.layers(h))[..., 0]
    return {
        "obs/image": (pixels - image).square().sum((-3, -2, -1))[:, 1:].mean(),
        "reward": twohot_loss(reward.out(reward.layers(h)), row["reward"]).mean(),
        "cont": F.binary_cross_entropy_with_logits(-on, row["end"]),
        "dyn": kl(post[:, 1:].detach(), prior).mean().clamp(min=1),
        "rep": kl(post[:, 1:], prior.detach()).mean().clamp(min=1),
    }


def gradients(loss: Tensor, module: Any) -> dict[str, Tensor]:
    names, params = zip(*module.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, params, allow_unused=True)
    return {n: torch.zeros_like(p) if g is None else g for n, p, g in zip(names, params, found, strict=True)}


@pytest.mark.parametrize("spread", [1.0, 60.0], ids=["below the free nats", "above"])
def test_losses_and_gradients_of_the_world_model(tiny: Any, steps: Any, spread: float) -> None:
    agent = tiny(**POSITIONS).train().double()
    with torch.no_grad():
        agent.world.dynamics.prior.weight.mul_(spread)
    batch = precise(steps(ROWS, LENGTH + 1))
    with draws.drawing(draws.Fixed()):
        mine, trace = agent.world.losses(agent.world.prefill(None, ROWS), rows(batch), agent.clock)
    theirs = plain_losses(agent, plain(agent, batch))
    assert (theirs["dyn"].item() > 1) is (spread > 1)
    assert int((trace.latent.deter.abs().sum(-1) > 0).sum()) == ROWS * 64  # pairs of posterior and prior
    assert mine.keys() == theirs.keys()
    for name, value in theirs.items():
        assert mine[name].mean().item() == pytest.approx(value.item(), rel=1e-5), name
    scales = {"obs/image": 1.0, "reward": 1.0, "cont": 1.0, "dyn": 0.5, "rep": 0.1}
    one = gradients(torch.stack([scales[n] * v.mean() for n, v in mine.items()]).sum(), agent.world)
    other = gradients(torch.stack([scales[n] * v for n, v in theirs.items()]).sum(), agent.world)
    for name, value in other.items():
        torch.testing.assert_close(one[name], value, rtol=1e-4, atol=1e-6, msg=name)


def plain_dream(agent: Any, row: dict[str, Tensor], horizon: int) -> dict[str, Tensor]:
    """Features 0..H, rewards and ends 0..H-1 of a dream after the row, everything computed anew at each step."""
    world, behaviour = agent.world, agent.behaviour
    dynamics, classes = world.dynamics, world.dynamics.shape[1]
    image = row["image"].double() / 255
    embed = world.encoder.convs.convs(image.flatten(0, 1).permute(0, 3, 1, 2)).flatten(1).unflatten(0, image.shape[:2])
    z = modes(mixed(dynamics.posterior(embed), classes))[:, :-1].flatten(-2)  # the last frame is not looked at
    action, features, rewards, ends, actions = row["action"], [], [], [], []
    for t in range(horizon + 1):
        h = transformer(dynamics.backbone, dynamics.token(torch.cat([z, action], -1)))[:, -1]
        drawn = modes(mixed(dynamics.prior(h), classes)).flatten(-2)
        features.append(torch.cat([drawn, h], -1))
        if t > 0:
            reward, end = world.heads["reward"], world.heads["cont"]
            symlog = reward.out(reward.layers(h)).softmax(-1) @ torch.linspace(-20, 20, 255, dtype=h.dtype)
            rewards.append(torch.sign(symlog) * torch.expm1(symlog.abs()))
            ends.append((-end.out(end.layers(h))[:, 0] > 0).to(h.dtype))
        if t < horizon:
            logits = behaviour.actor.out(behaviour.actor.mlp(features[-1]))
            actions.append(F.one_hot(logits.argmax(-1), logits.shape[-1]).to(h.dtype))
            z, action = torch.cat([z, drawn[:, None]], 1), torch.cat([action, actions[-1][:, None]], 1)
    stacked = {"features": features, "reward": rewards, "end": ends, "action": actions}
    return {name: torch.stack(values, 1) for name, values in stacked.items()}


def plain_behaviour(agent: Any, dream: dict[str, Tensor]) -> dict[str, Tensor]:
    """Both losses in the public code's words: G_t = r_t + gamma (1 - d_t) [(1 - lam) V_t + lam G_{t+1}]."""
    behaviour, horizon, bins = agent.behaviour, dream["reward"].shape[1], torch.linspace(-20, 20, 255).double()

    def value(head: Any) -> tuple[Tensor, Tensor]:
        logits = head.out(head.layers(dream["features"]))
        mean = logits.softmax(-1) @ bins
        return logits, torch.sign(mean) * torch.expm1(mean.abs())

    def returns(v: Tensor) -> Tensor:
        g = [v[:, -1]]
        for t in reversed(range(horizon)):
            on = 0.985 * (1 - dream["end"][:, t])
            g.append(dream["reward"][:, t] + on * (0.05 * v[:, t] + 0.95 * g[-1]))
        return torch.stack(g[:0:-1], 1)

    logits, v = value(behaviour.critic)
    g, target = returns(v), returns(value(behaviour.slow)[1])
    high, low = torch.quantile(g, 0.95), torch.quantile(g, 0.05)
    scale = (0.01 * (high - low)).clamp(min=1)
    logp = behaviour.actor.out(behaviour.actor.mlp(dream["features"][:, :-1])).log_softmax(-1)
    entropy = -(logp.exp() * logp).sum(-1)
    advantage = ((g - v[:, :-1]) / scale).detach()
    policy = -((logp * dream["action"]).sum(-1) * advantage + 3e-4 * entropy)
    critic = twohot_loss(logits[:, :-1], g.detach()) + twohot_loss(logits[:, :-1], target.detach())
    return {"policy": policy.mean(), "value": critic.mean(), "return": g}


def test_a_dream_and_the_losses_of_the_behaviour(tiny: Any, steps: Any) -> None:
    agent = tiny(positions=64, dream_context=8, horizon=16).eval().double()
    with torch.no_grad():  # rewards and slow values that matter, and ends that happen
        agent.world.heads["reward"].out.weight.mul_(30)
        agent.world.heads["cont"].out.weight.mul_(30)
        torch.nn.init.normal_(agent.behaviour.slow.out.weight, std=0.5)
        end = agent.world.heads["cont"]
    context = precise(steps(6, 9))
    with torch.no_grad():
        middle = plain_dream(agent, plain(agent, context), 16)["features"][
            :, 1:, agent.world.dynamics.widths["stoch"] :
        ]
        end.out.bias.sub_(end.out(end.layers(middle)).mean())
    with draws.drawing(draws.Fixed()):
        with torch.no_grad():
            trace = agent.world.observe(agent.world.prefill(None, 6), context)
            dream = agent.world.dream(agent.world.starts(trace, 1), agent.behaviour.policy, 16)
        losses, metrics = agent.behaviour.evaluate(dream)
    with torch.no_grad():
        theirs = plain_dream(agent, plain(agent, context), 16)
    assert 0 < theirs["end"].mean() < 1
    torch.testing.assert_close(dream.latent.read("stoch", "deter"), theirs["features"], rtol=0, atol=1e-8)
    torch.testing.assert_close(dream.action.double(), theirs["action"])
    torch.testing.assert_close(dream.reward[:, 1:], theirs["reward"])
    torch.testing.assert_close(dream.cont[:, 1:], 0.985 * (1 - theirs["end"]))
    expected = plain_behaviour(agent, theirs)
    for name in ("policy", "value"):
        assert losses[name].mean().item() == pytest.approx(expected[name].item(), rel=1e-5), name
    assert metrics["behaviour/return"].item() == pytest.approx(expected["return"].mean().item(), rel=1e-5)
    names = [n for n, p in agent.behaviour.named_parameters() if p.requires_grad]
    params = [p for p in agent.behaviour.parameters() if p.requires_grad]
    one = torch.autograd.grad(losses["policy"].mean() + losses["value"].mean(), params)
    other = torch.autograd.grad(expected["policy"] + expected["value"], params)
    for name, mine, want in zip(names, one, other, strict=True):
        torch.testing.assert_close(mine, want, rtol=1e-4, atol=1e-7, msg=name)


def test_acting_is_on_the_prior_after_the_last_sixteen_pairs(tiny: Any, steps: Any) -> None:
    """The state at o_t is [prior sample of z_t, h_{t-1}], h_{t-1} from the last 16 pairs with positions from 0."""
    agent = tiny(positions=64, acting_context=16).eval()
    world, dynamics = agent.world, agent.world.dynamics
    record, carry = steps(2, 40), agent.initial(2)
    row = plain(agent, record)
    with torch.no_grad(), draws.drawing(draws.Fixed()):
        for t in range(40):
            trace = world.observe(carry, {name: value[:, t : t + 1] for name, value in record.items()})
            carry, state = trace.carry, world.latest(trace)
            if t == 0:
                assert not state.deter.any()
                continue
            images, begin = row["image"][:, :t].float() / 255, max(0, t - 16)
            embed = world.encoder.convs.convs(images.flatten(0, 1).permute(0, 3, 1, 2)).flatten(1).unflatten(0, (2, t))
            z = modes(mixed(dynamics.posterior(embed), dynamics.shape[1])).flatten(-2)
            tokens = dynamics.token(torch.cat([z, row["action"][:, :t]], -1))[:, begin:]
            h = transformer(dynamics.backbone, tokens)[:, -1]
            torch.testing.assert_close(state.deter, h, rtol=1e-4, atol=1e-5)
            drawn = modes(mixed(dynamics.prior(h), dynamics.shape[1]))
            torch.testing.assert_close(state.stoch, drawn, rtol=1e-4, atol=1e-5)


def test_the_current_frame_does_not_reach_the_policy(tiny: Any, steps: Any) -> None:
    record = steps(1, 6)
    other = record | {"image": record["image"].clone()}
    other["image"][:, -1] = 255 - other["image"][:, -1]
    for act_on, seen in (("prior", False), ("posterior", True)):
        agent = tiny(act_on=act_on).eval()
        agent.world.dynamics.posterior.weight.data.mul_(30)
        with torch.no_grad(), draws.drawing(draws.Fixed()):
            one, two = (agent.world.latest(agent.world.observe(agent.initial(1), s)) for s in (record, other))
        assert bool((one.stoch != two.stoch).any()) is seen
        assert torch.equal(one.deter, two.deter)


def test_a_lost_life_ends_the_return_and_the_first_step_weighs_nothing(steps: Any) -> None:
    record = steps(2, 5) | {"life_loss": torch.tensor([[False] * 5, [False, True, False, False, False]])}
    learned = rows(record)
    assert learned["terminal"][1].tolist() == [False, True, False, False, False]
    assert learned["terminal"][0].equal(record["terminal"][0])
    assert rows(record, ["life_loss"])["terminal"].equal(record["terminal"])  # an observation that is called so
    assert learned["weight"].tolist() == [[0.0, 1.0, 1.0, 1.0, 1.0]] * 2
    assert record["weight"].eq(1).all()


def test_what_the_first_step_predicts_does_not_matter(tiny: Any, steps: Any) -> None:
    agent = tiny(dropout=0.0).train()
    record = steps(2, 9)
    other = record | {"reward": record["reward"].clone(), "terminal": record["terminal"].clone()}
    other["reward"][:, 0], other["terminal"][:, 0] = 7.0, True
    with draws.drawing(draws.Fixed()):
        one, two = (agent.world.losses(agent.initial(2), rows(s), agent.clock)[0] for s in (record, other))
    for name in one:
        assert torch.equal(one[name].mean(), two[name].mean()), name


def test_a_dream_starts_from_contexts_whose_last_frame_is_not_encoded(tiny: Any, steps: Any) -> None:
    """The same starts, draw for draw, as from observing all of it; with posterior states that frame counts."""
    for act_on in ("prior", "posterior"):
        world, found = tiny(act_on=act_on).eval().world, steps(3, 6)
        with torch.no_grad():
            world.dynamics.posterior.weight.normal_(0, 100)  # so that a frame decides its own state
        other = found | {"image": torch.cat([found["image"][:, :-1], 0 * found["image"][:, -1:]], 1)}
        with torch.no_grad():
            results = []
            for trace in (
                lambda: world.observe(world.prefill(None, 3), found),  # noqa: B023
                lambda: world.context(found),  # noqa: B023
                lambda: world.context(other),  # noqa: B023
            ):
                with draws.drawing(draws.Generator(0)):
                    carry, latent = world.starts(trace(), 1)
                    results.append(
                        [latent.deter, latent.stoch, world.dynamics.imagine(carry, found["action"][:, 0])[1].deter]
                    )
        whole, spared, changed = results
        torch.testing.assert_close(spared, whole, rtol=1e-5, atol=1e-6)
        assert all(torch.equal(a, b) for a, b in zip(changed, spared, strict=True)) == (act_on == "prior")


def test_encoding_in_pieces_changes_no_number() -> None:
    encoder, generator = Encoder((32, 32, 3), depth=4).double(), torch.Generator().manual_seed(0)
    frames = torch.randint(256, (3, 60, 32, 32, 3), dtype=torch.uint8, generator=generator)
    for norm in encoder.convs[1::3]:
        norm.weight.data.uniform_(0.5, 2, generator=generator), norm.bias.data.normal_(generator=generator)
    for _ in range(20):
        encoder(frames[:, :10])  # running statistics that are not those of a new layer
    whole = encoder.eval()(frames)  # with gradient: at once
    assert whole.std() > 0.1
    with torch.no_grad():
        torch.testing.assert_close(encoder(frames), whole.detach(), rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(encoder(frames[:, :3]), whole.detach()[:, :3], rtol=1e-9, atol=1e-12)
        trained = encoder.train()(frames)
    assert (trained - whole).abs().max() > 0.01  # in training the norms see this batch
