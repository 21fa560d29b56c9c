"""Dict and Tuple spaces <-> the list of their leaves, spaces or values, in the space's own order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gymnasium import spaces

Space = spaces.Space[Any]


def leaves(space: Space) -> list[Space]:
    """The spaces inside a Dict or Tuple, in the space's own order; any other space is its only leaf."""
    if isinstance(space, spaces.Dict):
        return [leaf for inner in space.spaces.values() for leaf in leaves(inner)]
    if isinstance(space, spaces.Tuple):
        return [leaf for inner in space.spaces for leaf in leaves(inner)]
    return [space]


def split(space: Space, value: Any) -> list[Any]:
    """A value of a nested space as the list of its leaves' values."""
    if isinstance(space, spaces.Dict):
        return [leaf for key, inner in space.spaces.items() for leaf in split(inner, value[key])]
    if isinstance(space, spaces.Tuple):
        return [leaf for inner, one in zip(space.spaces, value, strict=True) for leaf in split(inner, one)]
    return [value]


def join(space: Space, values: Iterator[Any]) -> Any:
    """The inverse of `split`."""
    if isinstance(space, spaces.Dict):
        return {key: join(inner, values) for key, inner in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(join(inner, values) for inner in space.spaces)
    return next(values)


def rebuilt(space: Space, parts: Iterator[Space]) -> Space:
    """A space of the same Dicts and Tuples with other leaves."""
    if isinstance(space, spaces.Dict):
        return spaces.Dict({key: rebuilt(inner, parts) for key, inner in space.spaces.items()})
    if isinstance(space, spaces.Tuple):
        return spaces.Tuple([rebuilt(inner, parts) for inner in space.spaces])
    return next(parts)
