"""The step dictionary and the spaces around it: one vector for every action space, one Dict for every observation.

A step is what arrived together: `action` (the vector that led here, zeros at first), `reward`, `first`, `last`,
`terminal`, and one entry per observation key.
"""

# n environments, A width of the action vector

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from env_adapters.errors import TaskError, brief
from env_adapters.names import spelled
from env_adapters.pictures import is_picture, views
from env_adapters.values import Notices, entry

Environment = gymnasium.Env[Any, Any]
Space = spaces.Space[Any]
Step = dict[str, NDArray[Any]]
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


# ---------------------------------------------------------------- actions


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

    return _Part((n,), n, encode, decode)


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

    return _Part(tuple(int(size) for size in flat), int(offsets[-1]), encode, decode)


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
        value = np.asarray(value, np.float64).ravel()
        return np.where(both, (value - base) / divisor * 2 - 1, value - shift)

    def decode(vector: NDArray[Any]) -> Any:
        vector = vector.astype(np.float64)
        value = np.where(both, base + (vector + 1) / 2 * width, vector + shift)
        return np.clip(value, low, high).astype(space.dtype).reshape(space.shape)

    return _Part((), low.size, encode, decode)


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


# ---------------------------------------------------------------- observations


def observation_space(
    space: Space, signals: Collection[str] = (), grids: Collection[str] = (), sizes_kept: Collection[str] = ()
) -> spaces.Dict:
    """The Dict under which observations of any space travel.

    A plain observation is called "image" if it is a picture, else "vector"; nested keys are joined by "/", and no name is
    one of the step's own or of the `signals` (see `names`); pictures become bytes (H, W, C) with sides that an encoder
    takes, unless their name is among the `grids`, or `sizes_kept` (see `pictures`); float64 becomes float32, and Discrete and MultiDiscrete
    begin at 0. TaskError for a space without arrays (Text, Graph, Sequence), with two entries of one name, with an entry
    that is empty, or with none.

    >>> observation_space(spaces.Discrete(4))
    Dict('vector': Discrete(4))
    """
    named = named_leaves(space, signals)
    flat = dict(named)
    if not named:
        raise TaskError(f"the observation space {brief(space)} shows nothing; give it at least one entry")
    if len(flat) < len(named):
        twice = next(key for key, count in Counter(key for key, _ in named).items() if count > 1)
        raise TaskError(f"two observations are called {twice!r} once nested keys are joined by '/'; rename one")
    for key, leaf in flat.items():
        if not isinstance(leaf, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
            raise TaskError(
                f"the observation {key!r} is {brief(leaf)}, which is no array of fixed shape; "
                "turn it into a Box, Discrete, MultiDiscrete or MultiBinary with a wrapper"
            )
        if 0 in (leaf.shape or ()):
            raise TaskError(f"the observation {key!r} of shape {leaf.shape} shows nothing; leave it out with a wrapper")
    seen = views(flat, grids, sizes_kept)
    return spaces.Dict({key: seen[key].space if key in seen else _single(leaf) for key, leaf in flat.items()})


class Reader:
    """Observations of `space` -> entries of `observation_space(space, signals, grids, sizes_kept)`, every value as it is (see
    `values`), pictures as they are looked at. axis: (N,) where N agents each show one along the first axis of every entry.

    notices: kind -> sentence, of what is taken though it is not as the space says. TaskError for what cannot be.

    >>> Reader(spaces.Discrete(4, start=1))(4)
    {'vector': np.int64(3)}
    """

    def __init__(
        self,
        space: Space,
        signals: Collection[str] = (),
        grids: Collection[str] = (),
        axis: tuple[int, ...] = (),
        sizes_kept: Collection[str] = (),
    ) -> None:
        self.notices: Notices = {}
        named = named_leaves(space, signals)
        seen = views(dict(named), grids, sizes_kept)
        self.entries = [entry(name, leaf, self.notices, seen.get(name), axis) for name, leaf in named]
        self._space = space
        self._keys = tuple(space.spaces) if isinstance(space, spaces.Dict) else None
        self._flat = isinstance(space, spaces.Dict) and not any(map(_nested, space.spaces.values()))

    def __call__(self, value: Any) -> dict[str, Any]:
        try:
            parts = [value[key] for key in self._keys or ()] if self._flat else split(self._space, value)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise TaskError(
                f"the environment shows {_outline(value)}, its observation space is {brief(self._space)}: "
                "return an entry for each of the space's"
            ) from error
        if self._keys is not None and len(value) != len(self._keys):
            more = ", ".join(repr(key) for key in value if key not in self._keys)
            self.notices.setdefault("more", f"the environment shows {more}, which its space does not name: left out")
        return {one.key: one.read(part) for one, part in zip(self.entries, parts, strict=True)}

    def look(self, shown: Mapping[str, Any]) -> Notices:
        """All notices so far, also of values in `shown` that are outside their bounds."""
        for one in self.entries:
            one.look(shown[one.key])
        return self.notices


def observation(space: Space, value: Any, signals: Collection[str] = ()) -> dict[str, Any]:
    """An observation of `space` as an entry of `observation_space(space, signals)`."""
    return Reader(space, signals)(value)


def _nested(space: Space) -> bool:
    return isinstance(space, spaces.Dict | spaces.Tuple)


def _outline(value: Any) -> str:
    return f"a dict of {', '.join(map(repr, value))}" if isinstance(value, Mapping) else f"a {type(value).__name__}"


def sources(space: Space, signals: Collection[str] = ()) -> dict[str, tuple[tuple[str, ...], Space]]:
    """Where each entry of `observation_space(space, signals)` comes from: the keys on the way there, and its own space.

    >>> sources(spaces.Dict({"reward": spaces.Tuple([spaces.Discrete(2, start=5)])}))
    {'reward/0': (('reward', '0'), Discrete(2, start=5))}
    """
    paths = map(tuple, _paths(space))
    return {name: (path, leaf) for path, (name, leaf) in zip(paths, named_leaves(space, signals), strict=True)}


def named_leaves(space: Space, signals: Collection[str] = ()) -> list[tuple[str, Space]]:
    """Every observation of a space by the name under which it travels."""
    if not isinstance(space, spaces.Dict | spaces.Tuple):
        image = isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) == 3
        return [("image" if image or is_picture(space) else "vector", space)]
    paths, kinds = _paths(space), leaves(space)
    return list(zip(spelled(paths, signals), kinds, strict=True))


def _paths(space: Space) -> list[list[str]]:
    """The keys on the way to each leaf, in the order of `leaves`."""
    if not isinstance(space, spaces.Dict | spaces.Tuple):
        return [[]]
    items = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
    return [[str(key), *path] for key, inner in items for path in _paths(inner)]


def _single(space: Space) -> Space:
    if isinstance(space, spaces.Box) and space.dtype == np.float64:
        with np.errstate(over="ignore"):  # a bound beyond float32's is none
            return spaces.Box(space.low.astype(np.float32), space.high.astype(np.float32), dtype=np.float32)
    if isinstance(space, spaces.Discrete):
        return spaces.Discrete(space.n, dtype=space.dtype)
    if isinstance(space, spaces.MultiDiscrete):
        return spaces.MultiDiscrete(space.nvec, dtype=space.dtype)
    return space


def entries(space: spaces.Dict) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Shape and dtype of each observation of ONE environment."""
    return {key: (tuple(leaf.shape or ()), np.dtype(leaf.dtype)) for key, leaf in space.spaces.items()}


def digest(value: Any) -> str:
    """Fingerprint of a nested value of dicts, tuples, arrays and numbers.

    >>> digest({"a": np.zeros(2)}) == digest({"a": np.zeros(2)}), digest(np.zeros(2)) == digest(np.ones(2))
    (True, False)
    """
    state = hashlib.blake2b(digest_size=16)

    def feed(one: Any) -> None:
        if isinstance(one, Mapping):
            for key in one:
                state.update(str(key).encode())
                feed(one[key])
        elif isinstance(one, tuple | list):
            for item in one:
                feed(item)
        else:
            array = np.ascontiguousarray(one)
            state.update(f"{array.dtype}{array.shape}".encode())
            state.update(array.tobytes())

    feed(value)
    return state.hexdigest()
