"""A dream whose rewards and values carry the gradient of its actions, and the policy that learns by it.

DreamerV3 of 2023 has continuous policies learn so, through the dynamics; that of 2025, and `ActorCritic`, by REINFORCE.
Sizes: M starts, H horizon, A action.
"""

from __future__ import annotations

from typing import Protocol, cast

import torch
from torch import Tensor
from torch.utils._pytree import tree_map  # noqa: PLC2701 - torch's own, and it has no other door

from wm_core import draws
from wm_core.actor_critic import ActorCritic, Evaluation
from wm_core.returns import lambda_return
from wm_core.types import Dream, Latent, Start
from wm_core.world import Policy, WorldModel


class Reparametrised(Protocol):
    """A distribution whose sample is a differentiable function of its parameters and of noise."""

    def resampled(self, action: Tensor) -> Tensor:
        """An action (..., A) that it gave, as a function of mean and deviation, the noise of it held: the same numbers, with
        their gradient."""


def dream_by_actions(world: WorldModel, start: tuple[Start, Latent], policy: Policy, horizon: int) -> Dream:
    """`world.dream`, the same numbers from the same draws; latents, rewards and continuations carry the gradient of the
    actions, which are leaves, `Dream.taken`. Each action stands alone: the policy's gradient is not in it, and the policy
    sees states without any, as in the reference.

    What is kept for it is H imagined steps of M rows: many times the memory of a dream without.
    """
    at, latent = tree_map(lambda x: x.detach() if isinstance(x, Tensor) else x, start)
    latents, taken = [latent], []
    with draws.ahead(horizon), torch.enable_grad():
        for _ in range(horizon):
            with torch.no_grad():
                action = policy(latent).sample()
            taken.append(action.requires_grad_())
            at, latent = world.imagine(at, taken[-1])
            latents.append(latent)
        stacked = _stacked(latents)
        reward, cont = world.heads["reward"](stacked).mode(), world.heads["cont"](stacked).mode()
    return Dream(stacked, torch.stack(taken, 1).detach(), reward, cont, taken=tuple(taken))


def _stacked(latents: list[Latent]) -> Latent:
    """Latents (M, ...) of successive steps -> one (M, H, ...), with their gradient."""
    hidden = [one.hidden for one in latents if one.hidden is not None]
    deter, stoch = torch.stack([one.deter for one in latents], 1), torch.stack([one.stoch for one in latents], 1)
    return Latent(deter, stoch, torch.stack(hidden, 1) if hidden else None)


class PathwiseActorCritic(ActorCritic):
    """The policy climbs the advantage through the dynamics: for continuous actions, from dreams by `dream_by_actions`.

    Policy loss: -w [(R - V) / S + entropy * H(pi)], with the gradient that R and V, the start's value as well, have by
    the actions, each a = mean + std * noise. None of it reaches world model or critic.
    """

    def policy_loss(self, dream: Dream, evaluation: Evaluation) -> Tensor:
        if not dream.taken:
            raise ValueError("a pathwise policy learns from dreams that carry the gradient of their actions")
        e = evaluation
        with torch.enable_grad():
            value = self.critic.from_features(dream.latent.read(*self.critic.reads)).mode()
            returns = lambda_return(dream.reward, dream.cont, value, self.lam)
            climbed = e.weight * (returns - value[:, :-1]) / e.scale
            slopes = torch.autograd.grad(climbed.sum(), dream.taken)  # of the actions alone: no weight gets a gradient
        action = cast(Reparametrised, e.policy).resampled(dream.action)
        moved = (torch.stack(slopes, 1) * action).sum(-1)
        return -(climbed.detach() + moved - moved.detach()) - e.weight * self.entropy * e.entropy
