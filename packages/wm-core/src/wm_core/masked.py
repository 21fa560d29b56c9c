"""A categorical over the actions that a mask allows: what it forbids has probability exactly 0.

Sizes: K actions.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from wm_core import draws
from wm_core.distributions import OneHot, straight_through, unimix_logits


class MaskedOneHot(OneHot):
    """`OneHot` with the uniform mixed in, then restricted to the actions that `mask` allows, and renormalised: an
    `ActionDistribution`.

    logits (..., K); mask (..., K) bool, True where an action may be chosen. The mask comes after the uniform share, which
    would otherwise give a forbidden action unimix / K. A forbidden action has log-probability finfo.min instead of minus
    infinity, for its products with 0 are to be 0; its probability, and every gradient through it, is exactly 0. Where a
    mask allows nothing, it says nothing, and all are allowed: environments give no such mask, and a predicted one must not
    end in nan.

    >>> dist = MaskedOneHot(torch.zeros(3), torch.tensor([True, False, True]), unimix=0.01)
    >>> dist.logits.exp().tolist(), round(dist.entropy().item(), 4)
    ([0.5, 0.0, 0.5], 0.6931)
    """

    def __init__(self, logits: Tensor, mask: Tensor, unimix: float = 0.0) -> None:
        super().__init__(logits, unimix)
        self.mask = mask | ~mask.any(-1, keepdim=True)

    @cached_property
    def logits(self) -> Tensor:
        """The normalised log-probabilities (..., K) of what is allowed, finfo.min elsewhere."""
        least = torch.finfo(self.raw.dtype).min
        # Without a uniform share what is allowed may be as unlikely as rounding lets it: forbidden logits go first.
        raw = self.raw if self.unimix else self.raw.masked_fill(~self.mask, least)
        allowed = unimix_logits(raw, self.unimix).masked_fill(~self.mask, -torch.inf)
        return (allowed - torch.logsumexp(allowed, -1, keepdim=True)).masked_fill(~self.mask, least)

    def sample(self) -> Tensor:
        """A one-hot sample of what is allowed, with the gradient of the probabilities."""
        return straight_through(self.logits, -draws.exponential(self.raw.shape, self.raw.device).log())

    def mode(self) -> Tensor:
        best = self.raw.masked_fill(~self.mask, torch.finfo(self.raw.dtype).min).argmax(-1)
        return torch.nn.functional.one_hot(best, self.raw.shape[-1]).to(self.raw.dtype)

    def tempered(self, temperature: float) -> MaskedOneHot:
        return MaskedOneHot(self.logits / temperature, self.mask)
