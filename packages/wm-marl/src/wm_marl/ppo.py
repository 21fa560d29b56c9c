"""A finished dream -> advantages -> epochs of clipped steps of policy and critic: PPO as a behaviour (eq. 7 to 9).

Read `wm_marl.plain.ppo` first. Everything is tensors: epochs are unrolled, nothing is read on the host and none ends early,
so that an update with it can be recorded as one graph.
Sizes: M rows of agents, H horizon, F features, A actions.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from wm_core import Dream, Latent, Metrics, health
from wm_core.contracts import ActionDistribution
from wm_core.distributions import sum_of
from wm_core.heads import PolicyHead
from wm_core.optim import Adam, NormClip, polyak
from wm_core.precision import wide
from wm_core.ranks import mean, ranks
from wm_core.returns import gae

from wm_marl.mat import MATPolicy
from wm_marl.mat_critic import EncoderCritic

MEASURED = ("policy", "value", "entropy", "policy_kl", "clipped")  # what an epoch says of itself
TINY = 1e-8  # of the mean weight, so that a dream of the absent alone is no division by zero


def clipped_loss(log_prob: Tensor, old: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """-min(r A, clip(r, 1 - clip, 1 + clip) A) with r = exp(log_prob - old), each (...): eq. 8 without the entropy.

    >>> old, new = torch.zeros(4), torch.tensor([0.5, 2.0, 0.5, 2.0]).log()
    >>> clipped_loss(new, old, torch.tensor([1.0, 1.0, -1.0, -1.0]), 0.2)  # no more is gained beyond 1.2, but lost
    tensor([-0.5000, -1.2000,  0.8000,  2.0000])
    """
    ratio = torch.exp(log_prob - old)
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)


def standardised(value: Tensor, share: Tensor, least: float) -> Tensor:
    """(value - mean) / max(least, deviation), both over the whole batch with `share` (of mean 1) as weight.

    `least` is a floor under the spread: where all advantages are nearly equal, what is left of them is noise, and
    dividing by its own size would make a gradient of it. What weighs nothing counts for nothing.

    >>> standardised(torch.tensor([1.0, 3.0, 99.0]), torch.tensor([1.5, 1.5, 0.0]), 1e-5).tolist()
    [-1.0, 1.0, 97.0]
    """
    centred = value - mean(value * share)
    return centred / mean(centred.square() * share).sqrt().clamp(min=least)


@dataclass(frozen=True)
class Part:
    """Some teams of a dream, with all that rests while policy and critic move. (m, H, ...)."""

    seen: Tensor  # what the policy reads
    features: Tensor  # what the critic reads
    action: Tensor
    advantage: Tensor  # standardised
    targets: Tensor  # (m, H, 1), or (m, H, 2) with the slow critic's values
    share: Tensor  # weight / mean weight
    mask: Tensor | None


class PPO(nn.Module):
    """Policy and critic that take their own steps on a dream, each by an Adam of its own, or both by one.

    An `OptimisingBehaviour`; `rules` are the optimisers, which belong to the learner's state:
    `optimiser=Together(model=..., **behaviour.rules)`.

    Policy: share * (clipped_loss - entropy * H(pi)); critic: share * loss to the lambda return, V + A with V before the first
    epoch. share is the weight over its mean, the weight of a step the product of the continuations that led there, the
    start's included: dreams that began after an end count for nothing. No gradient reaches what the dream was made of.
    A critic that reads several agents at once (`wm_marl.team_critic`) sees those of one moment, as the dream has them.

    Args:
        policy: told of the dream's masks where it has any; a `MATPolicy`, or a PolicyHead.
        critic: a head of scalars; a `mat_critic` is of this policy, whose encoder then runs once an epoch for both.
        agents: N; `chunks` does not part a team.
        lam: of the advantages; the discount is in `dream.cont`.
        clip, epochs, entropy: of PPO.
        actor_lr, critic_lr, bound, eps: of both Adams, `bound` being that of the gradient's norm.
        least: a floor under the spread by which advantages are divided.
        chunks: in how many pieces an epoch is computed, to save memory; the gradient is that of the whole.
        slow_rate: with it, a slow critic follows the critic, which is also drawn to the slow one's values.
        together: one Adam, "behaviour", over policy and critic, with one norm clip and one learning rate, so that
            `critic_lr` must be as `actor_lr`: how MAT is learned, whose encoder serves both.
    """

    def __init__(
        self,
        *,
        policy: PolicyHead | MATPolicy,
        critic: Any,
        agents: int = 1,
        lam: float = 0.95,
        clip: float = 0.2,
        epochs: int = 5,
        entropy: float = 0.01,
        actor_lr: float = 3e-5,
        critic_lr: float = 3e-5,
        bound: float = 100.0,
        eps: float = 1e-5,
        least: float = 1e-5,
        chunks: int = 1,
        slow_rate: float | None = None,
        together: bool = False,
    ) -> None:
        super().__init__()
        if min(epochs, chunks) < 1:
            raise ValueError(f"PPO needs at least one epoch and one chunk, not {epochs} and {chunks}")
        if together and actor_lr != critic_lr:
            raise ValueError(
                f"one optimiser for both has one learning rate: give critic_lr as actor_lr, {actor_lr:g}, not {critic_lr:g}"
            )
        if isinstance(policy, MATPolicy) and policy.agents != agents:
            raise ValueError(f"the policy is of {policy.agents} agents and PPO of {agents}")
        self.common = isinstance(critic, EncoderCritic)
        if self.common and critic.policy is not policy:
            raise ValueError("the critic is on another policy's encoder: make it by mat_critic of this one")
        if self.common and slow_rate is not None:
            raise ValueError(
                "a critic on the policy's encoder has no slow copy, whose encoder nobody would move: leave slow_rate out"
            )
        self.actor, self.critic = policy, critic
        self.slow = None if slow_rate is None else copy.deepcopy(critic).requires_grad_(False)
        self.agents, self.lam, self.clip, self.epochs, self.entropy = agents, lam, clip, epochs, entropy
        self.least, self.chunks, self.slow_rate = least, chunks, slow_rate
        moved = {"actor": (policy.parameters(), actor_lr), "critic": (critic.parameters(), critic_lr)}
        if together:
            moved = {"behaviour": (iter([*policy.parameters(), *critic.parameters()]), actor_lr)}
        self.rules = {name: Adam(params, lr=lr, clip=NormClip(bound), eps=eps) for name, (params, lr) in moved.items()}

    def policy(self, latent: Latent, mask: Tensor | None = None) -> ActionDistribution:
        return self.actor(latent, mask)

    def networks(self) -> Mapping[str, nn.Module]:
        return {"actor": self.actor, "critic": self.critic} | ({} if self.slow is None else {"slow": self.slow})

    @torch.no_grad()
    def follow(self) -> None:
        """Move the slow critic, if there is one, towards the critic; a new order of agents, where the policy has one."""
        if isinstance(self.actor, MATPolicy):
            self.actor.follow()
        if self.slow is not None and self.slow_rate is not None:
            polyak(self.slow, self.critic, self.slow_rate)

    def optimise(self, dream: Dream) -> Metrics:
        """`epochs` steps of policy and critic on a dream. Metrics are of the first epoch where they describe the dream, of
        the last where they say how far the policy has gone from it."""
        parts, metrics = self.prepare(dream)
        old: list[Tensor] = []
        for epoch in range(self.epochs):
            found, measured = self.gradients(parts, old)
            if epoch == 0:
                metrics["behaviour/action_entropy"] = measured["entropy"]
            for name, rule in self.rules.items():
                ranks().average(found[name])
                stepped = rule.apply(found[name])
                metrics |= {f"opt/{key}/{name}": value for key, value in stepped.items()}
            torch.clear_autocast_cache()  # which holds the weights as they were before the step
        metrics |= {"loss/policy": measured["policy"], "loss/value": measured["value"]}
        return metrics | {f"behaviour/{name}": measured[name] for name in ("clipped", "policy_kl")}

    @torch.no_grad()
    def prepare(self, dream: Dream) -> tuple[list[Part], Metrics]:
        """What rests over the epochs, in `chunks` parts; and what a dream says of itself, its steps weighted as they are learned
        from: the critic is never asked what the dead are worth."""
        seen, features = dream.latent.read(*self.actor.reads)[:, :-1], dream.latent.read(*self.critic.reads)
        value = self.values(self.critic, features)
        advantage = gae(wide(dream.reward), wide(dream.cont), value, self.lam)
        returns = advantage + value[:, :-1]
        targets = [returns] if self.slow is None else [returns, self.values(self.slow, features[:, :-1])]
        weight = dream.cont[:, :-1].cumprod(1)
        share = weight / mean(weight).clamp(min=TINY)
        standard = standardised(advantage, share, self.least)
        whole = [seen, features[:, :-1], dream.action, standard, torch.stack(targets, -1), share]
        split: list[Any] = [self.split(one) for one in whole]
        masks = [None] * len(split[0]) if dream.mask is None else self.split(dream.mask[:, :-1])
        parts = [Part(*piece) for piece in zip(*split, masks, strict=True)]
        return parts, {
            "behaviour/return": (returns * share).mean(),
            "behaviour/value": (value[:, :-1] * share).mean(),
            "behaviour/advantage_std": ((advantage - (advantage * share).mean()).square() * share).mean().sqrt(),
            "behaviour/reward": (dream.reward[:, 1:] * share).mean(),
            "behaviour/cont": dream.cont.mean(),
            "behaviour/weight": weight.mean(),
        } | health.values(returns, value[:, :-1], share)

    def values(self, critic: Any, features: Tensor) -> Tensor:
        """The critic's predictions (M, ...), in as many chunks as an epoch."""
        return wide(torch.cat([critic.from_features(part).mode() for part in self.split(features)]))

    def split(self, value: Tensor) -> list[Tensor]:
        """(M, ...) in chunks of whole teams, in as many as there are teams where more are asked for."""
        teams = value.unflatten(0, (-1, self.agents))
        return [part.flatten(0, 1) for part in teams.tensor_split(min(self.chunks, len(teams)))]

    def gradients(self, parts: list[Part], old: list[Tensor]) -> tuple[dict[str, list[Tensor]], Metrics]:
        """Of an epoch's mean loss, by the optimisers' names, each of its parameter's shape (...), and what it was made of.
        `old` takes the first epoch's log-probabilities: the ratio is exactly 1 there, whatever the precision."""
        params = [param for rule in self.rules.values() for param in rule.params]
        total: list[Tensor] = []
        sums: list[Tensor] = []
        count = sum(part.share.numel() for part in parts)
        for at, part in enumerate(parts):
            policy, critic = self.distributions(part)
            log_prob, entropy = policy.log_prob(part.action), policy.entropy()
            if len(old) == at:
                old.append(log_prob.detach())
            surrogate = clipped_loss(log_prob, old[at], part.advantage, self.clip) - self.entropy * entropy
            value = critic.loss_to(part.targets, (1.0,) * part.targets.shape[-1])
            loss = (part.share * (surrogate + value)).sum() / count
            grads = torch.autograd.grad(loss, params, allow_unused=True, materialize_grads=True)
            total = list(torch._foreach_add(total, grads)) if total else list(grads)  # noqa: SLF001
            with torch.no_grad():
                rise = (log_prob - old[at]).expm1()  # ratio - 1
                measured = (surrogate, value, entropy, rise - rise.log1p(), rise.abs() > self.clip)
                sums.append(torch.stack([(part.share * one).sum() for one in measured]) / count)
        metrics = dict(zip(MEASURED, sum_of(sums).unbind(), strict=True))
        apart = iter(total)
        return {name: list(islice(apart, len(rule.params))) for name, rule in self.rules.items()}, metrics

    def distributions(self, part: Part) -> tuple[ActionDistribution, Any]:
        """Of actions and values; what both are made of, if they share it, is made once."""
        if isinstance(self.actor, MATPolicy) and self.common:
            encoded = self.actor.encoded(part.seen)
            return self.actor.from_encoded(encoded, part.mask), self.critic.from_encoded(encoded)
        return self.actor.from_features(part.seen, part.mask), self.critic.from_features(part.features)
