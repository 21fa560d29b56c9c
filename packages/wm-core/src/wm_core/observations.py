"""What an environment shows, sorted: images, vectors, discrete values. Read from a gymnasium space, without importing it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from wm_core.errors import UserError
from wm_core.names import NOTE, WORDS

SYMBOLS = 32  # sides, and values, below which a box of uint8 is no image but a grid of symbols
MANY = 2**20  # one-hots of an observation beyond which its values are numbers and no choices


@dataclass(frozen=True)
class Observations:
    """images: key -> (H, W, C); vectors: key -> flat size; discretes: key -> the number of values of each entry."""

    images: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    vectors: Mapping[str, int] = field(default_factory=dict)
    discretes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def keys(self) -> tuple[str, ...]:
        return (*self.images, *self.vectors, *self.discretes)


def describe(space: Any, *, multiple: int = 16, way_out: str = "resize it, for example to 64x64") -> Observations:
    """Sort the entries of a gymnasium Dict space.

    uint8 boxes of rank 3 are images (sides must be multiples of `multiple` and equal among images; env-adapters resizes what
    is not so to multiples of 16), or grids of discrete values where sides and values lie below 32; other boxes and
    MultiBinary are vectors, Discrete and MultiDiscrete are discrete, or vectors where they have more than a million values.
    multiple: as the image encoder's class says, which halves sides four times: 16, or 1 for StridedEncoder. way_out: what the
    user of an image of other sides is told to do. Raises UserError for anything else.
    """
    images: dict[str, tuple[int, int, int]] = {}
    vectors: dict[str, int] = {}
    discretes: dict[str, tuple[int, ...]] = {}
    for key, one in sorted(getattr(space, "spaces", {"observation": space}).items()):
        kind = type(one).__name__
        shape: Any = getattr(one, "shape", None)
        if 0 in (shape or ()):
            raise UserError(f"observation {key!r} of shape {tuple(shape)} shows nothing: leave it out in a wrapper")
        if key in WORDS or key.startswith(NOTE):
            raise UserError(f"observation key {key!r} is reserved for the step dictionary; rename it in a wrapper")
        if kind in ("Discrete", "MultiDiscrete"):
            sizes = (int(one.n),) if kind == "Discrete" else tuple(int(n) for n in one.nvec.reshape(-1))
            if sum(sizes) > MANY:
                vectors[key] = len(sizes)
            else:
                discretes[key] = sizes
        elif kind == "Box" and is_grid(one):
            discretes[key] = (int(one.high.max()) + 1,) * math.prod(shape)
        elif kind == "Box" and is_image(one):
            if shape[0] % multiple or shape[1] % multiple:
                raise UserError(
                    f"image {key!r} is {shape[0]}x{shape[1]}; the encoder needs sides that are multiples of {multiple}: {way_out}"
                )
            images[key] = shape
        elif kind in ("MultiBinary", "Box"):
            vectors[key] = math.prod(shape)
        else:
            raise UserError(
                f"the encoder cannot read observation {key!r} of space {one}; it reads boxes, Discrete, MultiDiscrete "
                "and MultiBinary: convert it in a wrapper"
            )
    if len({shape[:2] for shape in images.values()}) > 1:
        raise UserError(f"all images must have one size, not {images}: resize them in a wrapper")
    if not (images or vectors or discretes):
        raise UserError("the environment shows nothing: its observation space is empty")
    return Observations(images, vectors, discretes)


def is_grid(box: Any) -> bool:
    """Whether a box holds symbols in a grid, as MiniGrid's 7x7x3 do: uint8 (H, W, C), sides and values below 32."""
    high = getattr(box, "high", None)
    small = len(box.shape or ()) == 3 and max(box.shape[:2]) < SYMBOLS
    return bool(small and _bytes(box) and high is not None and high.max() < SYMBOLS)


def is_image(box: Any) -> bool:
    """Whether a box is a picture to be convolved: uint8 (H, W, C) and no grid."""
    return len(box.shape or ()) == 3 and _bytes(box) and not is_grid(box)


def _bytes(box: Any) -> bool:
    return getattr(box.dtype, "name", str(box.dtype)) == "uint8"
