"""Modules over rows that mix agents: whom they mix, and that they are their plain lines."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from wm_core.learner import trainable
from wm_marl import AcrossAgents, AgentTransformer, alone_like, interaction_predictor, plain

B, T, N, D = 2, 4, 3, 5


class Sum(nn.Module):
    """Every agent hears the sum of its team."""

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens.sum(-2, keepdim=True).expand_as(tokens)


def coded() -> Tensor:
    """(B*N, T, 1), one bit for each (b, t, i)."""
    return 2.0 ** torch.arange(B * N * T, dtype=torch.float64).view(B * N, T, 1)


def heard(b: int, t: int) -> float:
    return sum(coded()[b * N + i, t, 0].item() for i in range(N))


def test_rows_of_a_team_and_moment_hear_each_other_and_nobody_else():
    sums = AcrossAgents(Sum(), N, rows=0)(coded())
    scanned = AcrossAgents(Sum(), N)(coded().transpose(0, 1).contiguous()).transpose(0, 1)
    single = torch.stack([AcrossAgents(Sum(), N)(coded()[:, t]) for t in range(T)], 1)
    folded = torch.stack([AcrossAgents(Sum(), N, rows=0)(coded()[:, t]) for t in range(T)], 1)
    for b in range(B):
        for i in range(N):
            for t in range(T):
                for found in (sums, scanned, single, folded):
                    assert found[b * N + i, t, 0].item() == heard(b, t)


def test_rows_that_are_no_teams_are_refused():
    with pytest.raises(ValueError, match="4 rows are no teams of 3"):
        AcrossAgents(Sum(), 3)(torch.zeros(7, 4, 5))
    with pytest.raises(ValueError, match="axis 0 or -2, not 1"):
        AcrossAgents(Sum(), 3, rows=1)


def loud(module: Any) -> Any:
    """In float64, no parameter 0 or 1 by chance."""
    for parameter in module.double().parameters():
        nn.init.normal_(parameter, 0, 0.5)
    return module


@pytest.mark.parametrize("identity", [True, False])
def test_the_transformer_is_its_plain_lines(identity: bool):
    torch.manual_seed(0)
    network = loud(AgentTransformer(D, agents=N, width=8, layers=2, heads=2, hidden=12, identity=identity))
    tokens = torch.randn(B, T, N, D, dtype=torch.float64, requires_grad=True)
    outs = [
        network(tokens),
        torch.stack([torch.stack([plain.transformer(network, one) for one in row]) for row in tokens]),
    ]
    pull = torch.randn(outs[0].shape, dtype=torch.float64)
    every = [tokens, *network.parameters()]
    grads = [torch.autograd.grad((out * pull).sum(), every) for out in outs]
    torch.testing.assert_close(outs[0], outs[1], rtol=0, atol=1e-11)
    for fast, straight in zip(*grads, strict=True):
        torch.testing.assert_close(fast, straight, rtol=0, atol=1e-9)


def test_without_identity_agents_that_change_places_change_their_outputs_places():
    torch.manual_seed(0)
    tokens, other = torch.randn(B, N, D, dtype=torch.float64), torch.tensor([2, 0, 1])
    for identity in (False, True):
        network = loud(AgentTransformer(D, agents=N, width=8, layers=2, heads=2, hidden=12, identity=identity))
        gap = (network(tokens)[:, other] - network(tokens[:, other])).abs().max().item()
        assert (gap < 1e-10) == (not identity)


@pytest.mark.parametrize(
    "sizes", [(64, 64, 2, 4, 128), (512, 512, 3, 8, 1024), (128, 128, 1, 4, 256), (128, 64, 3, 2, 64)]
)
@pytest.mark.parametrize("agents", [2, 5, 25])
def test_the_ablation_has_as_many_weights_within_two_percent(agents: int, sizes: tuple[int, ...]):
    inputs, width, layers, heads, hidden = sizes
    mixer = AgentTransformer(inputs, agents=agents, width=width, layers=layers, heads=heads, hidden=hidden)
    alone = alone_like(mixer)
    priors = [interaction_predictor(one, (8, 8), units=64, layers=2) for one in (mixer, alone)]
    assert abs(trainable(alone) / trainable(mixer) - 1) < 0.02
    assert abs(trainable(priors[1]) / trainable(priors[0]) - 1) < 0.02


def test_alone_nobody_hears_of_anybody_but_all_know_who_they_are():
    torch.manual_seed(0)
    mixer = AgentTransformer(D, agents=N, width=8, layers=1, heads=2, hidden=16)
    tokens = torch.randn(B, N, D)
    changed = tokens.clone()
    changed[0, 1] += 1
    for module, others in ((mixer, True), (alone_like(mixer), False)):
        moved = (module(tokens) != module(changed)).any(-1)
        assert moved.tolist() == [[others, True, others], [False, False, False]]
    same = torch.ones(1, N, D)
    told = alone_like(mixer)(same)[0]
    assert (told[0] != told[1]).any() and (told[1] != told[2]).any()


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="10 features cannot be split among 4"):
        AgentTransformer(D, agents=N, width=10, layers=1, heads=4, hidden=8)
