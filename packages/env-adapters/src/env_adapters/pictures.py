"""A box that shows a picture -> bytes (H, W, C) whose sides an encoder can halve four times; a small grid of symbols stays.

What is seen as something else than the space declares is said in a notice. Everything here works on one observation, so
that acting and replay see the same, and replay keeps what is looked at and no more.
"""

# H W C a picture's shape

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeGuard

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from env_adapters.errors import TaskError, brief

Space = spaces.Space[Any]
SYMBOLS = 32  # sides, and values, below which bytes are symbols in a grid
HALVED = 16  # sides are multiples of it
LARGEST = 96  # and no longer than this, once they are changed


@dataclass(frozen=True)
class View:
    """How one observation is looked at. space: as it travels. order: of its axes. words: in words, what is done."""

    key: str
    space: spaces.Box
    order: str = "last"
    low: float = 0.0
    scale: float = 1.0
    size: tuple[int, int] | None = None
    symbols: bool = False
    words: str = ""

    def __call__(self, value: NDArray[Any]) -> NDArray[np.uint8]:
        """The observation as it travels. TaskError for a symbol that is none."""
        if self.symbols and value.max(initial=0) >= SYMBOLS:
            raise TaskError(
                f"the environment shows {self.key!r} with the value {value.max()}, but so far its values lay below "
                f"{SYMBOLS}, and it was taken for a grid of symbols: declare a Box with a lower `high` if it is one, or "
                f"resize it to {SYMBOLS}x{SYMBOLS} or more if it is a picture"
            )
        value = arranged(value, self.order)
        if value.dtype != np.uint8:
            value = np.rint(np.clip((value - self.low) * self.scale, 0, 255)).astype(np.uint8)
        return np.ascontiguousarray(value if self.size is None else resized(value, self.size))


def views(
    observed: Mapping[str, Space], grids: Collection[str] = (), sizes_kept: Collection[str] = ()
) -> dict[str, View]:
    """Of the observations that travel otherwise than declared, how they are looked at.

    uint8 of rank 3 is a picture, channels first where the first axis is the shortest; of rank 2 a grey one where its sides
    are 32 and more; floats of rank 3 with one finite range are pictures too. Pictures of one space get one size, unless
    all have the same already and it is fit. grids: names of `unclear` pictures that show symbols. sizes_kept: names of
    pictures that are not resized, for encoders that take sides of any length.

    >>> found = views({"eye": spaces.Box(0, 255, (3, 84, 84), np.uint8), "speed": spaces.Box(-1, 1, (3,))})
    >>> {key: (view.space.shape, view.words) for key, view in found.items()}
    {'eye': ((80, 80, 3), 'a picture with its channels first, resized to 80x80')}
    """
    pictures = {key: space for key, space in observed.items() if is_picture(space) and key not in grids}
    sides = {key: arranged_shape(space.shape)[:2] for key, space in pictures.items()}
    size = common_size({one for key, one in sides.items() if key not in sizes_kept})
    found = {
        key: _view(key, space, None if key in sizes_kept or sides[key] == size else size)
        for key, space in pictures.items()
    }
    for key in sorted(grids):
        symbols = spaces.Box(0, SYMBOLS - 1, observed[key].shape, np.uint8)
        found[key] = View(key, symbols, symbols=True, words=f"a grid of symbols below {SYMBOLS}")
    return {key: view for key, view in found.items() if view.words}


def unclear(observed: Mapping[str, Space]) -> list[str]:
    """Names of bytes with short sides that may be pictures or symbols: their space does not tell, their values do.

    >>> unclear({"a": spaces.Box(0, 255, (7, 7, 3), np.uint8), "b": spaces.Box(0, 255, (16, 16, 3), np.uint8)})
    ['a']
    """
    found = []
    for key, space in observed.items():
        if is_picture(space) and space.dtype == np.uint8 and len(space.shape) == 3:
            sides = arranged_shape(space.shape)[:2]
            if max(sides) < SYMBOLS and any(side % HALVED for side in sides):
                found.append(key)
    return found


def named_grids(names: Collection[str], observed: Mapping[str, Space]) -> list[str]:
    """Names of observations that were said to be grids of symbols, without those whose space says it too.

    TaskError for one that cannot be a grid.

    >>> named_grids(["a"], {"a": spaces.Box(0, 255, (7, 7, 3), np.uint8)})
    ['a']
    """
    found = []
    for key in sorted(names):
        space = observed.get(key)
        if space is None:
            raise TaskError(f"grids names {key!r}, but the observations are {', '.join(sorted(observed))}")
        shape = space.shape or ()
        bytes_ = isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(shape) == 3 and 0 not in shape
        if not bytes_ or max(arranged_shape(shape)[:2]) >= SYMBOLS:
            raise TaskError(
                f"grids names {key!r}, which is {brief(space)}: a grid of symbols is bytes (H, W, C) with sides below "
                f"{SYMBOLS}"
            )
        if is_picture(space):
            found.append(key)
    return found


def arranged(value: NDArray[Any], order: str) -> NDArray[Any]:
    """(H, W, C) of a picture of another order."""
    return {"last": value, "first": np.moveaxis(value, 0, -1), "grey": value[..., None]}[order]


def order(shape: tuple[int, ...]) -> str:
    """Of a picture's axes: "grey" without channels, "first" where the first is the shortest, else "last".

    >>> order((64, 64)), order((3, 64, 64)), order((64, 64, 3)), order((16, 64, 64)), order((8, 8, 8))
    ('grey', 'first', 'last', 'first', 'last')
    """
    if len(shape) == 2:
        return "grey"
    return "first" if shape[0] < min(shape[1:]) else "last"


def arranged_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(H, W, C) of a picture of this shape."""
    one, two, *rest = shape
    return {"grey": (one, two, 1), "first": (two, *rest, one), "last": (one, two, *rest)}[order(shape)]  # type: ignore[return-value]


def common_size(sizes: Collection[tuple[int, int]]) -> tuple[int, int] | None:
    """The size of all pictures of a space: theirs where they have one that is fit, else multiples of 16 up to 96.

    >>> common_size({(64, 64)}), common_size({(84, 84)}), common_size({(210, 160)}), common_size({(7, 7), (30, 40)})
    ((64, 64), (80, 80), (96, 80), (32, 48))
    """
    if not sizes:
        return None
    if len(sizes) == 1 and not any(side % HALVED for side in next(iter(sizes))):
        return next(iter(sizes))
    high, wide = (max(size[axis] for size in sizes) for axis in (0, 1))
    share = min(1.0, LARGEST / max(high, wide)) / HALVED
    return HALVED * max(1, int(high * share + 0.5)), HALVED * max(1, int(wide * share + 0.5))


def resized(picture: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """(H, W, C) -> (h, w, C), each channel by itself: linear between pixels, and the mean of those that fall together.

    >>> resized(np.array([[[0], [8]], [[0], [8]]], np.uint8), (1, 1)).tolist()
    [[[4]]]
    """
    high, wide, channels = picture.shape
    rows = _weights(high, size[0]) @ picture.reshape(high, -1).astype(np.float32)
    both = _weights(wide, size[1]) @ rows.reshape(size[0], wide, channels)
    return np.rint(both).astype(np.uint8)


@cache
def _weights(before: int, after: int) -> NDArray[np.float32]:
    """(after, before): the share of each old pixel in each new one, a triangle as wide as what falls together."""
    step = before / after
    middle = (np.arange(after) + 0.5) * step
    away = np.abs(np.arange(before) + 0.5 - middle[:, None]) / max(step, 1.0)
    weights = np.clip(1 - away, 0, None)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def is_picture(space: Space) -> TypeGuard[spaces.Box]:
    """Whether a space shows a picture, as far as it tells."""
    if not isinstance(space, spaces.Box) or len(space.shape) not in (2, 3) or 0 in space.shape:
        return False
    sides, high = arranged_shape(space.shape)[:2], space.high.max()
    if space.dtype == np.uint8:
        symbols = high < SYMBOLS and max(sides) < SYMBOLS
        return not symbols if len(space.shape) == 3 else bool(min(sides) >= SYMBOLS and high >= SYMBOLS)
    floats = np.issubdtype(space.dtype, np.floating) and len(space.shape) == 3 and min(sides) >= HALVED
    return bool(floats and _range(space) is not None)


def _range(space: spaces.Box) -> tuple[float, float] | None:
    """The bounds of all entries, where they are the same and finite."""
    low, high = float(space.low.flat[0]), float(space.high.flat[0])
    one = (space.low == low).all() and (space.high == high).all()
    return (low, high) if one and low < high and high - low < 1e6 else None


def _view(key: str, space: Space, size: tuple[int, int] | None) -> View:
    """A picture's; `size` None leaves it as large as it is."""
    assert isinstance(space, spaces.Box)
    axes, (high, wide, channels) = order(space.shape), arranged_shape(space.shape)
    low, scale = 0.0, 1.0
    notes = [{"last": "", "first": "a picture with its channels first", "grey": "a grey picture"}[axes]]
    if space.dtype != np.uint8:
        low, top = _range(space) or (0.0, 255.0)
        scale = 255 / (top - low)
        notes.append(f"a picture with {low:g} to {top:g} as bytes")
    if size is not None:
        notes.append(("" if any(notes) else "a picture, ") + f"resized to {size[0]}x{size[1]}")
    travels = spaces.Box(0, 255, (*(size or (high, wide)), channels), np.uint8)
    return View(key, travels, axes, low, scale, size, words=", ".join(filter(None, notes)))
