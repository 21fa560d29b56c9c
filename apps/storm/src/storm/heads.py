"""What STORM's heads predict, and its policy: the reward in symlog space, a hard end of the episode, actions.

Sizes: F features, A actions, V bins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from wm_core.contracts import Distribution
from wm_core.distributions import HardContinue
from wm_core.fast.product import Linear
from wm_core.heads import PolicyHead
from wm_core.twohot import TwoHot, symexp, symlog
from wm_core.types import Latent

from storm.layers import perceptron

BINS = 255


class SymlogTwoHot(TwoHot):
    """A scalar as a categorical over bins that lie evenly on [-20, 20] in symlog space; decoded as symexp(sum p bin).

    DreamerV3's bins have the same places; there the target is split and the mean taken in raw units.

    >>> SymlogTwoHot(torch.zeros(2, 255)).mode().abs().max().item() < 1e-5
    True
    """

    def __init__(self, logits: Tensor) -> None:
        super().__init__(logits)
        self.bins = torch.linspace(-20, 20, logits.shape[-1], device=logits.device, dtype=self.logits.dtype)

    def mode(self) -> Tensor:
        probs = F.softmax(self.logits, -1)
        with torch.autocast(probs.device.type, enabled=False):  # a product in bfloat16 would tell 300 as 304
            return symexp(probs @ self.bins)

    def split(self, target: Tensor) -> tuple[Tensor, Tensor]:
        return super().split(symlog(target.detach()))


Predicted = TypeVar("Predicted", bound=Distribution)


class StormHead(nn.Module, Generic[Predicted]):
    """Latent -> distribution, through two layers."""

    def __init__(
        self,
        distribution: Callable[[Tensor], Predicted],
        outputs: int,
        *,
        widths: Mapping[str, int],
        width: int,
        reads: tuple[str, ...],
    ) -> None:
        super().__init__()
        self.distribution, self.reads = distribution, reads
        self.layers = perceptron(sum(widths[name] for name in reads), width, 2)
        self.out = Linear(width, outputs)

    def __call__(self, latent: Latent) -> Predicted:
        return super().__call__(latent)

    def forward(self, latent: Latent) -> Predicted:
        return self.from_features(latent.read(*self.reads))

    def from_features(self, features: Tensor) -> Predicted:
        """The same from features (..., F) read beforehand."""
        return self.distribution(self.out(self.layers(features)))


class StormPolicy(PolicyHead):
    """The same distributions over action vectors as Dreamer's, without a uniform share, on STORM's layers."""

    def __init__(
        self,
        *,
        discrete: tuple[int, ...],
        continuous: int,
        widths: Mapping[str, int],
        width: int,
        reads: tuple[str, ...],
    ) -> None:
        super().__init__(
            discrete=discrete, continuous=continuous, widths=widths, units=1, layers=1, unimix=0.0, reads=reads
        )
        # The two layers made above are thrown away, and stay made: all that `build` makes after this draws its weights from the
        # same generator, so that without their draws every run of a seed would begin with other ones.
        self.mlp = perceptron(sum(widths[name] for name in reads), width, 2)
        self.out = Linear(width, self.out.out_features)


def reward_and_continue(widths: Mapping[str, int], *, width: int, discount: float) -> dict[str, StormHead[Any]]:
    """The two heads of a dream, on deter alone: what followed from (z, a) up to here."""
    return {
        "reward": StormHead(SymlogTwoHot, BINS, widths=widths, width=width, reads=("deter",)),
        "cont": StormHead(partial(HardContinue, discount=discount), 1, widths=widths, width=width, reads=("deter",)),
    }
