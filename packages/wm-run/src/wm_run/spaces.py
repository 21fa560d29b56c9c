"""A gymnasium space <-> plain JSON, exactly: what comes back equals what went in, bounds and order of keys included.

A space is read by the name of its class and its attributes; gymnasium is imported only where one is made again.
"""

from __future__ import annotations

import importlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from wm_core.errors import UserError

KINDS = ("Box", "Discrete", "MultiDiscrete", "MultiBinary", "Dict", "Tuple")


def described(space: Any) -> dict[str, Any]:
    """A space as JSON. Raises UserError for one that is none of Box, Discrete, MultiDiscrete, MultiBinary, Dict, Tuple.

    >>> from gymnasium import spaces
    >>> described(spaces.Box(0, 255, (64, 64, 3), np.uint8))
    {'kind': 'Box', 'shape': [64, 64, 3], 'dtype': 'uint8', 'low': 0, 'high': 255}
    """
    kind = next((base.__name__ for base in type(space).__mro__ if base.__name__ in KINDS), "")
    if kind == "Box":
        bounds = {"low": _numbers(space.low), "high": _numbers(space.high)}
        return {"kind": kind, "shape": list(space.shape), "dtype": str(np.dtype(space.dtype)), **bounds}
    if kind == "Discrete":
        return {"kind": kind, "n": int(space.n), "start": int(space.start), "dtype": str(np.dtype(space.dtype))}
    if kind == "MultiDiscrete":
        sizes = {"nvec": np.asarray(space.nvec).tolist(), "start": np.asarray(space.start).tolist()}
        return {"kind": kind, **sizes, "dtype": str(np.dtype(space.dtype))}
    if kind == "MultiBinary":
        return {"kind": kind, "n": int(space.n) if isinstance(space.n, int | np.integer) else list(space.shape)}
    if kind == "Dict":
        return {"kind": kind, "spaces": [[key, described(one)] for key, one in space.spaces.items()]}
    if kind == "Tuple":
        return {"kind": kind, "spaces": [described(one) for one in space.spaces]}
    raise UserError(f"the space {' '.join(str(space).split())[:100]} cannot be written down: use {', '.join(KINDS)}")


def restored(description: Mapping[str, Any]) -> Any:
    """The space that `described` was given. Raises UserError for a description of nothing known, or without gymnasium.

    >>> from gymnasium import spaces
    >>> space = spaces.Dict({"speed": spaces.Box(-np.inf, 1.5, (2,)), "gear": spaces.Discrete(5, start=-1)})
    >>> restored(described(space)) == space
    True
    """
    try:
        spaces: Any = importlib.import_module("gymnasium.spaces")
    except ModuleNotFoundError as error:
        raise UserError("the package gymnasium is missing, by which spaces are known: install wm-run[gym]") from error
    try:
        return _restored(spaces, description)
    except (KeyError, TypeError, AttributeError, AssertionError, ValueError) as error:
        raise UserError(f"{str(description)[:100]} is the description of no space: {error}") from error


def _restored(spaces: Any, description: Mapping[str, Any]) -> Any:
    kind, rest = description["kind"], {name: value for name, value in description.items() if name != "kind"}
    if kind not in KINDS:
        raise ValueError(f"there is no kind {kind!r}")
    if kind == "Box":
        shape, dtype = tuple(rest["shape"]), np.dtype(rest["dtype"])
        low, high = (_array(rest[name], shape, dtype) for name in ("low", "high"))
        return spaces.Box(low, high, shape, dtype.type)
    if kind == "Dict":
        return spaces.Dict(OrderedDict((key, _restored(spaces, one)) for key, one in rest["spaces"]))
    if kind == "Tuple":
        return spaces.Tuple([_restored(spaces, one) for one in rest["spaces"]])
    if "dtype" in rest:
        rest["dtype"] = np.dtype(rest["dtype"]).type
    if kind == "MultiDiscrete":
        rest = {name: np.asarray(value) if isinstance(value, list) else value for name, value in rest.items()}
    return getattr(spaces, kind)(**rest)


def _numbers(bound: NDArray[Any]) -> Any:
    """One number where all are the same, else the flat list of them; JSON has no infinity, which is a word then."""
    flat = [_word(value) for value in np.asarray(bound).reshape(-1).tolist()]
    return flat[0] if flat and all(value == flat[0] for value in flat) else flat


def _word(value: Any) -> Any:
    return str(value) if isinstance(value, float) and abs(value) == float("inf") else value


def _array(numbers: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """The bound again, in its dtype: a float32 is exactly a float64, so nothing is lost on the way."""
    flat = [
        float(value) if isinstance(value, str) else value
        for value in (numbers if isinstance(numbers, list) else [numbers])
    ]
    array = np.array(flat, dtype)
    return array.reshape(shape) if isinstance(numbers, list) else np.full(shape, array[0], dtype)
