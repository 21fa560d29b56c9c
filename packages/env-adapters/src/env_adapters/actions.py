"""Native actions of any space <-> one vector: a one-hot for each discrete component, then the continuous ones."""

# A width of the action vector

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from env_adapters.errors import TaskError, brief
from env_adapters.nested import Space, join, leaves, split

_FAR = 1e15  # a bound out there means none: no unit is so small, and half of finfo.max is no action


@dataclass(frozen=True)
class ActionSpec:
    """What an action vector holds: a one-hot for each discrete component, then the continuous ones.

    >>> ActionSpec(discrete=(3, 2), continuous=1).size
    6
    """

    discrete: tuple[int, ...] = ()
    continuous: int = 0

    @property
    def size(self) -> int:
        """Width A of the vector."""
        return sum(self.discrete) + self.continuous


class ActionCodec:
    """Native actions of a space <-> vectors (A,): one-hots first, then Box components in [-1, 1].

    A Box component with two bounds is rescaled to them. One with a single bound passes unscaled, moved just as far as is
    needed for [-1, 1] to lie inside ([5, inf) is 5 to 7); one without passes as it is. A bound beyond 1e15, or the largest
    number of the space's dtype, is none. All are clipped to the bounds there are.

    >>> codec = ActionCodec(spaces.Box(0.0, 10.0, (1,)))
    >>> codec.decode(np.array([0.5])).tolist(), codec.encode(np.array([7.5], np.float32)).tolist()
    ([7.5], [0.5])
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        parts = [_part(leaf, space) for leaf in leaves(space)]
        discrete = tuple(size for part in parts for size in part.sizes)
        self.spec = ActionSpec(discrete, sum(part.width for part in parts if not part.sizes))
        if not self.spec.size:
            raise TaskError(f"the action space {brief(space)} holds no action; give it at least one component")
        at, behind = 0, sum(discrete)
        self._parts: list[tuple[slice, _Part]] = []
        for part in parts:
            start, at, behind = (at, at + part.width, behind) if part.sizes else (behind, at, behind + part.width)
            self._parts.append((slice(start, start + part.width), part))
        self._single = None if isinstance(space, spaces.Dict | spaces.Tuple) else parts[0]

    def encode(self, native: Any) -> NDArray[np.float32]:
        """Vector (A,), float32, of a native action."""
        vector = np.zeros(self.spec.size, np.float32)
        for value, (where, part) in zip(split(self.space, native), self._parts, strict=True):
            vector[where] = part.encode(value)
        return vector

    def encode_all(self, natives: Any) -> NDArray[np.float32]:
        """Vectors (T, A) of T native actions, every leaf of which has them in front, (T, ...).

        >>> ActionCodec(spaces.Discrete(3, start=1)).encode_all(np.array([1, 3])).tolist()
        [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
        """
        parts = [np.asarray(one) for one in split(self.space, natives)]
        vectors = np.zeros((len(parts[0]), self.spec.size), np.float32)
        for values, (where, part) in zip(parts, self._parts, strict=True):
            vectors[:, where] = part.encode_all(values.reshape(len(values), -1))
        return vectors

    def decode(self, vector: NDArray[Any]) -> Any:
        """Native action of a vector (A,); of each one-hot its largest entry counts."""
        if self._single is not None:
            return self._single.decode(vector)
        return join(self.space, iter([part.decode(vector[where]) for where, part in self._parts]))


@dataclass(frozen=True)
class _Part:
    """One leaf of an action space; `sizes` is empty for a continuous one."""

    sizes: tuple[int, ...]
    width: int
    encode: Callable[[Any], Any]
    decode: Callable[[NDArray[Any]], Any]
    encode_all: Callable[[NDArray[Any]], Any]  # of (T, components)


def _part(leaf: Space, whole: Space) -> _Part:
    if isinstance(leaf, spaces.Discrete):
        return _discrete(int(leaf.n), int(leaf.start))
    if isinstance(leaf, spaces.MultiDiscrete):
        return _multi(np.asarray(leaf.nvec), np.asarray(leaf.start), leaf.dtype)
    if isinstance(leaf, spaces.MultiBinary):
        return _multi(np.full(leaf.shape, 2), np.zeros(leaf.shape, np.int64), leaf.dtype)
    if isinstance(leaf, spaces.Box) and np.issubdtype(leaf.dtype, np.floating):
        return _box(leaf)
    raise TaskError(
        f"the action space {brief(whole)} holds {brief(leaf)}, which has no action vector; "
        "use Discrete, MultiDiscrete, MultiBinary, a float Box, or a Dict or Tuple of those"
    )


def _discrete(n: int, start: int) -> _Part:
    def encode(value: Any) -> NDArray[np.float32]:
        vector = np.zeros(n, np.float32)
        vector[int(value) - start] = 1.0
        return vector

    def decode(vector: NDArray[Any]) -> int:
        return int(vector.argmax()) + start

    return _Part(
        (n,), n, encode, decode, lambda values: np.eye(n, dtype=np.float32)[values[:, 0].astype(np.int64) - start]
    )


def _multi(sizes: NDArray[Any], start: NDArray[Any], dtype: Any) -> _Part:
    flat = sizes.ravel()
    offsets = np.concatenate([[0], np.cumsum(flat)])

    def encode(value: Any) -> NDArray[np.float32]:
        vector = np.zeros(offsets[-1], np.float32)
        vector[offsets[:-1] + (np.asarray(value) - start).ravel()] = 1.0
        return vector

    def decode(vector: NDArray[Any]) -> Any:
        picks = [vector[a:b].argmax() for a, b in pairwise(offsets)]
        return (np.array(picks, np.int64).reshape(sizes.shape) + start).astype(dtype)

    def encode_all(values: NDArray[Any]) -> NDArray[np.float32]:
        vectors = np.zeros((len(values), offsets[-1]), np.float32)
        np.put_along_axis(vectors, offsets[:-1] + (values - start.ravel()).astype(np.int64), 1.0, 1)
        return vectors

    return _Part(tuple(int(size) for size in flat), int(offsets[-1]), encode, decode, encode_all)


def _box(space: spaces.Box) -> _Part:
    low, high = space.low.astype(np.float64).ravel(), space.high.astype(np.float64).ravel()
    floats: Any = space.dtype
    none = min(_FAR, float(np.finfo(floats).max))
    below, above = low > -none, high < none  # where there is a bound
    both = below & above
    base = np.where(both, low, 0.0)
    width = np.where(both, high, 0.0) - base
    divisor = np.where(width > 0, width, 1.0)  # a component whose bounds meet encodes as -1
    shift = np.where(below & ~above, np.maximum(low + 1, 0.0), np.where(above & ~below, np.minimum(high - 1, 0.0), 0.0))

    def encode(value: Any) -> Any:
        return encode_all(np.asarray(value, np.float64).ravel())

    def encode_all(values: NDArray[Any]) -> Any:
        values = values.astype(np.float64)
        return np.where(both, (values - base) / divisor * 2 - 1, values - shift)

    def decode(vector: NDArray[Any]) -> Any:
        vector = vector.astype(np.float64)
        value = np.where(both, base + (vector + 1) / 2 * width, vector + shift)
        return np.clip(value, low, high).astype(space.dtype).reshape(space.shape)

    return _Part((), low.size, encode, decode, encode_all)


def action_spec(space: Space) -> ActionSpec:
    """What the action vectors of a space hold; TaskError where there are none.

    >>> action_spec(spaces.Tuple([spaces.Discrete(3), spaces.Box(-1, 1, (2,))]))
    ActionSpec(discrete=(3,), continuous=2)
    """
    return ActionCodec(space).spec


def encode_action(space: Space, native: Any) -> NDArray[np.float32]:
    """Vector (A,) of a native action.

    >>> encode_action(spaces.Discrete(3), 1).tolist()
    [0.0, 1.0, 0.0]
    """
    return ActionCodec(space).encode(native)


def decode_action(space: Space, vector: NDArray[Any]) -> Any:
    """Native action of a vector (A,).

    >>> decode_action(spaces.Discrete(3), np.array([0.1, 0.7, 0.2]))
    1
    """
    return ActionCodec(space).decode(vector)
