"""REINFORCE with a two-hot critic on lambda returns, scaled by their percentile range: DreamerV3's behaviour.

Sizes: B batch, T time, M starts, H horizon, F features.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from wm_core import health
from wm_core.contracts import ActionDistribution, Metrics, ScalarDistribution
from wm_core.heads import Head, PolicyHead
from wm_core.optim import polyak
from wm_core.ranks import mean
from wm_core.returns import Percentiles, lambda_return, replay_return
from wm_core.twohot import TwoHot
from wm_core.types import Dream, Latent, Steps, Trace


@dataclass(frozen=True)
class Evaluation:
    """What the critic makes of a dream: one value forward serves returns, losses and the replay value."""

    policy: ActionDistribution  # at the first H steps, with the actor's gradient
    entropy: Tensor  # (M, H) of it
    value: ScalarDistribution  # of features, with the critic's gradient
    mean: Tensor  # (M, H+1) that value's prediction, without gradient
    slow: Tensor  # (M, H+1) the slow critic's values
    returns: Tensor  # (M, H) lambda returns
    weight: Tensor  # (M, H) probability that the rollout still goes on
    scale: Tensor  # 0-d


class ActorCritic(nn.Module):
    """A `JointBehaviour`: policy, critic and slow critic of DreamerV3 (Nature 2025, eq. 5 to 7).

    Policy loss, for discrete and continuous actions: -w [log pi(a) sg((R - V) / S) + entropy * H(pi)].
    Value loss: w [CE(R) + slow_weight * CE(V_slow)]. R are lambda returns, S is their running 5th to 95th percentile
    range and at least 1; weights w are products of predicted continuations, the start's included.

    Args:
        policy: latent -> distribution of actions (..., A).
        critic: latent -> distribution of the value; its slow copy begins as it is.
        lam: of the lambda returns, in [0, 1].
        entropy: what a nat of the policy's entropy is worth, in scaled returns.
        discount: of one step, for the replay value alone: a dream's continuations hold theirs.
        slow_rate: by which the slow critic moves to the critic in `follow`, after each update.
        slow_weight: of the loss to the slow critic's values.
    """

    def __init__(
        self,
        *,
        policy: PolicyHead,
        critic: Head[ScalarDistribution],
        lam: float = 0.95,
        entropy: float = 3e-4,
        discount: float = 1 - 1 / 333,
        slow_rate: float = 0.02,
        slow_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.actor, self.critic = policy, critic
        self.slow = copy.deepcopy(critic).requires_grad_(False)
        self.scale = Percentiles()
        self.lam, self.entropy, self.discount = lam, entropy, discount
        self.slow_rate, self.slow_weight = slow_rate, slow_weight

    @classmethod
    def of(
        cls,
        discrete: tuple[int, ...],
        continuous: int,
        *,
        widths: Mapping[str, int],
        units: int,
        layers: int = 3,
        unimix: float = 0.01,
        outscale: float = 0.01,
        reads: tuple[str, ...] = ("deter", "stoch"),
        value: Callable[[Tensor], ScalarDistribution] = TwoHot,
        **numbers: Any,
    ) -> Self:
        """Policy and critic of one size, for actions of `discrete` sizes and `continuous` numbers (see `PolicyHead`), on
        the latent features `reads`, whose sizes `widths` has; the critic's 255 bins begin at zero. value: the critic's
        logits (..., 255) -> their distribution; numbers: `lam` and the other numbers of the class.
        """
        sizes: dict[str, Any] = {"widths": widths, "units": units, "layers": layers, "reads": reads}
        policy = PolicyHead(discrete=discrete, continuous=continuous, unimix=unimix, outscale=outscale, **sizes)
        return cls(policy=policy, critic=Head(value, 255, outscale=0.0, **sizes), **numbers)

    def policy(self, latent: Latent, mask: Tensor | None = None) -> ActionDistribution:
        return self.actor(latent, mask)

    def evaluate(self, dream: Dream) -> Evaluation:
        """Values, returns and weights of a dream, once."""
        with torch.no_grad():  # what the heads of the dream have joined, not joined again
            features, seen = dream.latent.read(*self.critic.reads), dream.latent.read(*self.actor.reads)
        value = self.critic.from_features(features)
        policy = self.actor.from_features(seen[:, :-1], None if dream.mask is None else dream.mask[:, :-1])
        with torch.no_grad():
            slow = self.slow.from_features(features).mode()
            mean = value.mode()
            returns = lambda_return(dream.reward, dream.cont, mean, self.lam)
            weight = dream.cont[:, :-1].cumprod(1)
            scale = self.scale(returns)
        return Evaluation(policy, policy.entropy(), value, mean, slow, returns, weight, scale)

    def losses(self, dream: Dream, evaluation: Evaluation | None = None) -> dict[str, Tensor]:
        """{"policy", "value"}, each (M, H). Gradient reaches policy and critic, never the world model."""
        e = evaluation or self.evaluate(dream)
        value = TwoHot(e.value.logits[:, :-1])
        critic = value.loss_to(torch.stack([e.returns, e.slow[:, :-1]], -1), (1.0, self.slow_weight))
        return {"policy": self.policy_loss(dream, e), "value": e.weight * critic}

    def policy_loss(self, dream: Dream, evaluation: Evaluation) -> Tensor:
        """REINFORCE: (M, H), weighted."""
        e = evaluation
        advantage = (e.returns - e.mean[:, :-1]) / e.scale
        return e.weight * -(e.policy.log_prob(dream.action) * advantage + self.entropy * e.entropy)

    def replay_value(self, trace: Trace, steps: Steps, evaluation: Evaluation) -> dict[str, Tensor]:
        """{"replay_value": (B, K-1)}: the critic on replayed latents, its gradient reaching the world model too.

        The evaluation must come from a dream that started at the last K > 1 steps of every row of the trace.
        """
        returns = evaluation.returns[:, 0].unflatten(0, (len(steps["reward"]), -1))
        slow = evaluation.slow[:, 0].view_as(returns)
        reward, last, terminal = (steps[name][:, -returns.shape[1] :] for name in ("reward", "last", "terminal"))
        target = replay_return(reward, last, terminal, returns, discount=self.discount, lam=self.lam)
        features = trace.latent.read(*self.critic.reads)[:, -returns.shape[1] : -1]
        value = self.critic.from_features(features)
        loss = value.loss_to(torch.stack([target, slow[:, :-1]], -1), (1.0, self.slow_weight))
        weight = (steps["weight"] / mean(steps["weight"]))[:, -returns.shape[1] : -1]
        return {"replay_value": ~last[:, :-1] * weight * loss}

    def networks(self) -> dict[str, nn.Module]:
        return {"actor": self.actor, "critic": self.critic, "slow": self.slow}

    def follow(self) -> None:
        """Move the slow critic towards the critic."""
        polyak(self.slow, self.critic, self.slow_rate)

    @torch.no_grad()
    def metrics(self, dream: Dream, evaluation: Evaluation) -> Metrics:
        """Size and spread of returns, advantages and values, and how random the policy still is."""
        e = evaluation
        value = e.mean[:, :-1]
        advantage = (e.returns - value) / e.scale
        return {
            "behaviour/return": e.returns.mean(),
            "behaviour/return_scale": e.scale,
            "behaviour/value": value.mean(),
            "behaviour/slow_value": e.slow.mean(),
            "behaviour/advantage_std": advantage.std(),
            "behaviour/reward": dream.reward[:, 1:].mean(),
            "behaviour/cont": dream.cont.mean(),
            "behaviour/weight": e.weight.mean(),
            "behaviour/action_entropy": e.entropy[:, 0].mean(),
        } | health.values(e.returns, value)
