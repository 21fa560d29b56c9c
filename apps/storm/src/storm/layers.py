"""STORM's layers, in PyTorch's default initialisation: perceptrons with LayerNorm and ReLU, convolutions with BatchNorm.

Sizes: N images, H W C their shape, Z flat stochastic state.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from wm_core.batch_norm import BatchNorm2d
from wm_core.fast.product import Linear

FRAMES = 128  # encoded at a time where nothing is learned: their maps then stay in the processor's cache


def perceptron(inputs: int, width: int, layers: int) -> nn.Sequential:
    """`layers` times [Linear without bias, LayerNorm, ReLU].

    >>> import torch
    >>> perceptron(4, 8, 2)(torch.zeros(3, 4)).shape
    torch.Size([3, 8])
    """
    parts: list[nn.Module] = []
    for _ in range(layers):
        parts += [Linear(inputs, width, bias=False), nn.LayerNorm(width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*parts)


def mixer(stoch: int, action: int, width: int) -> nn.Sequential:
    """[z, a] -> a token of the transformer: two layers with LayerNorm, the second without ReLU."""
    return nn.Sequential(
        Linear(stoch + action, width, bias=False),
        nn.LayerNorm(width),
        nn.ReLU(),
        Linear(width, width, bias=False),
        nn.LayerNorm(width),
    )


class Encoder(nn.Module):
    """uint8 images (..., H, W, C) / 255 -> (..., width): four times [conv 4x4 stride 2, BatchNorm, ReLU], flattened.

    >>> import torch
    >>> Encoder((64, 64, 3), depth=2)(torch.zeros(2, 5, 64, 64, 3, dtype=torch.uint8)).shape
    torch.Size([2, 5, 256])
    """

    top: Tensor

    def __init__(self, shape: tuple[int, int, int], *, depth: int) -> None:
        super().__init__()
        height, width, channels = shape
        parts: list[nn.Module] = []
        for i, o in pairwise([channels, depth, 2 * depth, 4 * depth, 8 * depth]):
            parts += [nn.Conv2d(i, o, 4, 2, 1, bias=False), BatchNorm2d(o), nn.ReLU()]
        self.convs = nn.Sequential(*parts)
        self.register_buffer("top", torch.tensor(255.0), persistent=False)  # a tensor: it says in which dtype to divide
        self.width = (height // 16) * (width // 16) * 8 * depth

    def forward(self, image: Tensor) -> Tensor:
        frames = image.flatten(0, -4)
        if self.training or torch.is_grad_enabled() or frames.is_cuda or len(frames) <= FRAMES:
            found = self.convs(self._pixels(frames)).flatten(1)
        else:
            layers = self._resting()
            found = torch.cat([self._piece(piece, layers) for piece in frames.split(FRAMES)])
        return found.reshape(*image.shape[:-3], -1)

    def _pixels(self, frames: Tensor) -> Tensor:
        return frames.permute(0, 3, 1, 2) / self.top

    def _piece(self, frames: Tensor, layers: list[tuple[Tensor, Tensor]]) -> Tensor:
        x = self._pixels(frames)
        for weight, bias in layers:
            x = F.conv2d(x, weight, bias, 2, 1).relu_()
        return x.flatten(1)

    def _resting(self) -> list[tuple[Tensor, Tensor]]:
        """Weight and bias of every convolution with its norm inside, whose statistics do not change now."""
        layers = []
        for i in range(0, len(self.convs), 3):
            conv, norm = cast(Any, self.convs[i]), cast(Any, self.convs[i + 1])
            rise = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
            layers.append((conv.weight * rise[:, None, None, None], norm.bias - norm.running_mean * rise))
        return layers


class Decoder(nn.Module):
    """flat stoch (..., Z) -> images (..., H, W, C), the mirror of the encoder; no sigmoid, and no look at deter.

    >>> import torch
    >>> Decoder((64, 64, 3), stoch=6, depth=2)(torch.zeros(2, 5, 6)).shape
    torch.Size([2, 5, 64, 64, 3])
    """

    def __init__(self, shape: tuple[int, int, int], *, stoch: int, depth: int) -> None:
        super().__init__()
        height, width, channels = shape
        self.low = (8 * depth, height // 16, width // 16)
        self.inputs = Linear(stoch, self.low[0] * self.low[1] * self.low[2], bias=False)
        parts: list[nn.Module] = [BatchNorm2d(8 * depth), nn.ReLU()]
        for i, o in pairwise([8 * depth, 4 * depth, 2 * depth, depth]):
            parts += [nn.ConvTranspose2d(i, o, 4, 2, 1, bias=False), BatchNorm2d(o), nn.ReLU()]
        self.convs = nn.Sequential(*parts, nn.ConvTranspose2d(depth, channels, 4, 2, 1))

    def forward(self, stoch: Tensor) -> Tensor:
        x = self.convs(self.inputs(stoch).reshape(-1, *self.low))
        return x.permute(0, 2, 3, 1).reshape(*stoch.shape[:-1], *x.shape[-2:], x.shape[1])
