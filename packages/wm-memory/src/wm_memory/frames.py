"""f_o: observations -> memory embeddings, by weights of their own; and the encoder that gives both embeddings.

Sizes: B batch, T time, N = B * T frames, E memory features.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from wm_core.blocks import linear, truncated_normal_
from wm_core.contracts import Encoder
from wm_core.encoders import VectorInput
from wm_core.observations import Observations
from wm_core.types import Steps

from wm_memory.norms import BatchNorm, evaluating

Norm = Callable[[int], nn.Module]  # features -> a norm over the last axis: BatchNorm, wm_core.blocks.RMSNorm


class ConvStage(nn.Module):
    """conv 4x4 stride 2, norm, ReLU: (N, H, W, C) -> (N, H/2, W/2, O)."""

    def __init__(self, inputs: int, outputs: int, norm: Norm) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, 4, 4))
        truncated_normal_(self.weight, inputs * 16)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.norm = norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x.permute(0, 3, 1, 2), self.weight, self.bias, stride=2, padding=1)
        return F.relu(self.norm(x.permute(0, 2, 3, 1)))


class ImageFrames(nn.Module):
    """uint8 images (B, T, H, W, C) -> (B, T, features): four stages of `depth` * (1, 2, 4, 8) channels, flattened.

    >>> ImageFrames((64, 64, 3))(torch.zeros(1, 2, 64, 64, 3, dtype=torch.uint8)).shape
    torch.Size([1, 2, 4096])
    """

    def __init__(self, shape: tuple[int, int, int], *, depth: int = 32, norm: Norm = BatchNorm) -> None:
        super().__init__()
        height, width, channels = shape
        if height % 16 or width % 16:
            raise ValueError(f"memory frames of {height}x{width}: four halvings need sides that are multiples of 16")
        stages = []
        for outputs in (depth, 2 * depth, 4 * depth, 8 * depth):
            stages.append(ConvStage(channels, outputs, norm))
            channels = outputs
        self.stages = nn.Sequential(*stages)
        self.width = channels * (height // 16) * (width // 16)

    def forward(self, image: Tensor) -> Tensor:
        out = self.stages(image.flatten(0, 1).float() / 255 - 0.5)
        return out.flatten(1).unflatten(0, image.shape[:2])


class Frames(nn.Module):
    """f_o for any observation: images by `ImageFrames`, the rest by `layers` times [Linear, norm, ReLU], then one
    Linear on both to E = `width`. steps -> (B, T, E).

    >>> frames = Frames(Observations(vectors={"vector": 4}), width=16, units=8)
    >>> frames({"vector": torch.zeros(2, 5, 4), "first": torch.zeros(2, 5, dtype=torch.bool)}).shape
    torch.Size([2, 5, 16])
    """

    def __init__(
        self,
        observations: Observations,
        *,
        width: int = 512,
        depth: int = 32,
        units: int = 512,
        layers: int = 2,
        norm: Norm = BatchNorm,
    ) -> None:
        super().__init__()
        self.keys, self.width = tuple(observations.images), width
        self.input = VectorInput(observations)
        parts: list[nn.Module] = []
        inputs = self.input.width
        for _ in range(layers if inputs else 0):
            parts += [linear(inputs, units), norm(units), nn.ReLU()]
            inputs = units
        self.mlp = nn.Sequential(*parts)
        if self.keys:
            height, wide, _ = observations.images[self.keys[0]]
            channels = sum(shape[2] for shape in observations.images.values())
            self.images = ImageFrames((height, wide, channels), depth=depth, norm=norm)
            inputs += self.images.width
        self.out = linear(inputs, width)

    def forward(self, steps: Steps) -> Tensor:
        parts = [self.mlp(self.input(steps))] if self.input.width else []
        if self.keys:
            parts.append(self.images(torch.cat([steps[key] for key in self.keys], -1)))
        return self.out(torch.cat(parts, -1))


class MemoryEncoder(nn.Module):
    """An Encoder: that of the observation and f_o side by side, for an agent that recalls.

    Args:
        frames: f_o, steps -> (B, T, E): `Frames`, or any module of this call.
        obs: the encoder of the observation.

    Adds "memory" (B, T, E), f_o as it trains, with gradient, and "key" (B, T, E), f_o by its running statistics,
    without: what similarity is measured on and what replay keeps. Queries and keys must come from one mode, or the
    batch's statistics bias the cosine. Where f_o is in evaluation, or has no batch norm, one pass gives both.

    >>> from wm_core.encoders import MultiEncoder
    >>> seen = Observations(vectors={"vector": 4})
    >>> encoder = MemoryEncoder(Frames(seen, width=16, units=8), MultiEncoder(seen, units=8, depth=2))
    >>> embed = encoder({"vector": torch.zeros(2, 5, 4), "first": torch.zeros(2, 5, dtype=torch.bool)})
    >>> {name: (tuple(value.shape), value.requires_grad) for name, value in embed.items()}
    {'obs': ((2, 5, 8), True), 'memory': ((2, 5, 16), True), 'key': ((2, 5, 16), False)}
    """

    def __init__(self, frames: nn.Module, obs: Encoder) -> None:
        super().__init__()
        self.frames, self.obs = frames, obs
        self.width = obs.width
        batch_norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
        self.two_modes = any(isinstance(part, batch_norms) for part in frames.modules())

    def forward(self, steps: Steps) -> dict[str, Tensor]:
        memory = self.frames(steps)
        key = self.again(steps) if self.two_modes and self.frames.training else memory.detach()
        return self.obs(steps) | {"memory": memory, "key": key}

    @torch.no_grad()
    def again(self, steps: Steps) -> Tensor:
        """f_o by its running statistics, without gradient: (B, T, E)."""
        with evaluating(self.frames):
            return self.frames(steps)
