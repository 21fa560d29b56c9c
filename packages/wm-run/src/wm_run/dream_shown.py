"""Latents -> observations: decoded, in the space and dtype of the task's own, or flat as they are. Sizes: n dreams."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from wm_core.errors import UserError
from wm_core.observations import is_image
from wm_core.types import Latent
from wm_core.world import WorldModel, stack

Observations = dict[str, NDArray[Any]]


class Decoded:
    """What the decoder says was to be seen: {name: (n, ...)}, each as its entry of the Dict space has it.

    Images become bytes again, numbers are clipped to their bounds, whole numbers rounded.
    """

    def __init__(self, world: WorldModel, space: Any, latent: Latent) -> None:
        """latent: any one (n, ...), by which is asked what is decoded. Raises UserError where an entry is not."""
        self.world, self.space = world, space
        if missing := set(space.spaces) - set(world.decoder(stack([latent]))):
            raise UserError(f"the model decodes no {sorted(missing)}: give observations='latent'")

    def __call__(self, latent: Latent) -> Observations:
        said = self.world.decoder(stack([latent]))
        return {key: entry(said[key].mode()[:, 0], one) for key, one in self.space.spaces.items()}


class Flat:
    """The latents' features side by side, (n, F) float32."""

    def __init__(self, latent: Latent) -> None:
        self.names = latent.names()
        self.width = latent.read(*self.names).shape[-1]

    def __call__(self, latent: Latent) -> NDArray[np.float32]:
        return latent.read(*self.names).float().cpu().numpy()


def entry(said: Tensor, space: Any) -> NDArray[Any]:
    """A prediction (n, ...) in the units of a decoder as observations (n, *shape) of a space.

    >>> import torch
    >>> from types import SimpleNamespace
    >>> space = SimpleNamespace(dtype=np.dtype(np.float32), shape=(2,), low=np.zeros(2), high=np.ones(2))
    >>> entry(torch.tensor([[0.25, 1.5]]), space)
    array([[0.25, 1.  ]], dtype=float32)
    """
    dtype, shape = np.dtype(space.dtype), tuple(space.shape or ())
    if is_image(space):
        said = said.float() * 255
    lead = len(said)
    if said.is_floating_point():
        said = said.float()
        said = said if dtype.kind == "f" else said.round()
    array = said.cpu().numpy().reshape(lead, *shape)
    low, high = bounds(space)
    return np.clip(array, low, high).astype(dtype)


def bounds(space: Any) -> tuple[Any, Any]:
    """The least and the largest value of a space, numbers or arrays."""
    kind = type(space).__name__
    if kind == "Discrete":
        return int(space.start), int(space.start) + int(space.n) - 1
    if kind == "MultiDiscrete":
        return space.start, space.start + space.nvec - 1
    if kind == "MultiBinary":
        return 0, 1
    return space.low, space.high


def picture(world: WorldModel, key: str, latent: Latent) -> NDArray[np.float32]:
    """The decoded image (n, H, W, C) in [0, 1], a little beyond where a decoder does not bound it."""
    shown: Tensor = world.decoder(stack([latent]))[key].mode()[:, 0]
    return shown.float().cpu().numpy()


def image_of(space: Any) -> str | None:
    """The first image of a Dict space, by its name; None where there is none."""
    return min((key for key, one in space.spaces.items() if is_image(one)), default=None)
