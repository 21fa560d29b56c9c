"""REINFORCE on lambda returns as STORM has it: no weights along the rollout, and a slow critic's returns as second target.

Sizes: M starts, H horizon.
"""

from __future__ import annotations

import copy
from typing import Literal

import torch
from torch import Tensor, nn
from wm_core.contracts import ActionDistribution, Metrics
from wm_core.health import values
from wm_core.optim import polyak
from wm_core.returns import Percentiles, accumulate
from wm_core.types import Dream, Latent

from storm.heads import StormHead, StormPolicy, SymlogTwoHot


def storm_return(reward: Tensor, cont: Tensor, value: Tensor, lam: float, index: Literal["t", "t+1"]) -> Tensor:
    """G_t = r_{t+1} + c_{t+1} [(1 - lam) V + lam G_{t+1}], G_H = V_H, with V = V_t or V_{t+1}.

    r_{t+1} arrived after action t, the public code's r_t. All inputs (M, H+1), the discount inside cont; -> (M, H).

    >>> numbers = torch.tensor([[9., 1., 2.]]), torch.tensor([[1., 0.5, 0.5]]), torch.tensor([[2., 4., 8.]])
    >>> storm_return(*numbers, 0.5, "t")  # 2 + .5 (.5 * 4 + .5 * 8) = 5, 1 + .5 (.5 * 2 + .5 * 5) = 2.75
    tensor([[2.7500, 5.0000]])
    >>> storm_return(*numbers, 0.5, "t+1")
    tensor([[3.5000, 6.0000]])
    """
    mixed = value[:, :-1] if index == "t" else value[:, 1:]
    return accumulate(reward[:, 1:] + cont[:, 1:] * (1 - lam) * mixed, lam * cont[:, 1:], value[:, -1:])


class StormActorCritic(nn.Module):
    """A `Behaviour` for STORM's own update: policy, critic and slow critic, both losses plain means over a dream.

    Policy loss: -log pi(a) sg((G - V) / max(1, S)) - entropy * H(pi). Value loss: CE(V, G) + CE(V, G_slow), where G_slow
    is the return with the slow critic's values, not its value.
    """

    def __init__(
        self,
        *,
        policy: StormPolicy,
        critic: StormHead[SymlogTwoHot],
        lam: float,
        entropy: float,
        slow_rate: float,
        value_index: Literal["t", "t+1"],
    ) -> None:
        super().__init__()
        self.actor, self.critic = policy, critic
        self.slow = copy.deepcopy(critic).requires_grad_(False)
        self.scale = Percentiles()
        self.lam, self.entropy, self.slow_rate = lam, entropy, slow_rate
        self.value_index: Literal["t", "t+1"] = value_index

    def policy(self, latent: Latent, mask: Tensor | None = None) -> ActionDistribution:
        """See `Behaviour`; ValueError for a mask, which this policy does not know."""
        if mask is not None:
            raise ValueError("this policy knows no action mask")
        return self.actor(latent)

    def losses(self, dream: Dream) -> dict[str, Tensor]:
        """{"policy", "value"}, each (M, H)."""
        return self.evaluate(dream)[0]

    def evaluate(self, dream: Dream) -> tuple[dict[str, Tensor], Metrics]:
        """The losses, each (M, H), and size and spread of what they were made of."""
        features = dream.latent.read(*self.critic.reads).detach()
        policy = self.actor.from_features(dream.latent.read(*self.actor.reads).detach()[:, :-1])
        value = self.critic.from_features(features)
        with torch.no_grad():
            mean, slow = value.mode(), self.slow.from_features(features).mode()
            returns = storm_return(dream.reward, dream.cont, mean, self.lam, self.value_index)
            target = storm_return(dream.reward, dream.cont, slow, self.lam, self.value_index)
            scale = self.scale(returns)
            advantage = (returns - mean[:, :-1]) / scale
        entropy = policy.entropy()
        kept = type(value)(value.logits[:, :-1])
        losses = {
            "policy": -(policy.log_prob(dream.action) * advantage + self.entropy * entropy),
            "value": kept.loss_to(torch.stack([returns, target], -1)),
        }
        metrics = {
            "behaviour/return": returns.mean(),
            "behaviour/return_scale": scale,
            "behaviour/value": mean.mean(),
            "behaviour/slow_value": slow.mean(),
            "behaviour/advantage_std": advantage.std(),
            "behaviour/reward": dream.reward[:, 1:].mean(),
            "behaviour/cont": dream.cont.mean(),
            "behaviour/action_entropy": entropy.detach()[:, 0].mean(),
        }
        return losses, metrics | values(returns, mean[:, :-1])

    def networks(self) -> dict[str, nn.Module]:
        return {"actor": self.actor, "critic": self.critic, "slow": self.slow}

    def follow(self) -> None:
        """Move the slow critic towards the critic."""
        polyak(self.slow, self.critic, self.slow_rate)
