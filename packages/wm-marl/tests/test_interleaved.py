"""Starts whose agents are neighbours, and the laws of a dynamics of which they are a part."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from wm_core import RSSM, Dream, Dynamics, Latent, Parallel, Trace, draws, health
from wm_core.parallel import GRUBackbone
from wm_core.testing import assert_same, check_dynamics
from wm_marl import AgentTransformer, Interleaved, alone_like, by_moments, by_rows, interaction_predictor

B, N, T, K, D, S, C, E, A = 2, 3, 7, 4, 16, 4, 3, 5, 2
ROWS = B * N


def prior(agents: int = N, mixed: bool = True, rows: int = -2) -> nn.Module:
    mixer = AgentTransformer(D, agents=agents, width=16, layers=1, heads=2, hidden=32)
    return interaction_predictor(mixer if mixed else alone_like(mixer), (S, C), units=16, layers=1, rows=rows)


def rssm(of: nn.Module) -> RSSM:
    return RSSM(deter=D, stoch=(S, C), embed=E, action=A, hidden=8, blocks=2, prior=of)


def given(length: int = T) -> tuple[Tensor, Tensor, Tensor]:
    """embed, action, reset of B teams; team 1 begins anew at step 3."""
    generator = torch.Generator().manual_seed(0)
    reset = torch.zeros(ROWS, length, dtype=torch.bool)
    reset[:, 0] = reset[N:, 3] = True
    embed, action = (torch.randn(ROWS, length, width, generator=generator) for width in (E, A))
    return embed, action * ~reset[..., None], reset


def observe(dynamics: Dynamics, embed: Tensor, upto: int = T) -> Trace:
    _, action, reset = given()
    return dynamics.observe(dynamics.initial(ROWS), {"obs": embed[:, :upto]}, action[:, :upto], reset[:, :upto])


def code(last: int = K) -> Tensor:
    """(M,) in the order of rows, the value 100 b + 10 t + i."""
    b, i, t = torch.meshgrid(torch.arange(B), torch.arange(N), torch.arange(last), indexing="ij")
    return (100 * b + 10 * t + i).flatten()


def test_agents_of_one_moment_are_neighbours():
    moments = by_moments(code(), N, K)
    assert moments.tolist() == [100 * b + 10 * t + i for b in range(B) for t in range(K) for i in range(N)]
    assert torch.equal(by_rows(moments, N, K), code())


@pytest.mark.parametrize("last", [1, K, T])
def test_starts_are_the_last_latents_of_every_agent_at_every_moment(last: int):
    torch.manual_seed(0)
    dynamics = Interleaved(rssm(prior()), N)
    trace = observe(dynamics, given()[0])
    start, latent = dynamics.starts(trace, last)
    row = 0
    for b in range(B):
        for t in range(T - last, T):
            for i in range(N):
                own = trace.latent.at(t)
                for found, there in ((latent.deter, own.deter), (latent.stoch, own.stoch), (start["deter"], own.deter)):
                    assert torch.equal(found[row], there[b * N + i])
                row += 1
    assert row == len(latent.deter)


class Numbered(nn.Module):
    """A dynamics whose trace holds what its starts are made of, as a backbone's `each` would."""

    widths: Any = None
    stores: Any = None

    def starts(self, trace: Trace, last: int) -> tuple[dict[str, object], Latent]:
        rows = trace.latent.deter[:, -last:].flatten(0, 1)
        return {"deep": [rows, {"er": rows + 1}], "none": None}, Latent(rows, rows[..., None], rows + 2)


def test_every_leaf_of_a_start_is_reordered_alike():
    deter = code(T).view(ROWS, T, 1)
    trace = Trace(Latent(deter, deter), deter, deter, None)
    start, latent = Interleaved(Numbered(), N).starts(trace, K)  # type: ignore[arg-type]
    moments = by_moments(code(T).view(ROWS, T)[:, -K:].flatten(), N, K)[:, None]
    assert_same(start, {"deep": [moments, {"er": moments + 1}], "none": None})
    assert latent.hidden is not None and torch.equal(latent.hidden, moments + 2)


def test_a_start_that_is_no_rows_of_tensors_is_refused():
    class Cached(Numbered):
        def starts(self, trace: Trace, last: int) -> tuple[dict[str, object], Latent]:
            return {"cache": object()}, super().starts(trace, last)[1]

    deter = code(T).view(ROWS, T, 1)
    with pytest.raises(TypeError, match="a start of Cached holds object"):
        Interleaved(Cached(), N).starts(Trace(Latent(deter, deter), deter, deter, None), K)  # type: ignore[arg-type]


@pytest.mark.parametrize("last", [1, 3])
def test_imagining_from_a_start_is_imagining_from_the_carry_at_that_moment(last: int, float64: None):
    torch.manual_seed(0)
    dynamics, embed = Interleaved(rssm(prior()), N), given()[0]
    action = torch.randn(B * last * N, A)
    with draws.drawing(draws.Fixed()):
        start, _ = dynamics.starts(observe(dynamics, embed), last)
        dreamed = dynamics.imagine(start, action)[1].read("deter", "stoch").view(B, last, N, -1)
        for t in range(last):
            carry = observe(dynamics, embed, T - last + t + 1).carry
            own = action.view(B, last, N, A)[:, t].reshape(ROWS, A)
            alone = dynamics.imagine(carry, own)[1].read("deter", "stoch").view(B, N, -1)
            torch.testing.assert_close(dreamed[:, t], alone, rtol=0, atol=1e-10)


def test_without_it_a_coupled_prior_mixes_strangers_and_the_law_of_starts_says_so():
    torch.manual_seed(0)
    coupled = rssm(prior(agents=2))
    with pytest.raises(AssertionError, match="imagining from a start differs"):
        check_dynamics(coupled, embed={"obs": E}, action=A)
    with pytest.raises(AssertionError, match=r"row b\*last"):  # the order that teams need is another
        check_dynamics(Interleaved(coupled, 2), embed={"obs": E}, action=A)


def test_one_agent_is_an_rssm_whose_prior_is_that_predictor_on_one_token():
    torch.manual_seed(0)
    told = prior(agents=1)

    class OneToken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = told.module

        def forward(self, deter: Tensor) -> Tensor:
            return self.module(deter[..., None, :])[..., 0, :]

    team, single = Interleaved(rssm(told), 1), rssm(OneToken())
    single.load_state_dict({name.removeprefix("dynamics."): value for name, value in team.state_dict().items()})
    check_dynamics(team, embed={"obs": E}, action=A)
    embed = given()[0]
    with draws.drawing(draws.Fixed()):
        one, two = observe(team, embed), observe(single, embed)
        assert_same([one.prior, one.post, one.latent.deter], [two.prior, two.post, two.latent.deter])
        starts = team.starts(one, K), single.starts(two, K)
        assert_same(*[vars(latent) for _, latent in starts])
        action = torch.randn(ROWS * K, A)
        dreams = [dynamics.imagine(at, action)[1] for dynamics, (at, _) in zip((team, single), starts, strict=True)]
        assert_same(*[vars(latent) for latent in dreams])


@pytest.mark.parametrize("mixed", [True, False])
@pytest.mark.parametrize("kind", ["rssm", "parallel"])
def test_an_observation_moves_its_own_posterior_and_the_prior_of_the_team_alone(kind: str, mixed: bool):
    torch.manual_seed(0)
    if kind == "rssm":
        inner: Dynamics = rssm(prior(mixed=mixed))
    else:
        own = prior(mixed=mixed, rows=0)
        inner = Parallel(GRUBackbone(D), deter=D, stoch=(S, C), embed=E, action=A, hidden=8, prior=own)
    dynamics, embed = Interleaved(inner, N), given()[0]
    changed = embed.clone()
    changed[1, 2] += 3.0  # agent 1 of team 0 sees another thing at step 2
    with draws.drawing(draws.Fixed()):
        was, now = observe(dynamics, embed), observe(dynamics, changed)
    posterior = (was.post != now.post).flatten(2).any(-1).any(1)
    assert posterior.tolist() == [False, True, False, False, False, False]
    moved = (was.prior != now.prior).flatten(2).any(-1)
    assert not moved[:, :3].any()  # not before what follows from it
    assert moved[:, 3:].any(1).tolist() == ([True] * N if mixed else [False, True, False]) + [False] * N


@pytest.mark.parametrize("pieces", [1, 3])
def test_pieces_are_the_whole(pieces: int, float64: None):
    torch.manual_seed(0)
    dynamics = Interleaved(rssm(prior()), N)
    embed, action, reset = given()
    with draws.drawing(draws.Fixed()):
        whole, carry, priors = observe(dynamics, embed), dynamics.initial(ROWS), []
        for at in range(0, T, pieces):
            cut = slice(at, at + pieces)
            trace = dynamics.observe(carry, {"obs": embed[:, cut]}, action[:, cut], reset[:, cut])
            carry = trace.carry
            priors.append(trace.prior)
    torch.testing.assert_close(torch.cat(priors, 1), whole.prior, rtol=0, atol=1e-10)


def test_everything_else_is_the_dynamics_own():
    inner = rssm(prior())
    dynamics = Interleaved(inner, N)
    assert isinstance(dynamics, Dynamics)
    assert dynamics.widths == inner.widths and dynamics.stores == inner.stores
    trace = observe(dynamics, given()[0])
    assert_same(dynamics.stored(trace), inner.stored(trace))
    assert dynamics.left(trace.carry) == inner.left(trace.carry)
    deter = trace.latent.deter[:, 0]
    assert torch.equal(dynamics.prior_logits(deter), inner.prior_logits(deter))


def test_health_reads_a_dream_given_back_by_rows():
    """What was predicted at a start stands beside what arrived there: no error where the model is right."""
    moments = by_moments(code(), N, K).float()[:, None]
    dream = Dream(Latent(moments, moments[..., None]), moments, moments.expand(-1, 3), moments.expand(-1, 3) * 0)
    arrived = code(T).view(ROWS, T)
    steps = {"reward": arrived.float() - 10 * (T - K), "terminal": torch.ones(ROWS, T, dtype=torch.bool)}
    back = by_rows(dream, N, K)
    assert health.dreamed(back, steps, 1.0)["health/reward_mae"].item() == 0
    assert health.dreamed(dream, steps, 1.0)["health/reward_mae"].item() > 1
    assert torch.equal(back.latent.deter[:, 0], code().float())
