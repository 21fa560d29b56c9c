"""Heads of a team: whom they read, what they share, and that they fit where wm-core's heads do."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from wm_core import RSSM, Clock, Latent, WorldModel, draws
from wm_core.contracts import Head as HeadContract
from wm_core.encoders import MultiDecoder, MultiEncoder
from wm_core.heads import PolicyHead
from wm_core.kl import BalancedKL
from wm_core.learner import trainable
from wm_core.observations import Observations
from wm_core.optim import Adam
from wm_core.testing import assert_same
from wm_marl import AgentTransformer, Interleaved, alone_like, interaction_predictor, team_critic, team_heads
from wm_marl.critic import Squared

B, T, N, D, S, C, A = 2, 4, 3, 8, 2, 3, 5
ROWS = B * N


def mixer(inputs: int = D, mixed: bool = True) -> Any:
    transformer = AgentTransformer(inputs, agents=N, width=16, layers=1, heads=2, hidden=32)
    return transformer if mixed else alone_like(transformer)


def heads(**more: Any) -> dict[str, Any]:
    """None of them predicting zero."""
    torch.manual_seed(0)
    found = team_heads(mixer(), A, units=16, layers=1) if not more else team_heads(**more)
    for head in found.values():
        nn.init.normal_(head.out.weight)
    return found


def latent(*lead: int) -> Latent:
    stoch = torch.eye(C)[torch.randint(C, (*lead, S))]
    return Latent(torch.randn(*lead, D), stoch)


class Counted(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module, self.calls = module, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.module(x)


def counted(found: dict[str, Any]) -> Counted:
    trunk = found["reward"].trunk
    trunk.mix = Counted(trunk.mix)
    return trunk.mix


def test_the_shared_transformer_runs_once_for_all_heads_of_a_latent():
    found, seen = heads(), latent(ROWS, T)
    count = counted(found)
    told = {name: head(seen) for name, head in found.items()}
    assert count.calls == 1
    for name, head in found.items():
        torch.testing.assert_close(told[name].logits, head.from_features(seen.read("deter")).logits)


def test_what_was_kept_is_made_anew_with_gradient_and_when_weights_have_moved():
    found, seen = heads(), latent(ROWS, T)
    count, head = counted(found), found["reward"]
    with torch.no_grad():
        head(seen)
    loss = head(seen).loss(torch.zeros(ROWS, T)).mean()
    assert count.calls == 2
    weight = next(head.trunk.parameters())
    assert torch.autograd.grad(loss, weight, retain_graph=True)[0].abs().sum() > 0
    Adam(head.trunk.parameters(), lr=0.1).step(loss)
    torch.testing.assert_close(head(seen).logits, head.from_features(seen.read("deter")).logits)
    assert count.calls == 4


@pytest.mark.parametrize("lead", [(), (T,)])
def test_heads_hear_of_the_team_at_their_moment_and_of_nobody_else(lead: tuple[int, ...]):
    found, seen = heads(), latent(ROWS, *lead)
    changed = Latent(seen.deter.clone(), seen.stoch)
    at = (1, 2) if lead else (1,)  # agent 1 of team 0, at moment 2
    changed.deter[at] += 1.0
    for head in found.values():
        one, two = (head(x).logits.reshape(ROWS, *lead, -1) for x in (seen, changed))
        moved = (one != two).any(-1)
        expected = torch.zeros(ROWS, *lead, dtype=torch.bool)
        expected[(slice(0, N), *at[1:])] = True
        assert torch.equal(moved, expected)


def test_a_dream_and_its_moments_agree():
    """(M, H+1, D) at once is (M, D) at each step."""
    found, seen = heads(), latent(B * 5 * N, 4)
    for head in found.values():
        whole = head(seen).logits
        for t in range(4):
            torch.testing.assert_close(whole[:, t], head(seen.at(t)).logits)


def test_heads_that_read_stoch_too_need_a_wider_mixer():
    wider = team_heads(mixer(D + S * C), A, units=16, layers=1, reads=("deter", "stoch"))
    seen = latent(ROWS, T)
    other = Latent(seen.deter, seen.stoch.roll(1, -1))
    assert (wider["cont"](seen).logits != wider["cont"](other).logits).any()
    assert (heads()["cont"](seen).logits == heads()["cont"](other).logits).all()


def test_losses_are_of_rows_and_steps_and_masks_allow_something():
    found, seen = heads(), latent(ROWS, T)
    assert found["reward"](seen).loss(torch.ones(ROWS, T)).shape == (ROWS, T)
    assert found["cont"](seen).loss(torch.ones(ROWS, T) * 0.99).shape == (ROWS, T)
    assert found["action_mask"](seen).loss(torch.ones(ROWS, T, A, dtype=torch.bool)).shape == (ROWS, T)
    allowed = found["action_mask"](seen).allowed()
    assert allowed.shape == (ROWS, T, A) and allowed.dtype == torch.bool and allowed.any(-1).all()
    for head in found.values():
        assert isinstance(head, HeadContract)


def test_the_trunk_is_counted_and_saved_once():
    found = nn.ModuleDict(heads())
    own = sum(trainable(found[name].mlp) + trainable(found[name].out) for name in found)
    trunk = trainable(found["reward"].trunk)  # type: ignore[arg-type]
    assert sum(trainable(head) for head in found.values()) == trainable(found) == own + trunk
    assert len(found.state_dict()) == len([*found.named_parameters()])
    other = copy.deepcopy(found)
    assert other["cont"].trunk is other["reward"].trunk is not found["reward"].trunk


@pytest.mark.parametrize("mixed", [True, False])
def test_the_critic_values_every_agent_by_what_all_know(mixed: bool):
    torch.manual_seed(0)
    critic = team_critic(mixer(mixed=mixed), units=16, layers=1)
    seen = latent(ROWS, T)
    assert (critic(seen).mode() == 0).all()
    nn.init.normal_(critic.out.weight)
    changed = Latent(seen.deter.clone(), seen.stoch)
    changed.deter[1] += 1
    moved = (critic(seen).logits != critic(changed).logits).flatten(1).any(-1)
    assert moved.tolist() == ([True] * N if mixed else [False, True, False]) + [False] * N


def test_a_value_by_squared_error():
    critic = team_critic(mixer(), units=16, layers=1, value=Squared)
    nn.init.normal_(critic.out.weight)
    value, targets = critic(latent(ROWS, T)), torch.randn(ROWS, T, 2)
    by_hand = 0.5 * (value.mode() - targets[..., 0]) ** 2 + 2 * (value.mode() - targets[..., 1]) ** 2
    torch.testing.assert_close(value.loss_to(targets, (0.5, 2.0)), by_hand)
    torch.testing.assert_close(value.loss(targets[..., 0]), (value.mode() - targets[..., 0]) ** 2)


def test_a_world_model_of_a_team_learns_and_dreams():
    """All parts together, as an app has them: losses (rows, T) with gradient everywhere, a dream within its own masks."""
    torch.manual_seed(0)
    seen = Observations(vectors={"vector": 6})
    encoder = MultiEncoder(seen, units=16, depth=4)
    prior = interaction_predictor(mixer(), (S, C), units=16, layers=1)
    rssm = RSSM(deter=D, stoch=(S, C), embed=encoder.width, action=A, hidden=8, blocks=2, prior=prior)
    world = WorldModel(
        encoder=encoder,
        dynamics=Interleaved(rssm, N),
        decoder=MultiDecoder(seen, widths=rssm.widths, units=16, depth=4, blocks=2),
        heads=team_heads(mixer(), A, units=16, layers=1),
        kl=BalancedKL(1.0),
    )
    flags = torch.zeros(ROWS, T, dtype=torch.bool)
    steps = {"vector": torch.randn(ROWS, T, 6), "action": torch.zeros(ROWS, T, A), "reward": torch.randn(ROWS, T)}
    steps |= dict.fromkeys(("first", "last", "terminal", "reset"), flags) | {"weight": torch.ones(ROWS, T)}
    steps |= {"action_mask": torch.rand(ROWS, T, A) < 0.5}
    losses, trace = world.losses(world.prefill(None, ROWS), steps, Clock(torch.device("cpu")))
    assert {"reward", "cont", "action_mask"} < losses.keys() and all(x.shape == (ROWS, T) for x in losses.values())
    total = torch.stack([*losses.values()]).sum()
    grads = torch.autograd.grad(total, [*world.parameters()], allow_unused=True)
    unused = [name for (name, _), grad in zip(world.named_parameters(), grads, strict=True) if grad is None]
    assert not unused
    policy = PolicyHead(discrete=(A,), continuous=0, widths=rssm.widths, units=16, layers=1)
    with draws.drawing(draws.Generator(0)):
        dream = world.dream(world.starts(trace), policy, 3)
    assert dream.mask is not None and dream.mask.shape == (ROWS * T, 4, A)
    assert (dream.action.bool() & ~dream.mask[:, :-1]).sum() == 0
    again = world.heads["reward"](Latent(dream.latent.deter, dream.latent.stoch)).mode()
    assert_same(dream.reward, again)
