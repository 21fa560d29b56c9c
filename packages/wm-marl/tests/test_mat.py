"""The Multi-Agent Transformer: one after the other is all at once, who moves whom, what is forbidden, and rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from wm_core import Latent, draws
from wm_core.contracts import Head
from wm_core.testing import assert_same
from wm_marl import MATActions, MATPolicy, Squared, mat_critic, plain

pytestmark = pytest.mark.usefixtures("float64")
B, K, N, D, S, C, A = 2, 3, 4, 8, 2, 3, 5
WIDTHS = {"deter": D, "stoch": S * C}
ROWS = B * N
SPECS = {"one": ((A,), 0), "several": ((3, 2), 0), "continuous": ((), 2), "mixed": ((3,), 2)}


def policy(discrete: tuple[int, ...] = (A,), continuous: int = 0, **more: Any) -> MATPolicy:
    """One whose weights are as large as if it had learned something."""
    torch.manual_seed(0)
    sizes = {"agents": N, "width": 16, "blocks": 2, "heads": 2, "hidden": 24} | more
    made = MATPolicy(discrete=discrete, continuous=continuous, widths=WIDTHS, **sizes)
    with torch.no_grad():
        for weight in made.parameters():
            weight.normal_(0, 0.4) if weight.dim() > 1 else weight.add_(0.1 * torch.randn_like(weight))
    return made


def latent(*lead: int) -> Latent:
    return Latent(torch.randn(*lead, D), torch.eye(C)[torch.randint(C, (*lead, S))])


def masks(*lead: int) -> Tensor:
    """Some of them allow one action alone, none none."""
    mask = torch.rand(*lead, A) < 0.5
    return mask | (torch.arange(A) == torch.randint(A, (*lead, 1)))


def drawn(distribution: Any, seed: int = 0) -> Tensor:
    with draws.drawing(draws.Generator(seed)):
        sample: Tensor = distribution.sample().double()
    return sample


@pytest.mark.parametrize("identity", [False, True])
@pytest.mark.parametrize("unimix", [0.0, 0.1])
def test_it_is_the_plain_lines(identity: bool, unimix: float) -> None:
    """Log-probabilities, entropies and gradients of two teams, each agent's turn computed from the beginning."""
    made, seen, mask = policy(unimix=unimix, identity=identity), latent(ROWS), masks(ROWS)
    told = made(seen, mask)
    action = drawn(told)
    found = told.log_prob(action), told.entropy()
    for team in range(B):
        rows = slice(team * N, (team + 1) * N)
        features = seen.read("deter", "stoch")[rows]
        expected = plain.mat(made, features, mask[rows], action[rows])
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one[rows], other, rtol=0, atol=1e-12)
        params = [*made.parameters()]
        mine, theirs = (
            torch.autograd.grad((two[0] * torch.arange(N)).sum() + two[1].sum(), params, retain_graph=True)
            for two in (tuple(one[rows] for one in found), expected)
        )
        for one, other in zip(mine, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-11)


@pytest.mark.parametrize("spec", SPECS)
def test_one_after_the_other_with_a_cache_is_all_at_once(spec: str) -> None:
    """Each agent's turn, from kept keys and values, has the log-probability that the pass over all agents has; and the
    entropy of what was drawn is that of asking about it."""
    discrete, continuous = SPECS[spec]
    made = policy(discrete, continuous)
    mask = torch.rand(B, N, sum(discrete) + continuous) < 0.7
    told = MATActions(made.decoder, torch.randn(B, N, 16), mask)
    action = drawn(told)
    one_by_one = told.entropy()
    at_once = told.log_prob(action)
    torch.testing.assert_close(one_by_one, told.entropy(), rtol=0, atol=1e-12)
    cached, token = made.decoder.cached(told.seen), made.decoder.start(told.seen)
    for agent in range(N):
        one = cached.next(token, mask[:, agent])
        torch.testing.assert_close(one.log_prob(action[:, agent]), at_once[:, agent], rtol=0, atol=1e-12)
        token = F.pad(action[:, agent], (1, 0))
    for temperature in (0.5, 2.0):
        other = told.tempered(temperature).tempered(1 / temperature)
        torch.testing.assert_close(other.log_prob(action), at_once)
        assert (told.tempered(temperature).log_prob(action) != at_once).any()


def test_what_is_drawn_is_drawn_by_its_probability() -> None:
    """Of all 4^2 joint actions of two agents, in 40,000 draws."""
    made = policy((4,), agents=2)
    seen = torch.randn(1, 2, 16).expand(40_000, -1, -1)
    told = MATActions(made.decoder, seen)
    action = drawn(told).argmax(-1)
    counts = torch.bincount(action[:, 0] * 4 + action[:, 1], minlength=16) / len(action)
    every = torch.eye(4)[torch.cartesian_prod(torch.arange(4), torch.arange(4))]
    with torch.no_grad():
        probs = MATActions(made.decoder, seen[:16]).log_prob(every).sum(-1).exp()
    torch.testing.assert_close(probs.sum(), torch.tensor(1.0))
    assert (counts - probs).abs().max() < 0.012  # five deviations of the likeliest that there can be
    first = probs.view(4, 4).sum(1)
    assert (
        probs.view(4, 4) - first[:, None] * probs.view(4, 4).sum(0)
    ).abs().max() > 0.02  # the second heard the first


def test_the_mode_is_each_ones_best_given_those_before() -> None:
    told = MATActions(policy().decoder, torch.randn(B, N, 16), masks(B, N))
    best = told.mode()
    mine = told.log_prob(best)
    for agent in range(N):
        for choice in torch.eye(A):
            other = best.clone()
            other[:, agent] = choice
            assert (told.log_prob(other)[:, agent] <= mine[:, agent] + 1e-12).all()


# ---- who moves whom


def test_an_action_moves_those_after_it_alone() -> None:
    made, seen = policy(), latent(ROWS)
    told = made(seen)
    action = drawn(told)
    before = told.log_prob(action).view(B, N)
    for agent in range(N):
        other = action.view(B, N, A).clone()
        other[0, agent] = other[0, agent].roll(1)
        moved = told.log_prob(other.view(ROWS, A)).view(B, N) != before
        assert moved[0].tolist() == [False] * agent + [True] * (N - agent)
        assert not moved[1].any()


def test_an_observation_moves_all_of_its_team_and_nobody_else() -> None:
    made, seen = policy(), latent(ROWS, K)
    action = drawn(made(seen))
    before = made(seen).log_prob(action)
    for agent in range(N):
        other = Latent(seen.deter.clone(), seen.stoch)
        other.deter[agent, 1] += 1
        moved = made(other).log_prob(action) != before
        assert moved.nonzero().tolist() == [[i, 1] for i in range(N)]


def test_agents_that_change_places_are_told_apart_by_identity_alone() -> None:
    """The encoder's tokens, in another order."""
    tokens, order = torch.randn(B, N, D + S * C), torch.tensor([2, 0, 3, 1])
    for identity in (False, True):
        encoder = policy(identity=identity).encoder
        same = torch.allclose(encoder(tokens[:, order]), encoder(tokens)[:, order], atol=1e-12)
        assert same is not identity


# ---- what is forbidden


def test_what_is_forbidden_is_never_drawn() -> None:
    """10,000 draws of each kind of 4 agents, of weights that want what is forbidden, with the uniform's share."""
    made = policy(unimix=0.3)
    mask = masks(1, N).expand(2500, -1, -1)
    told = MATActions(made.decoder, torch.randn(2500, N, 16), mask)
    for one in (drawn(told), told.mode(), drawn(told.tempered(5.0)), drawn(told.tempered(0.2))):
        assert one.shape == (2500, N, A) and (one.sum(-1) == 1).all()
        assert not (one.bool() & ~mask).any()
        assert torch.isfinite(told.log_prob(one)).all()
    assert (drawn(told).mean(0) > 0).equal(mask[0])  # and all else is


def test_one_agent_is_a_team() -> None:
    made = policy(agents=1, order="random")
    made.follow()
    seen, mask = latent(3, K), masks(3, K)
    told = made(seen, mask)
    action = drawn(told)
    assert action.shape == (3, K, A) and not (action.bool() & ~mask).any()
    torch.testing.assert_close(told.log_prob(action).exp().max(), told.log_prob(told.mode()).exp().max())
    for row in range(3):
        features = seen.read("deter", "stoch")[row, :1]
        assert torch.allclose(
            plain.mat(made, features, mask[row, :1], action[row, :1])[0], told.log_prob(action)[row, :1]
        )


def test_an_entropy_of_nothing_is_a_sentence() -> None:
    told = policy()(latent(ROWS))
    with pytest.raises(ValueError, match="ask log_prob of some actions first, or sample"):
        told.entropy()
    told.mode()
    assert not told.entropy().requires_grad
    told.log_prob(torch.eye(A)[torch.zeros(ROWS, dtype=torch.long)])
    assert told.entropy().requires_grad


def test_the_entropy_of_what_is_drawn_is_that_of_the_team_in_the_mean() -> None:
    made = policy((3,), agents=2)
    seen = torch.randn(1, 2, 16)
    every = torch.eye(3)[torch.cartesian_prod(torch.arange(3), torch.arange(3))]
    with torch.no_grad():
        log = MATActions(made.decoder, seen.expand(9, -1, -1)).log_prob(every).sum(-1)
        told = MATActions(made.decoder, seen.expand(20_000, -1, -1))
        drawn(told)
        assert abs(told.entropy().sum(-1).mean() + (log.exp() * log).sum()) < 0.02


# ---- rows and their order


@pytest.mark.parametrize("order", ["fixed", "random"])
@pytest.mark.parametrize("lead", [(), (K,), (K, 2)])
def test_rows_are_teams_of_neighbours(order: str, lead: tuple[int, ...]) -> None:
    """Rows b*N + i with whatever follows: each team and moment by itself has what it has among all."""
    made = policy(order=order)
    with draws.drawing(draws.Generator(5)):
        made.follow()
    code = torch.arange(ROWS * torch.Size(lead).numel()).view(ROWS, *lead)  # each (b, i, t) another
    deter = (code[..., None] * torch.arange(1, D + 1)).sin()
    seen = Latent(deter, torch.eye(C)[(code[..., None] + torch.arange(S)) % C])
    mask = masks(ROWS, *lead)
    told = made(seen, mask)
    action = drawn(told)
    log_prob, entropy = told.log_prob(action), told.entropy()
    assert action.shape == (ROWS, *lead, A) and log_prob.shape == entropy.shape == (ROWS, *lead)
    assert not (action.bool() & ~mask).any()
    places = [divmod(at, 2) if len(lead) == 2 else (at,) * len(lead) for at in range(torch.Size(lead).numel())]
    for team in range(B):
        for place in places:
            here = (slice(team * N, (team + 1) * N), *place)
            alone = made(Latent(seen.deter[here], seen.stoch[here]), mask[here])
            torch.testing.assert_close(alone.log_prob(action[here]), log_prob[here])
            torch.testing.assert_close(alone.entropy(), entropy[here])
    # what is read beforehand, and what is shared with a critic
    features = seen.read("deter", "stoch")
    assert_same(made.from_features(features, mask).log_prob(action), log_prob)
    assert_same(made.from_encoded(made.encoded(features), mask).log_prob(action), log_prob)


def test_a_random_order_is_one_for_all_until_the_next_update() -> None:
    """It is who hears whom: in an order p, agent p[j] moves agents p[j], p[j + 1], ... alone."""
    made, seen = policy(order="random"), latent(ROWS)
    found = []
    with draws.drawing(draws.Generator(3)):
        for _ in range(12):
            made.follow()
            assert made.order is not None
            order = made.order.order.tolist()
            found.append(tuple(order))
            told = made(seen)
            action = told.sample().double()
            drawn_entropy = told.entropy()
            before = told.log_prob(action)
            torch.testing.assert_close(told.entropy(), drawn_entropy, rtol=0, atol=1e-12)
            for place, agent in enumerate(order):
                other = action.clone()
                other[agent] = other[agent].roll(1)
                moved = made(seen).log_prob(other) != before
                assert {i for i in range(N) if moved[i]} == set(order[place:])
                assert not moved[N:].any()
    assert len(set(found)) > 6 and all(sorted(order) == [*range(N)] for order in found)


def test_agents_in_another_order_are_the_plain_lines_in_that_order() -> None:
    """What each sees, may do and does goes along, and comes back to its row."""
    made, seen, mask = policy(order="random"), latent(ROWS), masks(ROWS)
    with draws.drawing(draws.Generator(5)):
        made.follow()
    assert made.order is not None and (made.order.order.argsort() != made.order.order).any()  # not its own inverse
    told = made(seen, mask)
    for action in (drawn(told), told.mode()):
        found, features = told.log_prob(action), seen.read("deter", "stoch")
        for team in range(B):
            rows = made.order.order + team * N
            expected = plain.mat(made, features[rows], mask[rows], action[rows])
            torch.testing.assert_close(found[rows], expected[0], rtol=0, atol=1e-12)
            torch.testing.assert_close(told.entropy()[rows], expected[1], rtol=0, atol=1e-12)
    best = torch.stack([told.log_prob(choice.expand(ROWS, -1)) for choice in torch.eye(A)])
    first = [int(made.order.order[0]) + team * N for team in range(B)]  # who hears nobody, and takes its best
    assert (told.mode().argmax(-1)[first] == best[:, first].argmax(0)).all()


def test_the_order_is_saved_and_stays_where_it_is() -> None:
    made, other = policy(order="random"), policy(order="random")
    assert made.order is not None and other.order is not None
    where = made.order.order.data_ptr()
    with draws.drawing(draws.Generator(1)):
        made.follow()
    assert made.order.order.tolist() != [*range(N)] and made.order.order.data_ptr() == where
    other.load_state_dict(made.state_dict())
    seen = latent(ROWS)
    action = drawn(made(seen))
    assert_same(other(seen).log_prob(action), made(seen).log_prob(action))
    assert not [*policy().buffers()]  # an order that is fixed is no state


def test_an_order_of_another_name_is_a_sentence() -> None:
    with pytest.raises(ValueError, match="fixed or random, not 'sorted'"):
        policy(order="sorted")


def test_rows_that_are_no_teams_are_a_sentence() -> None:
    with pytest.raises(ValueError, match="7 rows are no teams of 4"):
        policy()(latent(7))


def test_heads_that_do_not_divide_the_width_are_a_sentence() -> None:
    with pytest.raises(ValueError, match="16 features cannot be split among 3 attention heads"):
        policy(heads=3)


# ---- the critic on its encoder


@pytest.mark.parametrize("value", [None, Squared])
def test_the_critic_values_every_agent_by_what_all_know(value: Any) -> None:
    made, seen = policy(), latent(ROWS, K)
    critic = mat_critic(made, **({"value": value} if value else {}))
    assert isinstance(critic, Head) and critic.reads == made.reads
    assert (critic(seen).mode() == 0).all() and critic(seen).mode().shape == (ROWS, K)
    nn.init.normal_(critic.out.weight)
    told = critic(seen).mode()
    other = Latent(seen.deter.clone(), seen.stoch)
    other.deter[1, 2] += 1
    assert (critic(other).mode() != told).nonzero().tolist() == [[i, 2] for i in range(N)]
    encoded = made.encoded(seen.read(*made.reads))
    assert_same(critic.from_encoded(encoded).mode(), told)


def test_the_critic_owns_its_head_alone() -> None:
    made = policy()
    critic = mat_critic(made)
    both = nn.ModuleDict({"actor": made, "critic": critic})
    assert len(both.state_dict()) == len({id(p) for p in both.parameters()}) == len([*both.named_parameters()])
    assert not {id(p) for p in critic.parameters()} & {id(p) for p in made.parameters()}
    loss = critic(latent(ROWS)).loss(torch.ones(ROWS)).sum()
    nn.init.normal_(critic.out.weight)
    loss = critic(latent(ROWS)).loss(torch.ones(ROWS)).sum()
    grads = torch.autograd.grad(loss, [*made.encoder.parameters()], allow_unused=True)
    assert all(grad is not None and grad.abs().sum() > 0 for grad in grads)
