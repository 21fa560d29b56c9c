"""What one update of MAPPO is made of: whose choice counts, what a return crosses, and what each network may see."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from mappo import experience
from mappo.networks import Critic, Sight
from mappo.value_norm import ValueNorm
from torch import Tensor
from wm_core import names
from wm_core.observations import Observations
from wm_core.types import Batch

# ---- acting and learning see the same


@pytest.mark.parametrize("actor", ["mlp", "gru"])
def test_the_ratio_is_one_as_long_as_the_policy_has_not_moved(play: Any, actor: str) -> None:
    """For every choice of every row: also for those of the row's first record, and behind episodes' ends."""
    played = play(rows=3, actor=actor)
    for batch in played.rows:
        whole, _ = played.agent.prepared(batch)
        policy, _ = played.agent.actor(whole, names.notes({name: whole[name] for name in played.agent.stores}))
        real = whole["policy_share"] > 0
        ratio = (policy.log_prob(whole["action"]) - whole["old"]).exp()
        assert real.sum() > 20 and (ratio[real] - 1).abs().max() < 1e-5


def test_a_row_begins_with_what_acting_knew(play: Any) -> None:
    """Of a GRU: before each piece of a row, and before a row that another one precedes."""
    played, span = play(rows=3, actor="gru"), 8
    for number, batch in enumerate(played.rows):
        whole, _ = played.agent.prepared(batch)
        begun = whole[names.NOTE + "hidden"].unflatten(0, (2, -1))  # (B, T / L, N, H)
        for piece in range(2):
            carry = played.carries[number * span + 4 * piece]["hidden"]
            assert torch.equal(begun[:, piece], carry)
    assert played.carries[span]["hidden"].abs().max() > 0


def test_what_is_forbidden_is_never_chosen(play: Any) -> None:
    """By sampling, of 4 agents whose masks change at every step; the environment raises for anything else."""
    played = play(rows=60, options={"agents": 4, "times": "2,3"})
    steps = played.rows[-1].steps
    assert not steps["alive"].all() and not steps["action_mask"].all()


# ---- returns


def table() -> tuple[dict[str, Tensor], Tensor]:
    """One environment of one agent: an episode that ends by termination with record 2, its successor by truncation with
    record 5. Records 3 and 6 are resets."""
    flags = {"first": [0, 0, 0, 1, 0, 0, 1, 0], "last": [0, 0, 1, 0, 0, 1, 0, 0], "terminal": [0, 0, 1, 0, 0, 0, 0, 0]}
    steps = {name: torch.tensor([values], dtype=torch.bool) for name, values in flags.items()}
    reward = torch.tensor([0.0, 1.0, 2.0, 0.0, 4.0, 8.0, 0.0, 16.0])
    value = torch.tensor([10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0])
    return steps | {"reward": reward[None, :, None]}, value[None, :, None]


def test_advantages_by_hand_over_a_termination_and_a_truncation() -> None:
    """Discount and lambda a half. A_1 = 2 - 20: nothing follows a termination; A_4 = 8 + 60/2 - 50: what was seen last is
    worth 60; A_6 = 16 + 80/2 - 70 at the row's end; the others go on with a quarter of their successor's."""
    steps, value = table()
    found = experience.advantages(steps, value, discount=0.5, lam=0.5)[0, :, 0]
    by_hand = {1: -18.0, 0: 1 + 10 - 10 - 18 / 4, 4: -12.0, 3: 4 + 25 - 40 - 12 / 4, 6: -14.0}
    assert {t: found[t].item() for t in by_hand} == by_hand


def test_what_begins_an_episode_was_chosen_by_nobody() -> None:
    """The transitions from 2 to 3 and from 5 to 6 lead from one episode into the next."""
    steps, _ = table()
    steps |= {"alive": torch.ones(1, 8, 1, dtype=torch.bool)}
    for share in experience.weights(steps, dead_values=False):
        assert (share[0, :, 0] > 0).tolist() == [True, True, False, True, True, False, True]
        assert share.mean().item() == pytest.approx(1)


def test_the_value_of_a_missing_transition_moves_nothing(play: Any) -> None:
    """Whatever the critic says, and whatever is noted, of the records after which an episode begins."""
    steps, value = table()
    steps |= {"alive": torch.ones(1, 8, 1, dtype=torch.bool)}
    shares = experience.weights(steps, dead_values=True)
    found = experience.advantages(steps, value, discount=0.9, lam=0.9)
    value = value.clone()
    value[0, 2] = 1000.0  # of a terminal record
    again = experience.advantages(steps, value, discount=0.9, lam=0.9)
    assert torch.equal(found[shares[0] > 0], again[shares[0] > 0])


# ---- the dead


def altered(batch: Batch, agent: Any, change: Any) -> Any:
    """Losses, and gradients of both networks, of a batch in which something of the dead was changed."""
    steps = {name: value.clone() for name, value in batch.steps.items()}
    change(steps, ~steps["alive"])
    agent.norm = ValueNorm()
    whole, _ = agent.prepared(Batch(steps, batch.past, batch.index))
    losses, _ = agent.losses(whole)
    grads = torch.autograd.grad(
        losses["policy"] + losses["value"], [*agent.actor.parameters(), *agent.critic.parameters()]
    )
    return losses, grads


def test_the_dead_have_no_influence_on_any_loss(play: Any) -> None:
    """Their observation, and what is noted of their choice. Of the team's state they see nothing."""
    played = play(rows=4, dead_values=False)
    batch = played.rows[-1]
    assert (~batch.steps["alive"]).any()

    def noise(steps: Any, dead: Tensor) -> None:
        steps["vector"][dead] = 7.0
        steps["/log_prob"][dead] = -3.0

    (plain, grads), (other, others) = (altered(batch, played.agent, one) for one in (lambda *_: None, noise))
    assert {name: loss.item() for name, loss in plain.items()} == {name: loss.item() for name, loss in other.items()}
    assert all(torch.equal(a, b) for a, b in zip(grads, others, strict=True))


def test_the_critic_learns_what_is_left_to_the_dead(play: Any) -> None:
    """With `dead_values`: from an input in which nothing but who they are is left."""
    played = play(rows=4, dead_values=True)
    batch, critic = played.rows[-1], played.agent.critic
    dead = ~batch.steps["alive"]
    who = critic.input(batch.steps)[dead]
    assert not who[:, :-3].any() and (who[:, -3:].sum(-1) == 1).all()
    assert not (experience.weights(batch.steps, dead_values=True)[1] == 0)[
        dead[:, :-1] & ~batch.steps["first"][:, 1:, None]
    ].any()


# ---- what a critic sees


@pytest.fixture
def seen() -> dict[str, Tensor]:
    return {
        "vector": torch.arange(1.0, 13).view(1, 2, 3, 2),
        "state": torch.tensor([[[100.0, 101.0], [102.0, 103.0]]]),
        "alive": torch.tensor([[[True, True, True], [True, False, True]]]),
    }


def critic(**others: Any) -> Critic:
    sight = Sight(Observations(vectors={"vector": 2}), depth=2)
    given: dict[str, Any] = {"agents": 3, "state": 2, "central": True, "identity": True, "units": 8, "layers": 1}
    return Critic(sight, **(given | others))


def test_a_central_critic_sees_the_state_its_own_observation_and_who_it_is(seen: dict[str, Tensor]) -> None:
    assert critic().input(seen)[0].tolist() == [
        [[100, 101, 1, 2, 1, 0, 0], [100, 101, 3, 4, 0, 1, 0], [100, 101, 5, 6, 0, 0, 1]],
        [[102, 103, 7, 8, 1, 0, 0], [0, 0, 0, 0, 0, 1, 0], [102, 103, 11, 12, 0, 0, 1]],
    ]


def test_without_a_state_it_sees_everybody(seen: dict[str, Tensor]) -> None:
    found = critic(state=None, identity=False).input(seen)[0]
    assert found.tolist() == [[[1, 2, 3, 4, 5, 6]] * 3, [[7, 8, 9, 10, 11, 12], [0] * 6, [7, 8, 9, 10, 11, 12]]]


@pytest.mark.parametrize(("state", "central", "others"), [(2, True, True), (None, True, True), (2, False, False)])
def test_the_critic_of_ippo_does_not_know_the_others(
    seen: dict[str, Tensor], state: int | None, central: bool, others: bool
) -> None:
    """Another agent's observation, or the team's state, moves a central critic's value and no other one's."""
    one = critic(state=state, central=central)
    moved = {name: value.clone() for name, value in seen.items()}
    moved["vector"][:, :, 2] *= -1
    moved["state"] *= -1
    change = (one(moved) - one(seen))[0, 0]
    assert bool(change[:2].any()) is others and change[2].abs() > 0


# ---- values in units of the returns


def test_values_are_in_units_of_all_returns_so_far() -> None:
    norm, rng = ValueNorm(), np.random.default_rng(0)
    shown = [rng.normal(5.0, 3.0, 1000) for _ in range(20)]
    for returns in shown:
        norm.follow(torch.tensor(returns, dtype=torch.float32), torch.ones(1000))
    every = np.concatenate(shown)
    centre, spread = norm.real(torch.zeros(())).item(), (norm.real(torch.ones(())) - norm.real(torch.zeros(()))).item()
    assert (centre, spread) == pytest.approx((every.mean(), every.std()), rel=1e-3)
    assert norm.normalised(norm.real(torch.tensor(1.5))).item() == pytest.approx(1.5)
    assert ValueNorm().real(torch.tensor(1.5)).item() == 1.5


# ---- one update once more


def perceptron(weights: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    """LayerNorm, two times [Linear, ReLU, LayerNorm]: one vector."""

    def normed(x: Tensor, at: int) -> Tensor:
        centred = x - x.mean()
        scaled = centred / (centred.square().mean() + 1e-5).sqrt()
        return scaled * weights[f"{name}.{at}.weight"] + weights[f"{name}.{at}.bias"]

    x = normed(x, 0)
    for at in (1, 4):
        x = normed((weights[f"{name}.{at}.weight"] @ x + weights[f"{name}.{at}.bias"]).relu(), at + 2)
    return x


def update_by_loops(agent: Any, steps: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights after one update, from the formulas, one record of one agent at a time."""
    weights = {name: weight.detach().clone().requires_grad_() for name, weight in agent.named_parameters()}
    rows, records, agents = steps["alive"].shape
    everyone = [(b, t, i) for b in range(rows) for t in range(records - 1) for i in range(agents)]
    who = torch.eye(agents, dtype=torch.float64)

    def log_policy(b: int, t: int, i: int) -> Tensor:
        x = steps["vector"][b, t, i]
        x = torch.cat([x, who[i]]) if agent.actor.agents else x
        logits = (
            weights["actor.head.out.weight"] @ perceptron(weights, "actor.body", x) + weights["actor.head.out.bias"]
        )
        allowed = steps["action_mask"][b, t, i]
        total = sum(logit.exp() for logit, may in zip(logits, allowed, strict=True) if may)
        return torch.stack(
            [logit - torch.log(total) if may else logit * 0 for logit, may in zip(logits, allowed, strict=True)]
        )

    def value_of(b: int, t: int, i: int) -> Tensor:
        x = steps["vector"][b, t, i]
        x = torch.cat([steps["state"][b, t], x]) if agent.critic.central else x
        x = x * float(steps["alive"][b, t, i])
        x = torch.cat([x, who[i]]) if agent.critic.identity else x
        return weights["critic.out.weight"][0] @ perceptron(weights, "critic.body", x) + weights["critic.out.bias"][0]

    old_value = {
        (b, t, i): value_of(b, t, i).item() for b in range(rows) for t in range(records) for i in range(agents)
    }
    advantage: dict[tuple[int, int, int], float] = {}
    for b in range(rows):
        for i in range(agents):
            later = 0.0
            for t in reversed(range(records - 1)):
                goes_on = 0.0 if steps["terminal"][b, t + 1] else agent.discount
                ends = bool(steps["last"][b, t + 1])
                error = steps["reward"][b, t + 1, i].item() + goes_on * old_value[b, t + 1, i] - old_value[b, t, i]
                later = error + (0.0 if ends else goes_on * agent.lam * later)
                advantage[b, t, i] = later
    there = [at for at in everyone if not steps["first"][at[0], at[1] + 1]]
    acting = [at for at in there if steps["alive"][at]]
    valued = there if agent.dead_values else acting
    returns = {at: advantage[at] + old_value[at] for at in everyone}
    centre, spread = 0.0, 1.0
    if isinstance(agent.norm, ValueNorm):  # the first returns it is shown
        centre = float(np.mean([returns[at] for at in valued]))
        spread = max(float(np.var([returns[at] for at in valued])), 1e-2) ** 0.5
    mean, deviation = (f([advantage[at] for at in acting]) for f in (np.mean, np.std))
    moments = {name: [torch.zeros_like(w), torch.zeros_like(w)] for name, w in weights.items()}
    for epoch in range(1, agent.epochs + 1):
        policy_loss, value_loss = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        for at in acting:
            b, t, i = at
            logs, chosen = log_policy(*at), int(steps["action"][b, t + 1, i].argmax())
            ratio = (logs[chosen] - steps["/log_prob"][at]).exp()
            a = (advantage[at] - mean) / deviation
            near = ratio.clamp(1 - agent.clip, 1 + agent.clip)
            allowed = steps["action_mask"][at]
            entropy = -sum(one.exp() * one for one, may in zip(logs, allowed, strict=True) if may)
            policy_loss = policy_loss - (torch.minimum(ratio * a, near * a) + agent.entropy * entropy) / len(acting)
        for at in valued:
            value, target = value_of(*at), (returns[at] - centre) / spread
            near = old_value[at] + (value - old_value[at]).clamp(-agent.clip, agent.clip)
            value_loss = value_loss + torch.maximum((value - target) ** 2, (near - target) ** 2) / 2 / len(valued)
        for part, loss in (("actor", policy_loss), ("critic", value_loss)):
            mine = {name: weight for name, weight in weights.items() if name.startswith(part)}
            grads = torch.autograd.grad(loss, list(mine.values()))
            norm = torch.sqrt(sum(grad.square().sum() for grad in grads))
            shorter = min(1.0, 0.5 / (norm.item() + 1e-6))
            for (name, weight), grad in zip(mine.items(), grads, strict=True):
                first, second = moments[name]
                first.mul_(0.9).add_(0.1 * shorter * grad)
                second.mul_(0.999).add_(0.001 * (shorter * grad) ** 2)
                step = first / (1 - 0.9**epoch) / ((second / (1 - 0.999**epoch)).sqrt() + 1e-5)
                weights[name] = (weight - 5e-4 * step).detach().requires_grad_()
    return {name: weight.detach() for name, weight in weights.items()}


@pytest.mark.parametrize(
    "others", [{}, {"critic": "own", "identity": False}, {"dead_values": False, "value_norm": False}]
)
def test_an_update_equals_its_loops_in_float64(play: Any, others: dict[str, Any]) -> None:
    """Returns, norm, shares, epochs, both Adams and the clipped norms, one record of one agent at a time."""
    played = play(rows=2, minibatches=1, epochs=3, clip=1e-4, entropy=0.1, grad_clip=0.5, **others)
    agent, batch = played.agent.double(), played.rows[-1]
    for rule in agent.optimiser.rules.values():
        for moments in (rule.first, rule.second):
            moments[:] = [moment.double() for moment in moments]
        rule.count = rule.count.double()
    steps = {name: value.double() if value.is_floating_point() else value for name, value in batch.steps.items()}
    expected = update_by_loops(agent, steps)
    agent.update(Batch(steps, None, batch.index))
    for name, weight in agent.named_parameters():
        assert (weight.detach() - expected[name]).abs().max() < 1e-12, name
