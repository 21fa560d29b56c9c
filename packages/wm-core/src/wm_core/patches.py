"""Images of small sprites <-> features: one convolution for each patch of the sprites' size, and one among patches.

Where a world is drawn from sprites on a grid, as Melting Pot's are, a patch is one cell of it: which sprite stands in it is a
linear function of its pixels, and where it stands needs no stack of ever coarser maps to be kept. Four convolutions of stride
2 leave a 3x3 map of 44x44, each place of which has to hold what stands in some thirteen cells.

Sizes: H W C shape of an image, P side of a patch, d depth, D deter, Z stoch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wm_core.blocks import linear, truncated_normal_
from wm_core.images import ChannelNorm
from wm_core.precision import wide

PATCH = 4


def cells(shape: tuple[int, int, int], patch: int) -> tuple[int, int]:
    """Rows and columns of patches in images (H, W, C). Raises ValueError where patches do not tile them.

    >>> cells((44, 32, 3), 4)
    (11, 8)
    """
    height, width, _ = shape
    if height % patch or width % patch:
        raise ValueError(f"patches of {patch}x{patch} do not tile {height}x{width}")
    return height // patch, width // patch


def reading(channels: int, depth: int, patch: int) -> nn.Conv2d:
    """A convolution of each patch to d features, without bias."""
    layer = nn.Conv2d(channels, depth, patch, patch, bias=False)
    truncated_normal_(layer.weight, patch * patch * channels)
    return layer


def drawing(depth: int, channels: int, patch: int) -> nn.ConvTranspose2d:
    """Its mirror, with a bias that begins at 0."""
    layer = nn.ConvTranspose2d(depth, channels, patch, patch)
    truncated_normal_(layer.weight, depth)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


def mixing(depth: int) -> nn.Conv2d:
    """A convolution 3x3 among patches, without bias."""
    layer = nn.Conv2d(depth, depth, 3, padding=1, bias=False)
    truncated_normal_(layer.weight, 9 * depth)
    return layer


class PatchEncoder(nn.Module):
    """uint8 images (..., H, W, C) -> features (..., width): [conv PxP of stride P, norm, SiLU], [conv 3x3, norm, SiLU].

    The input is x / 255 - 0.5. Called like the encoders of `wm_core.images`; `multiple` is that of the P by default. Raises
    ValueError where H or W is no multiple of P.

    >>> encoder = PatchEncoder((44, 44, 3), depth=2)
    >>> encoder(torch.zeros(2, 5, 44, 44, 3, dtype=torch.uint8)).shape, encoder.width
    (torch.Size([2, 5, 242]), 242)
    """

    multiple = PATCH

    def __init__(self, shape: tuple[int, int, int], *, depth: int, patch: int = PATCH) -> None:
        super().__init__()
        rows, columns = cells(shape, patch)
        self.patches = reading(shape[2], depth, patch)
        self.mixing = mixing(depth)
        self.norms = nn.ModuleList([ChannelNorm(depth) for _ in range(2)])
        self.width = rows * columns * depth

    def forward(self, image: Tensor) -> Tensor:
        x = image.flatten(0, -4).permute(0, 3, 1, 2).div(255).sub_(0.5)
        for layer, norm in zip((self.patches, self.mixing), self.norms, strict=True):
            x = norm(layer(x))
        return x.permute(0, 2, 3, 1).reshape(*image.shape[:-3], -1)


class PatchDecoder(nn.Module):
    """deter (..., D) and flat stoch (..., Z) -> images (..., H, W, C), the encoder's mirror: one linear layer to d features of each patch, norm, SiLU, [conv 3x3, norm, SiLU], and each patch drawn by
    itself; + 0.5, no sigmoid. Called like the decoders of `wm_core.images`; `units` and `blocks` say nothing here.

    >>> decoder = PatchDecoder((44, 32, 3), deter=16, stoch=6, depth=2, units=0)
    >>> decoder(torch.zeros(2, 5, 16), torch.zeros(2, 5, 6)).shape
    torch.Size([2, 5, 44, 32, 3])
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        *,
        deter: int,
        stoch: int,
        depth: int,
        units: int,
        blocks: int = 8,
        patch: int = PATCH,
    ) -> None:
        super().__init__()
        rows, columns = cells(shape, patch)
        self.grid = (rows, columns, depth)
        self.inputs = linear(deter + stoch, rows * columns * depth)
        self.mixing = mixing(depth)
        self.norms = nn.ModuleList([ChannelNorm(depth) for _ in range(2)])
        self.out = drawing(depth, shape[2], patch)

    def forward(self, deter: Tensor, stoch: Tensor) -> Tensor:
        lead = deter.shape[:-1]
        x = self.inputs(torch.cat([stoch, deter], -1)).reshape(-1, *self.grid).permute(0, 3, 1, 2)
        x = self.norms[1](self.mixing(self.norms[0](x)))
        x = wide(self.out(x)) + 0.5
        return x.permute(0, 2, 3, 1).reshape(*lead, *x.shape[-2:], x.shape[1])
