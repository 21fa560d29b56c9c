"""The step dictionary and the space of what it shows: one Dict for every observation. Its actions are those of `actions`.

A step is what arrived together: `action` (the vector that led here, zeros at first), `reward`, `first`, `last`,
`terminal`, and one entry per observation key.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from itertools import compress
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from env_adapters.errors import TaskError, brief
from env_adapters.names import spelled
from env_adapters.nested import Space, leaves, split
from env_adapters.pictures import is_picture, views
from env_adapters.values import Notices, entry

Environment = gymnasium.Env[Any, Any]
Step = dict[str, NDArray[Any]]


ARRAYS = spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary


def observation_space(
    space: Space,
    signals: Collection[str] = (),
    grids: Collection[str] = (),
    sizes_kept: Collection[str] = (),
    drop: Collection[str] = (),
) -> spaces.Dict:
    """The Dict under which observations of any space travel.

    A plain observation is called "image" if it is a picture, else "vector"; nested keys are joined by "/", and no name is
    one of the step's own or of the `signals` (see `names`); pictures become bytes (H, W, C) with sides that an encoder
    takes, unless their name is among the `grids`, or `sizes_kept` (see `pictures`); float64 becomes float32, and Discrete
    and MultiDiscrete begin at 0. Names in `drop` are left out. TaskError for a space without arrays (Text, Graph, Sequence), with two entries of one name, with an entry
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
    flat = {key: leaf for key, leaf in flat.items() if key not in drop}
    for key, leaf in flat.items():
        if not isinstance(leaf, ARRAYS):
            without = f", or leave it out (drop: {', '.join([*drop, key])})" if len(flat) > 1 else ""
            raise TaskError(
                f"the observation {key!r} is {brief(leaf)}, which is no array of fixed shape; "
                f"turn it into a Box, Discrete, MultiDiscrete or MultiBinary with a wrapper{without}"
            )
        if 0 in (leaf.shape or ()):
            raise TaskError(f"the observation {key!r} of shape {leaf.shape} shows nothing; leave it out with a wrapper")
    seen = views(flat, grids, sizes_kept)
    return spaces.Dict({key: seen[key].space if key in seen else _single(leaf) for key, leaf in flat.items()})


def no_arrays(named: Mapping[str, Space]) -> list[str]:
    """Names of observations that cannot be looked at, as texts, among others that can; none where nothing can.

    >>> no_arrays({"eye": spaces.Discrete(3), "mission": spaces.Text(9)}), no_arrays({"vector": spaces.Text(9)})
    (['mission'], [])
    """
    odd = [key for key, leaf in named.items() if not isinstance(leaf, ARRAYS)]
    return odd if len(odd) < len(named) else []


def named_drops(names: Collection[str], named: Mapping[str, Space]) -> list[str]:
    """Names of observations that are to be left out, each once. TaskError for one that there is not, or where none is left.

    >>> named_drops(["mission"], {"eye": spaces.Discrete(3), "mission": spaces.Text(9)})
    ['mission']
    """
    for key in names:
        if key not in named:
            raise TaskError(f"drop names {key!r}, but the observations are {', '.join(sorted(named))}")
    if named and not named.keys() - set(names):
        raise TaskError(f"drop names {', '.join(names)}, which leaves nothing to see: keep at least one observation")
    return sorted(set(names))


class Reader:
    """Observations of `space` -> entries of `observation_space(space, signals, grids, sizes_kept, drop)`, every value as it is
    (see `values`), pictures as they are looked at. axis: (N,) where N agents each show one along the first axis of every entry.

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
        drop: Collection[str] = (),
    ) -> None:
        self.notices: Notices = {}
        named = named_leaves(space, signals)
        kept = {name: leaf for name, leaf in named if name not in drop}
        seen = views(kept, grids, sizes_kept)
        self.entries = [entry(name, leaf, self.notices, seen.get(name), axis) for name, leaf in kept.items()]
        self._kept = [name in kept for name, _ in named] if drop else None
        self._space = space
        self._keys = tuple(space.spaces) if isinstance(space, spaces.Dict) else None
        self._flat = isinstance(space, spaces.Dict) and not any(map(_nested, space.spaces.values()))

    def __call__(self, value: Any) -> dict[str, Any]:
        try:
            parts: Iterable[Any] = [value[key] for key in self._keys or ()] if self._flat else split(self._space, value)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise TaskError(
                f"the environment shows {_outline(value)}, its observation space is {brief(self._space)}: "
                "return an entry for each of the space's"
            ) from error
        if self._keys is not None and len(value) != len(self._keys):
            more = ", ".join(repr(key) for key in value if key not in self._keys)
            self.notices.setdefault("more", f"the environment shows {more}, which its space does not name: left out")
        if self._kept is not None:
            parts = compress(parts, self._kept)
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
    named = zip(paths, named_leaves(space, signals), strict=True)
    return {name: (path, leaf) for path, (name, leaf) in named}


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
            if array.dtype.hasobject:  # whose bytes are addresses
                array = np.array(type(one).__name__)
            state.update(f"{array.dtype}{array.shape}".encode())
            state.update(array.tobytes())

    feed(value)
    return state.hexdigest()
