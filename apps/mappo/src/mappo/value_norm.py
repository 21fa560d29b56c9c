"""Values in units of the returns seen so far: running first and second moment, debiased, on the device."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from wm_core.ranks import mean

LEAST = 1e-2  # of the variance


class ValueNorm(nn.Module):
    """normalised = (value - mean) / deviation, of all returns that `follow` was shown; `rate` says how soon old ones fade.

    Before it was shown any, mean 0 and variance 1.

    >>> norm = ValueNorm()
    >>> norm.follow(torch.tensor([1.0, 3.0]), torch.ones(2))
    >>> [round(one, 3) for one in norm.normalised(torch.tensor([1.0, 3.0])).tolist()]
    [-1.0, 1.0]
    """

    first: Tensor
    second: Tensor
    debias: Tensor

    def __init__(self, rate: float = 1e-5) -> None:
        super().__init__()
        self.rate = rate
        for name in ("first", "second", "debias"):
            self.register_buffer(name, torch.zeros(()))

    @torch.no_grad()
    def follow(self, returns: Tensor, share: Tensor) -> None:
        """Take returns in; share is each one's weight, of mean 1."""
        self.first.lerp_(mean(returns * share), self.rate)
        self.second.lerp_(mean(returns.square() * share), self.rate)
        self.debias.lerp_(torch.ones_like(self.debias), self.rate)

    def normalised(self, value: Tensor) -> Tensor:
        centre, spread = self._moments()
        return (value - centre) / spread

    def real(self, normalised: Tensor) -> Tensor:
        """The inverse."""
        centre, spread = self._moments()
        return normalised * spread + centre

    def _moments(self) -> tuple[Tensor, Tensor]:
        seen = self.debias > 0
        divisor = torch.where(seen, self.debias, 1.0)
        centre = self.first / divisor
        variance = (self.second / divisor - centre.square()).clamp(min=LEAST)
        return centre, torch.where(seen, variance, 1.0).sqrt()


class Unscaled(nn.Module):
    """Values as they are."""

    def follow(self, returns: Tensor, share: Tensor) -> None: ...

    def normalised(self, value: Tensor) -> Tensor:
        return value

    def real(self, normalised: Tensor) -> Tensor:
        return normalised
