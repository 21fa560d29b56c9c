"""Agents' own observation spaces -> one space for all, where narrower vectors end in zeros and say whose they are."""

# N agents

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from env_adapters.errors import TaskError, brief
from env_adapters.nested import Space, join, leaves, rebuilt, split
from env_adapters.step import named_leaves

IDENTITY = "id"  # of an agent among entries


class Alike:
    """space: of every agent. `stacked` gives N agents' observations as one of that space with a leading N.

    Boxes that differ in their bounds alone get the wider ones. Vectors of different widths are filled up with zeros to the
    widest; then an agent's one-hot is added, behind the vector where it is all that is seen, else as an entry "id".
    TaskError for what cannot be alike: other entries, other shapes, other kinds.

    >>> alike = Alike("zoo:tag", {"cat": spaces.Box(0, 1, (2,)), "mouse": spaces.Box(0, 1, (1,))})
    >>> alike.space.shape, alike.stacked({"mouse": np.ones(1)}).tolist()
    ((4,), [[0.0, 0.0, 1.0, 0.0], [1.0, 0.0, 0.0, 1.0]])
    """

    def __init__(self, task: str, each: Mapping[Any, Space]) -> None:
        self._task, self._each = task, dict(each)
        (first, whole), *others = each.items()
        columns: list[list[Space]] = [[leaf] for leaf in leaves(whole)]
        for name, space in others:
            if [key for key, _ in named_leaves(space)] != [key for key, _ in named_leaves(whole)]:
                raise self._unlike(first, name)
            for column, leaf in zip(columns, leaves(space), strict=True):
                if not _alike(column[0], leaf):
                    raise self._unlike(first, name)
                column.append(leaf)
        shared = [_shared(column) for column in columns]
        self._blank = [_zero(leaf) for leaf in shared]
        self._padded = rebuilt(whole, iter(shared))
        self.space, self._add = self._padded, _nothing
        if all(leaf.shape == one.shape for column, one in zip(columns, shared, strict=True) for leaf in column):
            return
        if isinstance(self._padded, spaces.Box):
            low, high = np.zeros(len(each)), np.ones(len(each))
            low, high = np.append(self._padded.low, low), np.append(self._padded.high, high)
            dtype = self._padded.low.dtype
            self.space = spaces.Box(low.astype(dtype), high.astype(dtype), dtype=dtype.type)
            self._add = _behind
        elif isinstance(self._padded, spaces.Dict) and IDENTITY not in self._padded.spaces:
            named = spaces.Box(0.0, 1.0, (len(each),), np.float32)
            self.space = spaces.Dict({**self._padded.spaces, IDENTITY: named})
            self._add = _beside
        else:
            raise self._unlike(first, others[-1][0])

    def stacked(self, shown: Mapping[Any, Any]) -> Any:
        """The observations of all agents, zero for those that `shown` lacks."""
        rows = [self._filled(name, shown[name]) if name in shown else self._blank for name in self._each]
        columns = [np.stack(column) for column in zip(*rows, strict=True)]
        return self._add(join(self._padded, iter(columns)), np.eye(len(rows), dtype=np.float32))

    def _filled(self, name: Any, value: Any) -> list[NDArray[Any]]:
        """An agent's leaves, as wide as the widest."""
        space, filled = self._each[name], []
        try:
            parts = [np.asarray(part) for part in split(space, value)]
        except (KeyError, TypeError, ValueError) as error:
            raise TaskError(
                f"{self._task}: what {name} sees is not of its space {brief(space)}: return that"
            ) from error
        for leaf, part, blank in zip(leaves(space), parts, self._blank, strict=True):
            if part.shape != leaf.shape:
                raise TaskError(
                    f"{self._task}: {name} sees something of shape {part.shape}, its space is {brief(space)}: return that"
                )
            filled.append(part if part.shape == blank.shape else np.append(part, blank[part.size :]))
        return filled

    def _unlike(self, one: Any, other: Any) -> TaskError:
        kinds = f"{one} sees {brief(self._each[one])} and {other} {brief(self._each[other])}"
        return TaskError(
            f"{self._task}: {kinds}; of those only vectors may differ, in width: make them alike with a wrapper"
        )


def _behind(value: Any, identity: NDArray[Any]) -> Any:
    return np.concatenate([value, identity], -1, dtype=value.dtype)


def _beside(value: Any, identity: NDArray[Any]) -> Any:
    return value | {IDENTITY: identity}


def _nothing(value: Any, identity: NDArray[Any]) -> Any:
    return value


def _alike(one: Space, other: Space) -> bool:
    """Whether one leaf can stand for both."""
    if not isinstance(one, spaces.Box) or not isinstance(other, spaces.Box):
        return one == other
    vectors = all(len(box.shape) == 1 and np.issubdtype(box.dtype, np.floating) for box in (one, other))
    return one.dtype == other.dtype and (one.shape == other.shape or vectors)


def _shared(column: Sequence[Space]) -> Space:
    """The leaf that holds all of these."""
    boxes = [leaf for leaf in column if isinstance(leaf, spaces.Box)]
    if not boxes:
        return column[0]
    shape, dtype = max(box.shape for box in boxes), boxes[0].low.dtype
    low, high = (np.zeros((len(boxes), *shape), dtype) for _ in range(2))  # a vector that is filled up ends in zeros
    for at, box in enumerate(boxes):
        filled: Any = (at, *(slice(side) for side in box.shape))
        low[filled], high[filled] = box.low, box.high
    return spaces.Box(low.min(0), high.max(0), dtype=dtype.type)


def _zero(space: Space) -> NDArray[Any]:
    """What an absent agent is shown with."""
    return np.zeros(space.shape or (), space.dtype) + np.asarray(getattr(space, "start", 0), space.dtype)
