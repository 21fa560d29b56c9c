"""What places of a view hear of agents: against a loop over places and agents, and whom they may hear."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from wm_core.patch_latents import PatchCell, PatchPosterior, PatchPrior
from wm_core.rssm import RSSM
from wm_marl import AcrossAgents, AgentTransformer, PlacesAsk, PlacesHearOne

B, T, N, S, J, I, D, H = 2, 3, 3, 5, 4, 6, 8, 2


def asked() -> tuple[PlacesAsk, Tensor, Tensor]:
    torch.manual_seed(0)
    return (
        PlacesAsk(J, I, width=D, heads=H).double(),
        torch.randn(T, B, N, S, J).double(),
        torch.randn(T, B, N, I).double(),
    )


def test_what_a_place_hears_is_a_loop_over_agents() -> None:
    made, places, tokens = asked()
    found = made(places, tokens)
    for t, b, i, s in ((0, 0, 0, 0), (2, 1, 2, 4), (1, 0, 1, 3)):
        query = made.queries(places[t, b, i, s])
        keys, values = made.keys_values(tokens[t, b]).chunk(2, -1)  # (N, D) each
        heard = []
        for head in range(H):
            of = slice(head * D // H, (head + 1) * D // H)
            scores = torch.stack([query[of] @ keys[j, of] for j in range(N)]) / (D // H) ** 0.5
            heard.append(sum(scores.softmax(0)[j] * values[j, of] for j in range(N)))
        assert torch.allclose(found[t, b, i, s], torch.cat(heard), atol=1e-12)  # type: ignore[arg-type]


def test_a_place_hears_its_own_team_at_its_own_moment_and_asks_for_itself() -> None:
    made, places, tokens = asked()
    was = made(places, tokens)
    tokens[1, 0, 2] += 1
    changed = (made(places, tokens) - was).abs().amax(-1) > 1e-12
    assert changed[1, 0].all() and changed.sum() == N * S  # every place of every agent of that team
    was = made(places, tokens)
    places[1, 0, 2, 3] += 1
    changed = (made(places, tokens) - was).abs().amax(-1) > 1e-12
    assert changed[1, 0, 2, 3] and changed.sum() == 1


def test_who_stands_elsewhere_in_the_team_is_heard_alike() -> None:
    made, places, tokens = asked()
    order = [2, 0, 1]
    assert torch.allclose(made(places, tokens)[:, :, order], made(places[:, :, order], tokens[:, :, order]), atol=1e-12)


def test_in_the_ablation_a_place_hears_its_own_agent_alone() -> None:
    torch.manual_seed(0)
    made, places, tokens = PlacesHearOne(J, I, width=D), torch.randn(B, N, S, J), torch.randn(B, N, I)
    found = made(places, tokens)
    for s in range(S):
        assert torch.equal(found[:, :, s], made.values(tokens))


def test_a_width_that_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="9 features cannot be split among 2 attention heads"):
        PlacesAsk(J, I, width=9, heads=2)


# a world of 4x4 places: each of three agents sees the others' sprites, which go up, down, left, right or stay as those do
TEAM, SIDE, MOVES = 3, 4, torch.tensor([[0, 0], [0, 1], [0, -1], [1, 0], [-1, 0]])
PLACES, CLASSES = SIDE * SIDE, TEAM + 1


def episodes(teams: int, length: int, seed: int) -> tuple[Tensor, Tensor]:
    """What stands in each place, one-hot (teams * TEAM, T, PLACES * CLASSES), and the actions (teams * TEAM, T, 5) that led
    there. Nobody sees itself, and of two in one place the later one is seen."""
    random = torch.Generator().manual_seed(seed)
    action = torch.randint(len(MOVES), (teams, TEAM, length), generator=random)
    at = torch.randint(SIDE, (teams, TEAM, 1, 2), generator=random) + MOVES[action].cumsum(2)
    place = (at % SIDE * torch.tensor([SIDE, 1])).sum(-1)  # (teams, TEAM, T)
    seen = torch.zeros(teams, TEAM, length, PLACES, dtype=torch.long)
    for viewer in range(TEAM):
        for other in range(TEAM):
            if other != viewer:
                seen[:, viewer].scatter_(-1, place[:, other, :, None], 1 + other)
    return F.one_hot(seen, CLASSES).float().flatten(0, 1).flatten(-2), F.one_hot(action, len(MOVES)).float().flatten(
        0, 1
    )


class Certain(nn.Module):
    """Logits of a posterior that knows what is seen, so that the prior alone learns."""

    def forward(self, seen: Tensor) -> Tensor:
        return 30 * seen


def surprise(hearing: Any, updates: int = 300) -> tuple[float, float]:
    """Nats by which a prior is wrong on episodes that it did not learn from, and where the others' actions are not theirs."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"grid": (SIDE, SIDE), "classes": CLASSES, "features": 8}
    cell = PatchCell(16, action=len(MOVES), hidden=16, blocks=2, **sizes)
    mixer = AgentTransformer(cell.deter, agents=TEAM, width=32, layers=1, heads=2, hidden=32)
    prior = PatchPrior(16, units=32, hidden=16, layers=1, mixer=mixer, hearing=hearing, **sizes)
    posterior = PatchPosterior(PLACES * CLASSES, places=PLACES, classes=CLASSES, units=8)
    posterior.layers = nn.Sequential(Certain())
    model = RSSM(
        deter=cell.deter, stoch=(PLACES, CLASSES), embed=PLACES * CLASSES, action=len(MOVES), hidden=16, unimix=0.001,
        cell=cell, prior=AcrossAgents(prior, TEAM), posterior=posterior, mode=True,
    )  # fmt: skip

    def wrong(seen: Tensor, action: Tensor) -> Tensor:
        reset = torch.zeros(seen.shape[:2], dtype=torch.bool)
        found = model.observe(model.initial(len(seen)), {"obs": seen}, action, reset).prior
        return -(found.flatten(-2) * seen).sum(-1)[:, 1:]

    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for update in range(updates):
        optimiser.zero_grad()
        wrong(*episodes(16, 5, update)).mean().backward()
        optimiser.step()
    seen, action = episodes(256, 5, 10_000)
    borrowed = action.unflatten(0, (-1, TEAM)).roll(1, 0)
    borrowed[:, 0] = action.unflatten(0, (-1, TEAM))[:, 0]
    with torch.no_grad():
        own, other = (wrong(seen, x)[::TEAM].mean().item() for x in (action, borrowed.flatten(0, 1)))
    return own, other


def test_places_that_ask_learn_whose_action_moves_what_they_see() -> None:
    asking = surprise(partial(PlacesAsk, width=32, heads=2))
    alone = surprise(partial(PlacesHearOne, width=32)), surprise(None)
    assert asking[1] > asking[0] + 1, asking
    for own, borrowed in alone:  # as many updates tell the others nothing yet
        assert asking[0] < own - 0.5 and abs(borrowed - own) < 0.1, (asking, own, borrowed)
