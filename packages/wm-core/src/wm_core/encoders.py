"""A dictionary of observations -> one embedding, and back: images through convolutions, the rest through an MLP.

Sizes: B batch, T time, E embed, U units.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wm_core.blocks import MLP, linear
from wm_core.contracts import Distribution
from wm_core.distributions import Categorical, ImageMSE, SymlogMSE
from wm_core.images import ConvDecoder, ConvEncoder
from wm_core.names import module
from wm_core.observations import Observations
from wm_core.precision import wide
from wm_core.twohot import symlog
from wm_core.types import Latent, Steps


class ImageEncoder(Protocol):
    """An encoder of images: ConvEncoder, StridedEncoder, or any module called like them."""

    width: int

    def __call__(self, image: Tensor) -> Tensor:
        """uint8 (..., H, W, C) -> (..., width)."""


class VectorInput(nn.Module):
    """The vectors (symlog) and discrete values (one-hot) of a step, joined in sorted order: (B, T, width)."""

    def __init__(self, observations: Observations) -> None:
        super().__init__()
        self.vectors, self.discretes = dict(observations.vectors), dict(observations.discretes)
        self.width = sum(self.vectors.values()) + sum(sum(sizes) for sizes in self.discretes.values())

    def forward(self, steps: Steps) -> Tensor:
        lead = steps["first"].shape
        parts = []
        for key in sorted([*self.vectors, *self.discretes]):
            value = steps[key]
            if key in self.vectors:
                parts.append(symlog(wide(value)).reshape(*lead, -1))
            else:
                index, sizes = value.long().reshape(*lead, -1), self.discretes[key]
                if alike(sizes):
                    parts.append(self.entry(index, sizes[0]).flatten(-2))
                else:
                    parts += [self.entry(c, n) for c, n in zip(index.unbind(-1), sizes, strict=True)]
        return torch.cat(parts, -1)

    def entry(self, index: Tensor, size: int) -> Tensor:
        """Discrete values (...) of `size` -> what the network sees of each: (..., size)."""
        return F.one_hot(index, size).float()


class SymlogInput(VectorInput):
    """`VectorInput` for which a one-hot is a vector like others, its one squashed too: 0.69. As in DreamerV3 of 2023."""

    def entry(self, index: Tensor, size: int) -> Tensor:
        return symlog(super().entry(index, size))


class MultiEncoder(nn.Module):
    """An Encoder: steps -> {"obs": (B, T, E)}, vector features first, then image features. `width` is E.

    Args:
        observations: what there is to see; all images have one height and width, and are joined by channels.
        units: of each layer of the MLP for all that is no image.
        depth: channels of the image encoder's stages, as multiples of it.
        layers: of the MLP.
        images: makes the image encoder of a shape (H, W, C): ConvEncoder (2025) or StridedEncoder (2023).
        inputs: makes what joins the rest: VectorInput, or SymlogInput (2023).

    >>> from wm_core.observations import Observations
    >>> encoder = MultiEncoder(Observations(vectors={"vector": 4}), units=8, depth=2)
    >>> steps = {"vector": torch.zeros(2, 5, 4), "first": torch.zeros(2, 5, dtype=torch.bool)}
    >>> encoder(steps)["obs"].shape
    torch.Size([2, 5, 8])
    """

    def __init__(
        self,
        observations: Observations,
        *,
        units: int,
        depth: int,
        layers: int = 3,
        images: Callable[..., ImageEncoder] = ConvEncoder,
        inputs: Callable[[Observations], VectorInput] = VectorInput,
    ) -> None:
        super().__init__()
        self.images = tuple(observations.images)
        self.input = inputs(observations)
        self.width = 0
        if self.input.width:
            self.mlp = MLP(self.input.width, units, layers)
            self.width += units
        if self.images:
            height, width, _ = observations.images[self.images[0]]
            channels = sum(shape[2] for shape in observations.images.values())
            self.conv = images((height, width, channels), depth=depth)
            self.width += self.conv.width

    def forward(self, steps: Steps) -> dict[str, Tensor]:
        parts = []
        if self.input.width:
            parts.append(self.mlp(self.input(steps)))
        if self.images:
            parts.append(self.conv(torch.cat([steps[key] for key in self.images], -1)))
        return {"obs": parts[0] if len(parts) == 1 else torch.cat(parts, -1)}


class MultiDecoder(nn.Module):
    """latent -> a distribution for every observation key: images by `images`, the rest from one shared MLP.

    Args:
        observations: what is to be shown.
        widths: of the latent's "deter" and "stoch".
        units: of each layer of the MLP; the image decoder's hidden layer has twice as many.
        depth: channels of the image decoder's stages, as multiples of it.
        layers: of the MLP.
        blocks: of the image decoder's way from deter.
        images: makes the image decoder of a shape (H, W, C): ConvDecoder (2025) or StridedDecoder (2023).
        values: makes the distribution of a discrete key, of its outputs and the number of values of each entry: Discretes,
            or OneHotVectors (2023).
    """

    reads = ("deter", "stoch")

    def __init__(
        self,
        observations: Observations,
        *,
        widths: Mapping[str, int],
        units: int,
        depth: int,
        layers: int = 3,
        blocks: int = 8,
        images: Callable[..., nn.Module] = ConvDecoder,
        values: Callable[[Tensor, tuple[int, ...]], Distribution] | None = None,
    ) -> None:
        super().__init__()
        self.values = values or Discretes
        self.channels = {key: shape[2] for key, shape in observations.images.items()}
        self.discretes = dict(observations.discretes)
        deter, stoch = widths["deter"], widths["stoch"]
        outputs = dict(observations.vectors) | {key: sum(sizes) for key, sizes in self.discretes.items()}
        if self.channels:
            height, width, _ = next(iter(observations.images.values()))
            shape = (height, width, sum(self.channels.values()))
            self.conv = images(shape, deter=deter, stoch=stoch, depth=depth, units=units, blocks=blocks)
        if outputs:
            self.mlp = MLP(deter + stoch, units, layers)
            self.outs = nn.ModuleDict({module(key): linear(units, size) for key, size in outputs.items()})
            self.names = {key: module(key) for key in outputs}

    def forward(self, latent: Latent) -> dict[str, Distribution]:
        found: dict[str, Distribution] = {}
        if self.channels:
            images = self.conv(latent.deter, latent.read("stoch")).split(list(self.channels.values()), -1)
            found |= {key: ImageMSE(image) for key, image in zip(self.channels, images, strict=True)}
        if hasattr(self, "mlp"):
            hidden = self.mlp(latent.read("stoch", "deter"))
            for key, name in self.names.items():
                raw = self.outs[name](hidden)
                found[key] = self.values(raw, self.discretes[key]) if key in self.discretes else Vector(raw)
        return found


def alike(sizes: Sequence[int]) -> bool:
    """Whether discrete values can be looked at all at once: a grid of symbols has hundreds."""
    return len(set(sizes)) == 1


class Vector(SymlogMSE):
    """Squared symlog error of a vector of any rank, flattened: a `Distribution`, its `mode` flat (..., n)."""

    def loss(self, target: Tensor) -> Tensor:
        return super().loss(target.reshape(self.pred.shape))


class Discretes:
    """Independent categoricals side by side, a `Distribution` of indices (..., k) int: cross-entropy, summed over the k
    entries. logits: (..., the sum of `sizes`)."""

    def __init__(self, logits: Tensor, sizes: tuple[int, ...]) -> None:
        self.logits, self.sizes = logits, sizes

    @cached_property
    def parts(self) -> list[Categorical]:
        """One an entry."""
        return [Categorical(part) for part in self.logits.split(list(self.sizes), -1)]

    @cached_property
    def whole(self) -> Categorical:
        """Of all entries at once, where they have one size: logits (..., k, size)."""
        return Categorical(self.logits.unflatten(-1, (-1, self.sizes[0])))

    def mode(self) -> Tensor:
        return self.whole.mode() if alike(self.sizes) else torch.stack([part.mode() for part in self.parts], -1)

    def loss(self, target: Tensor) -> Tensor:
        index = target.reshape(*self.logits.shape[:-1], -1)
        if alike(self.sizes):
            losses = self.whole.loss(index).movedim(-1, 0).contiguous()
        else:
            losses = torch.stack([part.loss(one) for part, one in zip(self.parts, index.unbind(-1), strict=True)])
        return losses.sum(0)


class OneHotVectors(SymlogMSE):
    """Discrete values as the vector of their one-hots: its squared symlog error, summed. As in DreamerV3 of 2023.

    A `Distribution` of indices (..., k) int. pred: (..., the sum of `sizes`).

    >>> seen = OneHotVectors(symlog(torch.tensor([[0.0, 1.0, 1.0, 0.0, 0.0]])), (2, 3))
    >>> seen.mode().tolist(), seen.loss(torch.tensor([[1, 0]])).item()
    ([[1, 0]], 0.0)
    """

    def __init__(self, pred: Tensor, sizes: tuple[int, ...]) -> None:
        super().__init__(pred)
        self.sizes = sizes

    def mode(self) -> Tensor:
        """The likeliest value of each entry: (..., k) int64."""
        if alike(self.sizes):
            return self.pred.unflatten(-1, (-1, self.sizes[0])).argmax(-1)
        return torch.stack([part.argmax(-1) for part in self.pred.split(list(self.sizes), -1)], -1)

    def loss(self, target: Tensor) -> Tensor:
        index = target.long().reshape(*self.pred.shape[:-1], -1)
        if alike(self.sizes):
            return super().loss(F.one_hot(index, self.sizes[0]).flatten(-2))
        return super().loss(torch.cat([F.one_hot(c, n) for c, n in zip(index.unbind(-1), self.sizes, strict=True)], -1))
