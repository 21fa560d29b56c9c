"""Images <-> features: 5x5 convolutions and max-pooling (2025), or 4x4 convolutions of stride 2 (2023), and their mirrors.

Sizes: N images, H W C their shape, d depth, D deter, F features. Channel multipliers of the four stages: 2, 3, 4, 4.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wm_core.blocks import MLP, BlockLinear, linear, truncated_normal_
from wm_core.norm import RMSNorm, norm_silu
from wm_core.precision import wide

MULTIPLIERS = (2, 3, 4, 4)


def conv(inputs: int, outputs: int) -> nn.Conv2d:
    """A 5x5 convolution, stride 1, same padding, Dreamer's initialisation (fan-in 25 * inputs)."""
    layer = nn.Conv2d(inputs, outputs, 5, padding=2)
    truncated_normal_(layer.weight, 25 * inputs)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer.to(memory_format=torch.channels_last)


class ChannelNorm(RMSNorm):
    """RMSNorm over the channels of a map (N, C, H, W), then SiLU."""

    def forward(self, x: Tensor) -> Tensor:
        return norm_silu(x.permute(0, 2, 3, 1), self).permute(0, 3, 1, 2)


class ConvEncoder(nn.Module):
    """uint8 images (..., H, W, C) -> features (..., width): four times [conv 5x5, max-pool 2x2, norm, SiLU].

    The input is x / 255 - 0.5. H and W must be multiples of 16 (`multiple`). 64x64 gives 4*4*(4*depth) features.

    >>> encoder = ConvEncoder((64, 64, 3), depth=2)
    >>> encoder(torch.zeros(2, 5, 64, 64, 3, dtype=torch.uint8)).shape, encoder.width
    (torch.Size([2, 5, 128]), 128)
    """

    multiple = 16

    def __init__(self, shape: tuple[int, int, int], *, depth: int) -> None:
        super().__init__()
        height, width, channels = shape
        sizes = [depth * m for m in MULTIPLIERS]
        self.convs = nn.ModuleList([conv(i, o) for i, o in pairwise([channels, *sizes])])
        self.norms = nn.ModuleList([ChannelNorm(size) for size in sizes])
        self.width = (height // 16) * (width // 16) * sizes[-1]

    def forward(self, image: Tensor) -> Tensor:
        lead = image.shape[:-3]
        x = image.flatten(0, -4).permute(0, 3, 1, 2)  # channels-last strides for free
        x = (x / 255).sub_(0.5)
        for layer, norm in zip(self.convs, self.norms, strict=True):
            x = norm(F.max_pool2d(layer(x), 2))
        return x.permute(0, 2, 3, 1).reshape(*lead, -1)


class UpConv(nn.Module):
    """Nearest upsampling by two, then a 5x5 convolution, computed as one 3x3 convolution at the low resolution.

    Read `wm_core.plain.up_convolution` first. Each of the four output phases sees only 3x3 distinct inputs, so its kernel is a sum of the 5x5 taps; a pixel
    shuffle puts the phases together. Exact, borders included, with 9 taps for 25 and no upsampled map in memory.
    """

    fold: Tensor

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        layer = conv(inputs, outputs)
        self.weight, self.bias = layer.weight, layer.bias
        # fold[p, j, k] = 1 where tap k of phase p falls on low-resolution neighbour j
        fold = torch.zeros(2, 3, 5)
        for phase in range(2):
            for tap in range(5):
                fold[phase, (phase + tap - 2) // 2 + 1, tap] = 1
        both = torch.einsum("pjk,qil->klpqji", fold, fold).reshape(25, 36)  # 25 taps to 4 phases of 3x3
        self.register_buffer("fold", both, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, I, H, W) -> (N, O, 2H, 2W)."""
        outputs, inputs = self.weight.shape[:2]
        taps = (self.weight.reshape(-1, 25) @ self.fold).view(outputs, inputs, 4, 3, 3)
        taps = taps.transpose(1, 2).reshape(outputs * 4, inputs, 3, 3).contiguous(memory_format=torch.channels_last)
        bias = self.bias.repeat_interleave(4)  # type: ignore[union-attr]
        return F.pixel_shuffle(F.conv2d(x, taps, bias, padding=1), 2)


class ConvDecoder(nn.Module):
    """deter (..., D) and flat stoch (..., Z) -> images (..., H, W, C) in (0, 1).

    Both meet at the lowest resolution: block-wise from deter (each block owns a slice of the channels), through a
    hidden layer of 2 * units from stoch.

    >>> decoder = ConvDecoder((64, 64, 3), deter=16, stoch=6, depth=2, units=4)
    >>> decoder(torch.zeros(2, 5, 16), torch.zeros(2, 5, 6)).shape
    torch.Size([2, 5, 64, 64, 3])
    """

    def __init__(
        self, shape: tuple[int, int, int], *, deter: int, stoch: int, depth: int, units: int, blocks: int = 8
    ) -> None:
        super().__init__()
        height, width, channels = shape
        sizes = [depth * m for m in reversed(MULTIPLIERS)]
        self.blocks, self.low = blocks, (height // 16, width // 16, sizes[0])
        total = self.low[0] * self.low[1] * self.low[2]
        self.from_deter = BlockLinear(deter, total, blocks)
        self.from_stoch = nn.Sequential(MLP(stoch, 2 * units, 1), linear(2 * units, total))
        self.norm = RMSNorm(self.low[2])
        self.ups = nn.ModuleList([UpConv(i, o) for i, o in pairwise(sizes)])
        self.norms = nn.ModuleList([ChannelNorm(size) for size in sizes[1:]])
        self.out = UpConv(sizes[-1], channels)

    def forward(self, deter: Tensor, stoch: Tensor) -> Tensor:
        lead, (height, width, _) = deter.shape[:-1], self.low
        one = self.from_deter(deter.flatten(0, -2)).unflatten(-1, (self.blocks, height, width, -1))
        one = one.permute(0, 2, 3, 1, 4).flatten(-2)  # (N, h, w, blocks * channels/block)
        two = self.from_stoch(stoch.flatten(0, -2)).unflatten(-1, self.low)
        x = norm_silu(one + two, self.norm).permute(0, 3, 1, 2)
        for up, norm in zip(self.ups, self.norms, strict=True):
            x = norm(up(x))
        x = torch.sigmoid(wide(self.out(x)))
        return x.permute(0, 2, 3, 1).reshape(*lead, *x.shape[-2:], x.shape[1])


def halvings(side: int) -> tuple[int, ...]:
    """A side before and after each of four halvings, an odd one rounded up.

    >>> halvings(64), halvings(44)
    ((64, 32, 16, 8, 4), (44, 22, 11, 6, 3))
    """
    sides = [side]
    for _ in range(4):
        sides.append((sides[-1] + 1) // 2)
    return tuple(sides)


def halved(layer: nn.Module, x: Tensor) -> Tensor:
    """(N, I, H, W) -> (N, O, H/2, W/2) through a convolution 4x4 of stride 2 and padding 1; an odd side is first made even
    by a row, or column, of zeros at its end."""
    height, width = x.shape[-2:]
    if height % 2 or width % 2:
        x = F.pad(x, (0, width % 2, 0, height % 2))
    found: Tensor = layer(x)
    return found


def doubled(layer: nn.Module, x: Tensor, height: int, width: int) -> Tensor:
    """The transpose of `halved`: (N, I, h, w) -> (N, O, height, width), twice as large, or one less where that is odd."""
    found: Tensor = layer(x)
    return found if found.shape[-2:] == (height, width) else found[..., :height, :width]


class StridedEncoder(nn.Module):
    """The 2023 encoder: four times [conv 4x4 stride 2, norm, SiLU], channels depth * (1, 2, 4, 8), no bias.

    Called like ConvEncoder. 64x64 gives 4*4*(8*depth) features. Sides of any length: an odd one is halved to its upper half,
    44 by 22, 11 and 6 to 3.

    >>> StridedEncoder((64, 64, 3), depth=2)(torch.zeros(2, 5, 64, 64, 3, dtype=torch.uint8)).shape
    torch.Size([2, 5, 256])
    >>> StridedEncoder((44, 44, 3), depth=2).width
    144
    """

    multiple = 1

    def __init__(self, shape: tuple[int, int, int], *, depth: int) -> None:
        super().__init__()
        height, width, channels = shape
        sizes = [depth * m for m in (1, 2, 4, 8)]
        self.convs = nn.ModuleList([nn.Conv2d(i, o, 4, 2, 1, bias=False) for i, o in pairwise([channels, *sizes])])
        for layer in self.convs:
            truncated_normal_(layer.weight, 16 * layer.in_channels)  # type: ignore[arg-type, operator]
        self.norms = nn.ModuleList([ChannelNorm(size) for size in sizes])
        self.width = halvings(height)[-1] * halvings(width)[-1] * sizes[-1]

    def forward(self, image: Tensor) -> Tensor:
        x = image.flatten(0, -4).permute(0, 3, 1, 2).div(255).sub_(0.5)
        for layer, norm in zip(self.convs, self.norms, strict=True):
            x = norm(halved(layer, x))
        return x.permute(0, 2, 3, 1).reshape(*image.shape[:-3], -1)


class StridedDecoder(nn.Module):
    """The 2023 decoder: one linear layer, then four transposed convolutions 4x4 of stride 2; + 0.5, no sigmoid.

    Called like ConvDecoder; it has no hidden layer and no blocks, so `units` and `blocks` say nothing here. Sides of any
    length, like StridedEncoder: every map has the size of the encoder's.

    >>> decoder = StridedDecoder((64, 44, 3), deter=16, stoch=6, depth=2, units=0)
    >>> decoder(torch.zeros(2, 5, 16), torch.zeros(2, 5, 6)).shape
    torch.Size([2, 5, 64, 44, 3])
    """

    def __init__(
        self, shape: tuple[int, int, int], *, deter: int, stoch: int, depth: int, units: int, blocks: int = 8
    ) -> None:
        super().__init__()
        height, width, channels = shape
        sizes = [depth * m for m in (8, 4, 2, 1)]
        # of the maps, the lowest first
        low, *self.sides = reversed(list(zip(halvings(height), halvings(width), strict=True)))
        self.low = (*low, sizes[0])
        self.inputs = linear(deter + stoch, self.low[0] * self.low[1] * self.low[2])
        self.ups = nn.ModuleList([nn.ConvTranspose2d(i, o, 4, 2, 1, bias=False) for i, o in pairwise(sizes)])
        self.norms = nn.ModuleList([ChannelNorm(size) for size in sizes[1:]])
        self.out = nn.ConvTranspose2d(sizes[-1], channels, 4, 2, 1)
        for layer in (*self.ups, self.out):
            truncated_normal_(layer.weight, 4 * layer.in_channels)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, deter: Tensor, stoch: Tensor) -> Tensor:
        lead = deter.shape[:-1]
        x = self.inputs(torch.cat([stoch, deter], -1)).reshape(-1, *self.low).permute(0, 3, 1, 2)
        for up, norm, size in zip(self.ups, self.norms, self.sides, strict=False):
            x = norm(doubled(up, x, *size))
        x = wide(doubled(self.out, x, *self.sides[-1])) + 0.5
        return x.permute(0, 2, 3, 1).reshape(*lead, *x.shape[-2:], x.shape[1])
