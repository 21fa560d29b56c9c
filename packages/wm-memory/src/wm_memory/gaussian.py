"""f -> mean and deviation of 20 numbers, and a sample of them: the bottleneck of Eq. 6.

The paper calls it a variational autoencoder, but none of its losses has a KL term; `Gaussian.nats` is there for those
who want one. Sizes: E memory features, V bottleneck.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F
from wm_core import draws
from wm_core.blocks import linear
from wm_core.contracts import Encoder
from wm_core.precision import wide
from wm_core.types import Steps

from wm_memory.norms import BatchNorm


class Gaussian(nn.Module):
    """f (..., E) -> mean + std * noise (..., V), std = softplus(raw) + 1e-3; the noise is `wm_core.draws.normal`.

    Under `draws.drawing(draws.Fixed())` the sample is the mean.

    >>> import torch
    >>> Gaussian(512)(torch.zeros(4, 7, 512)).shape
    torch.Size([4, 7, 20])
    """

    def __init__(
        self,
        inputs: int,
        width: int = 20,
        *,
        hidden: int = 256,
        layers: int = 2,
        norm: Callable[[int], nn.Module] = BatchNorm,
    ) -> None:
        super().__init__()
        self.width = width
        parts: list[nn.Module] = []
        for _ in range(layers):
            parts += [linear(inputs, hidden), norm(hidden), nn.ReLU()]
            inputs = hidden
        self.mlp = nn.Sequential(*parts)
        self.mean, self.raw = linear(inputs, width), linear(inputs, width)

    def moments(self, f: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, each (..., V), not in half precision."""
        hidden = self.mlp(f)
        return wide(self.mean(hidden)), F.softplus(wide(self.raw(hidden))) + 1e-3

    def forward(self, f: Tensor) -> Tensor:
        mean, std = self.moments(f)
        return mean + std * draws.normal(mean.shape, mean.device)

    def nats(self, f: Tensor) -> Tensor:
        """KL[N(mean, std) || N(0, 1)] summed over V: (...). Not in the paper's loss."""
        mean, std = self.moments(f)
        return (0.5 * (mean.square() + std.square() - 1) - std.log()).sum(-1)


class BottleneckEncoder(nn.Module):
    """An Encoder whose "obs" passes through a bottleneck ("CO+VAE" in the paper's Table 4); `width` is V.

    Args:
        encoder: whose "obs" (B, T, E) that is.
        bottleneck: (B, T, E) -> (B, T, V).

    >>> import torch
    >>> class Plain(nn.Module):
    ...     width = 8
    ...     def forward(self, steps):
    ...         return {"obs": steps["vector"]}
    >>> BottleneckEncoder(Plain(), Gaussian(8, 4))({"vector": torch.zeros(2, 3, 8)})["obs"].shape
    torch.Size([2, 3, 4])
    """

    def __init__(self, encoder: Encoder, bottleneck: Gaussian) -> None:
        super().__init__()
        self.encoder, self.bottleneck, self.width = encoder, bottleneck, bottleneck.width

    def forward(self, steps: Steps) -> dict[str, Tensor]:
        embed = self.encoder(steps)
        return embed | {"obs": self.bottleneck(embed["obs"])}
