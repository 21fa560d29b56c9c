"""A dictionary of observations -> one embedding, and the stochastic state -> every observation, in STORM's layers.

Images go through convolutions. Vectors and discrete values, which the public code does not know, go through perceptrons.
Sizes: B batch, T time, E embed, Z flat stochastic state.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from wm_core.contracts import Distribution
from wm_core.distributions import ImageMSE
from wm_core.encoders import Discretes, Vector, VectorInput
from wm_core.fast.product import Linear
from wm_core.names import module
from wm_core.observations import Observations
from wm_core.types import Latent, Steps

from storm.layers import Decoder, Encoder, perceptron


class ObservationEncoder(nn.Module):
    """steps -> {"obs": (B, T, E)}; `width` is E."""

    def __init__(self, observations: Observations, *, width: int, depth: int) -> None:
        super().__init__()
        self.images, self.input, self.width = tuple(observations.images), VectorInput(observations), 0
        if self.input.width:
            self.perceptron = perceptron(self.input.width, width, 2)
            self.width += width
        if self.images:
            height, wide, _ = observations.images[self.images[0]]
            self.convs = Encoder((height, wide, sum(s[2] for s in observations.images.values())), depth=depth)
            self.width += self.convs.width

    def forward(self, steps: Steps) -> dict[str, Tensor]:
        parts = []
        if self.input.width:
            parts.append(self.perceptron(self.input(steps)))
        if self.images:
            parts.append(self.convs(torch.cat([steps[key] for key in self.images], -1)))
        return {"obs": parts[0] if len(parts) == 1 else torch.cat(parts, -1)}


class ObservationDecoder(nn.Module):
    """latent -> a distribution for every observation key, from the stochastic state alone."""

    reads = ("stoch",)

    def __init__(self, observations: Observations, *, stoch: int, width: int, depth: int) -> None:
        super().__init__()
        self.channels = {key: shape[2] for key, shape in observations.images.items()}
        self.discretes = dict(observations.discretes)
        outputs = dict(observations.vectors) | {key: sum(sizes) for key, sizes in self.discretes.items()}
        if self.channels:
            height, wide, _ = next(iter(observations.images.values()))
            self.convs = Decoder((height, wide, sum(self.channels.values())), stoch=stoch, depth=depth)
        if outputs:
            self.perceptron = perceptron(stoch, width, 2)
            self.outs = nn.ModuleDict({module(key): Linear(width, size) for key, size in outputs.items()})
            self.names = {key: module(key) for key in outputs}

    def forward(self, latent: Latent) -> dict[str, Distribution]:
        found: dict[str, Distribution] = {}
        stoch = latent.read(*self.reads)
        if self.channels:
            images = self.convs(stoch).split(list(self.channels.values()), -1)
            found |= {key: ImageMSE(image) for key, image in zip(self.channels, images, strict=True)}
        if hasattr(self, "outs"):
            hidden = self.perceptron(stoch)
            for key, name in self.names.items():
                raw = self.outs[name](hidden)
                found[key] = Discretes(raw, self.discretes[key]) if key in self.discretes else Vector(raw)
        return found
