"""Latent -> distribution: a head declares the features it reads, and how its output is to be understood.

Sizes: F features, U units, A actions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from torch import Tensor, nn

from wm_core.blocks import MLP, linear
from wm_core.contracts import ActionDistribution, Distribution
from wm_core.distributions import Bernoulli, BoundedNormal, Joint, OneHot, OneHots
from wm_core.masked import MaskedOneHot
from wm_core.twohot import TwoHot
from wm_core.types import Latent

Predicted = TypeVar("Predicted", bound=Distribution)


class Head(nn.Module, Generic[Predicted]):
    """An MLP on the named features and a distribution on top. outscale 0 makes it predict zero at first.

    >>> import torch
    >>> from wm_core.twohot import TwoHot
    >>> head = Head(TwoHot, 255, widths={"deter": 8, "stoch": 6}, units=16, layers=1, outscale=0.0)
    >>> latent = Latent(torch.ones(2, 5, 8), torch.zeros(2, 5, 2, 3))
    >>> head(latent).mode().abs().max().item()
    0.0
    """

    def __init__(
        self,
        distribution: Callable[[Tensor], Predicted],
        outputs: int,
        *,
        widths: Mapping[str, int],
        units: int,
        layers: int,
        outscale: float = 1.0,
        reads: tuple[str, ...] = ("deter", "stoch"),
    ) -> None:
        super().__init__()
        self.distribution, self.reads = distribution, reads
        self.mlp = MLP(sum(widths[name] for name in reads), units, layers)
        self.out = linear(self.mlp.width, outputs, outscale)

    def __call__(self, latent: Latent) -> Predicted:
        return super().__call__(latent)

    def forward(self, latent: Latent) -> Predicted:
        return self.from_features(latent.read(*self.reads))

    def from_features(self, features: Tensor) -> Predicted:
        """The same from features (..., F) read beforehand."""
        return self.distribution(self.out(self.mlp(features)))


class PolicyHead(nn.Module):
    """Latent -> distribution over action vectors: one-hots for `discrete` sizes, bounded normals for `continuous`.

    `unimix` mixes the uniform into discrete policies (the paper's 1%; the reference code has none). A mask (..., A) bool
    says which discrete actions may be chosen; of continuous numbers it says nothing, see `masked`.

    >>> import torch
    >>> policy = PolicyHead(discrete=(3,), continuous=0, widths={"deter": 8, "stoch": 6}, units=16, layers=1)
    >>> policy(Latent(torch.ones(2, 8), torch.zeros(2, 2, 3))).sample().shape
    torch.Size([2, 3])
    """

    def __init__(
        self,
        *,
        discrete: tuple[int, ...],
        continuous: int,
        widths: Mapping[str, int],
        units: int,
        layers: int,
        unimix: float = 0.01,
        outscale: float = 0.01,
        reads: tuple[str, ...] = ("deter", "stoch"),
    ) -> None:
        super().__init__()
        if not discrete and not continuous:
            raise ValueError("a policy needs at least one action to choose")
        self.discrete, self.continuous, self.unimix, self.reads = tuple(discrete), continuous, unimix, reads
        mlp = MLP(sum(widths[name] for name in reads), units, layers)
        self.mlp: nn.Module = mlp
        self.out = linear(mlp.width, sum(discrete) + 2 * continuous, outscale)

    def components(self) -> list[tuple[Tensor, tuple[int, ...]]]:
        """Weight and bias of the output layer, each with the rows of what are tensors of their own in the reference: the
        logits of every discrete part, means, deviations. For `AdaptiveClip`."""
        rows = (*self.discrete, *([self.continuous] * 2 if self.continuous else []))
        return [(self.out.weight, rows), (self.out.bias, rows)]

    def forward(self, latent: Latent, mask: Tensor | None = None) -> ActionDistribution:
        return self.from_features(latent.read(*self.reads), mask)

    def from_features(self, features: Tensor, mask: Tensor | None = None) -> ActionDistribution:
        out = self.out(self.mlp(features))
        width, sizes = sum(self.discrete), list(self.discrete)
        logits = out[..., :width].split(sizes, -1)
        parts: list[OneHot]
        if mask is None:
            parts = [OneHot(part, self.unimix) for part in logits]
        else:
            allowed = mask[..., :width].split(sizes, -1)
            parts = [MaskedOneHot(part, one, self.unimix) for part, one in zip(logits, allowed, strict=True)]
        if not self.continuous:
            return parts[0] if len(parts) == 1 else OneHots(parts)
        normal = BoundedNormal(*out[..., width:].chunk(2, -1))
        return normal if not parts else Joint(OneHots(parts), normal, width)


def reward_and_continue(
    widths: Mapping[str, int],
    *,
    units: int,
    layers: int = 1,
    cont: Callable[[Tensor], Distribution] = Bernoulli,
    reward: Callable[[Tensor], Distribution] = TwoHot,
) -> dict[str, Head[Any]]:
    """The two heads that every dream needs: {"reward": `reward` over 255 bins, zero at first; "cont": `cont`}."""
    return {
        "reward": Head(reward, 255, widths=widths, units=units, layers=layers, outscale=0.0),
        "cont": Head(cont, 1, widths=widths, units=units, layers=layers),
    }
