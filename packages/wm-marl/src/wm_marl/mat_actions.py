"""A decoder and what each agent sees -> the distribution of a team's actions, agent after agent.

Sizes: M teams, N agents, D width, A numbers of an action.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F
from wm_core.contracts import ActionDistribution

from wm_marl.order import Order

if TYPE_CHECKING:
    from wm_marl.mat_networks import MATDecoder


class MATActions:
    """The product over agents of p(a_i | what all see, a_0 ... a_(i-1)); an `ActionDistribution` over tokens (..., N).

    It is no product of distributions that are each an agent's own, so that

    - `sample` and `mode` ask one agent after the other, with cached keys and values, and carry no gradient. The mode takes
      each agent's best given those before it, which need not be the team's best.
    - `log_prob` (..., N) is each agent's share of the team's, from one pass over all agents.
    - `entropy` (..., N) is that of each agent's conditional, given what those before it did in the actions that were last
      drawn, taken by `mode` or asked about by `log_prob`: of sampled actions an unbiased **estimate** of the team's entropy,
      and of other actions not even that. It has a gradient where these were asked about.
    - `tempered` tempers every conditional, which is not the team's density to a power.

    Args:
        decoder: a `wm_marl.MATDecoder`.
        seen: (..., N, D), the encoder's, in the order in which agents choose.
        mask: (..., N, A) bool, what may be chosen; the rest has probability exactly 0.
        temperature: of every conditional.
    """

    def __init__(self, decoder: MATDecoder, seen: Tensor, mask: Tensor | None = None, temperature: float = 1.0) -> None:
        self.decoder, self.temperature, self.lead = decoder, temperature, seen.shape[:-1]  # (..., N)
        self.seen = seen.flatten(0, -3) if seen.dim() > 2 else seen[None]  # (M, N, D)
        self.mask = None if mask is None else mask.reshape(*self.seen.shape[:2], -1)
        self._entropy: Callable[[], Tensor] | None = None

    def sample(self) -> Tensor:
        return self._taken(lambda policy: policy.sample())

    def mode(self) -> Tensor:
        return self._taken(lambda policy: policy.mode())

    def tempered(self, temperature: float) -> MATActions:
        mask = None if self.mask is None else self.mask.view(*self.lead, -1)
        return MATActions(self.decoder, self.seen.view(*self.lead, -1), mask, self.temperature * temperature)

    def log_prob(self, action: Tensor) -> Tensor:
        action = action.reshape(*self.seen.shape[:2], -1)
        policy = self._warm(self.decoder(self.seen, action, self.mask))
        self._entropy = policy.entropy
        return policy.log_prob(action).view(self.lead)

    def entropy(self) -> Tensor:
        """See above. Raises ValueError as long as there are no actions by which to take it."""
        if self._entropy is None:
            raise ValueError(
                "the entropy of agents that choose one after the other depends on what they chose: ask log_prob of some "
                "actions first, or sample"
            )
        return self._entropy().view(self.lead)

    def _taken(self, choose: Callable[[ActionDistribution], Tensor]) -> Tensor:
        """One agent's action after the other: (..., N, A)."""
        cached, policies, actions = self.decoder.cached(self.seen), [], []
        token = self.decoder.start(self.seen)  # (M, A + 1)
        for agent in range(self.seen.shape[1]):
            policies.append(self._warm(cached.next(token, None if self.mask is None else self.mask[:, agent])))
            actions.append(choose(policies[-1]))  # (M, A)
            token = F.pad(actions[-1].to(self.seen.dtype), (1, 0))
        self._entropy = lambda: torch.stack([policy.entropy() for policy in policies], -1)
        return torch.stack(actions, 1).view(*self.lead, -1)

    def _warm(self, policy: ActionDistribution) -> ActionDistribution:
        return policy if self.temperature == 1 else policy.tempered(self.temperature)


class Rearranged:
    """An `ActionDistribution` of actions that lie elsewhere: `there` takes (..., N, X) to where the distribution has them,
    `back` is its inverse."""

    def __init__(
        self, inner: ActionDistribution, there: Callable[[Tensor], Tensor], back: Callable[[Tensor], Tensor]
    ) -> None:
        self.inner, self.there, self.back = inner, there, back

    def sample(self) -> Tensor:
        return self.back(self.inner.sample())

    def mode(self) -> Tensor:
        return self.back(self.inner.mode())

    def tempered(self, temperature: float) -> Rearranged:
        return Rearranged(self.inner.tempered(temperature), self.there, self.back)

    def log_prob(self, action: Tensor) -> Tensor:
        return self.back(self.inner.log_prob(self.there(action))[..., None])[..., 0]

    def entropy(self) -> Tensor:
        return self.back(self.inner.entropy()[..., None])[..., 0]


def in_order(decoder: MATDecoder, seen: Tensor, mask: Tensor | None, order: Order | None) -> ActionDistribution:
    """Of agents that choose in the environment's order (None) or another: seen (..., N, D), mask (..., N, A), and what comes
    out, have them in the environment's."""
    if order is None:
        return MATActions(decoder, seen, mask)
    inner = MATActions(decoder, order.there(seen), None if mask is None else order.there(mask))
    return Rearranged(inner, order.there, order.back)
