"""One observation, as an environment gives it -> the entries that an agent reads, each checked against its space."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from wm_core.errors import UserError

Sources = Mapping[str, tuple[tuple[str, ...], Any]]
Views = Mapping[str, Callable[[NDArray[Any]], NDArray[Any]]]


def entries(
    observation: Any,
    spaces: Mapping[str, Any],
    sources: Sources,
    views: Views | None = None,
    unseen: Collection[tuple[str, ...]] = (),
) -> dict[str, NDArray[Any]]:
    """An array for each of `spaces`, in its dtype and shape.

    spaces: of the entries, by name, as the agent was trained on them. sources: of each entry the keys on the way to it in
    the environment's own observation, and its space there, whose discrete values may begin elsewhere than at 0; an entry
    without one lies where its name says. views: what is made of entries that are not seen as the environment shows them,
    as of a picture that is resized; one that is given as it is seen stays. unseen: the keys on the way to what the environment
    shows and the agent does not look at, there or not. Raises UserError for what no environment of these spaces gives: other keys, shapes
    or kinds, and values that the entry cannot hold, such as nan.

    >>> from types import SimpleNamespace
    >>> space = SimpleNamespace(dtype=np.dtype(np.float32), shape=(2,))
    >>> entries([0.5, 2], {"vector": space}, {})
    {'vector': array([0.5, 2. ], dtype=float32)}
    >>> entries([0.5, float("nan")], {"vector": space}, {})
    Traceback (most recent call last):
    wm_core.errors.UserError: observation 'vector' holds nan: an agent acts on finite numbers
    """
    names = {path: name for name, (path, _) in sources.items()}
    given = {names.get(path, "/".join(path)): value for path, value in _flat(observation, ()) if path not in unseen}
    if list(given) == [""] and len(spaces) == 1:
        given = {next(iter(spaces)): given[""]}
    if given.keys() != spaces.keys():
        raise UserError(f"this agent observes {sorted(spaces)}, not {sorted(given)}")
    own = {name: space for name, (_, space) in sources.items()}
    found = {}
    for key, space in spaces.items():
        here = own.get(key, space)
        view = (views or {}).get(key)
        found[key] = (
            _entry(key, given[key], space, here)
            if view is None or _seen(given[key], space, here)
            else _viewed(view, _entry(key, given[key], here, here))
        )
    return found


def _seen(value: Any, space: Any, own: Any) -> bool:
    """Whether a value is one of the agent's entry, and none of the environment's own space."""
    shape, kind = np.shape(value), np.asarray(value).dtype.kind
    return shape != tuple(own.shape) or (shape == tuple(space.shape) and kind != np.dtype(own.dtype).kind)


def _viewed(view: Callable[[NDArray[Any]], NDArray[Any]], value: NDArray[Any]) -> NDArray[Any]:
    try:
        return view(value)
    except ValueError as error:  # a sentence of who knows how it is looked at
        raise UserError(str(error)) from error


def _entry(key: str, value: Any, space: Any, own: Any) -> NDArray[Any]:
    """One value as its entry."""
    name, dtype, shape = f"observation {key!r}", np.dtype(space.dtype), tuple(space.shape or ())
    try:
        array = np.asarray(value)
    except ValueError:  # lists of several lengths
        array = np.asarray(None)
    if array.dtype.kind not in "iufb":
        raise UserError(f"{name} is a {type(value).__name__}, not an array of {dtype}: give it as the environment does")
    if array.dtype.kind == "f" and dtype.kind in "iub":
        raise UserError(f"{name} is {array.dtype}, not {dtype}: give it as the environment does")
    if array.shape != shape:
        raise UserError(f"{name} has shape {array.shape}, not {shape}")
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            entry = array.astype(dtype, copy=False)
        if not np.isfinite(entry).all():
            odd = array[~np.isfinite(entry)].flat[0]
            raise UserError(f"{name} holds {odd}: an agent acts on finite numbers")
        return entry
    low, high = _bounds(own, dtype)
    if (odd_ones := (array < low) | (array > high)).any():
        least, most = (np.broadcast_to(bound, array.shape)[odd_ones].flat[0] for bound in (low, high))
        raise UserError(f"{name} holds {array[odd_ones].flat[0]}, which is not between {least} and {most}")
    return np.subtract(array, getattr(own, "start", 0)).astype(dtype, copy=False)


def _bounds(space: Any, dtype: np.dtype[Any]) -> tuple[Any, Any]:
    """The least and the largest value of an integer space: of its choices, else of its type."""
    kind, start = type(space).__name__, getattr(space, "start", 0)
    if kind == "Discrete":
        return start, start + space.n - 1
    if kind == "MultiDiscrete":
        return start, start + space.nvec - 1
    if kind == "MultiBinary" or dtype.kind == "b":
        return 0, 1
    return np.iinfo(dtype).min, np.iinfo(dtype).max


def _flat(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The leaves of a nested observation, each with the keys on the way to it."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, (*path, str(key)))
    elif isinstance(value, tuple):
        for i, inner in enumerate(value):
            yield from _flat(inner, (*path, str(i)))
    else:
        yield path, value
