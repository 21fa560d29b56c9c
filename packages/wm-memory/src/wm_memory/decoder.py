"""latent -> the recalled f: the memory decoder, and what its error is measured by (Eq. 10, 11).

Sizes: B batch, T time, E memory features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn
from torch.nn import functional as F
from wm_core.blocks import linear
from wm_core.contracts import Distribution
from wm_core.precision import wide
from wm_core.types import Latent

from wm_memory.norms import BatchNorm


class SoftmaxMatch:
    """-sum softmax(f) log_softmax(prediction): the paper's "catxent" of a continuous vector, taken at its word. A
    `Distribution` of f (..., E), of which `mode` is the prediction.

    The only reading of it that fits the stated 512 outputs; about ln 512 = 6.2 at first. The target gets no gradient, or
    it would collapse. A weak target where f is normalised: `Squared` is the alternative.

    >>> import torch
    >>> SoftmaxMatch(torch.zeros(2, 4)).loss(torch.randn(2, 4)).shape
    torch.Size([2])
    """

    def __init__(self, prediction: Tensor) -> None:
        self.prediction = wide(prediction)

    def mode(self) -> Tensor:
        return self.prediction

    def loss(self, target: Tensor) -> Tensor:
        return -(F.softmax(target.detach().to(self.prediction.dtype), -1) * F.log_softmax(self.prediction, -1)).sum(-1)


class Squared(SoftmaxMatch):
    """The mean squared error over the features; the target gets no gradient."""

    def loss(self, target: Tensor) -> Tensor:
        return (self.prediction - target.detach().to(self.prediction.dtype)).square().mean(-1)


class MemoryDecoder(nn.Module):
    """A head whose target is trace.targets["memory"]: `layers` - 1 times [Linear, norm, ReLU], then a plain Linear to E.

    >>> import torch
    >>> decoder = MemoryDecoder(8, widths={"deter": 6, "stoch": 12}, units=16)
    >>> decoder(Latent(torch.zeros(2, 5, 6), torch.zeros(2, 5, 4, 3))).loss(torch.zeros(2, 5, 8)).shape
    torch.Size([2, 5])
    """

    def __init__(
        self,
        outputs: int,
        *,
        widths: Mapping[str, int],
        units: int = 512,
        layers: int = 3,
        distribution: Callable[[Tensor], Distribution] = SoftmaxMatch,
        norm: Callable[[int], nn.Module] = BatchNorm,
        reads: tuple[str, ...] = ("deter", "stoch"),
    ) -> None:
        super().__init__()
        self.reads, self.distribution = reads, distribution
        inputs = sum(widths[name] for name in reads)
        parts: list[nn.Module] = []
        for _ in range(layers - 1):
            parts += [linear(inputs, units), norm(units), nn.ReLU()]
            inputs = units
        self.mlp = nn.Sequential(*parts, linear(inputs, outputs))

    def forward(self, latent: Latent) -> Distribution:
        return self.from_features(latent.read(*self.reads))

    def from_features(self, features: Tensor) -> Distribution:
        """The same from features (..., F) read beforehand."""
        return self.distribution(self.mlp(features))
