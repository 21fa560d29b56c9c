"""Rows of a start: chosen, repeated, put side by side. So dreams that began at several times go on as one batch.

A start is nested tensors whose first axis are its rows; a part that is otherwise laid out, as a transformer's cache, brings
`rows(index)` and `joined(others)` of its own. Sizes: M rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.utils._pytree import tree_map  # noqa: PLC2701 - torch's own, and it has no other door

from wm_core.types import Start


@runtime_checkable
class Laid(Protocol):
    """A part of a start whose rows are not its first axis."""

    def rows(self, index: Tensor) -> Any:
        """The rows `index` (K,), in that order, of which one may come several times."""

    def joined(self, others: Sequence[Any]) -> Any:
        """Its rows, and after them those of the others."""


def take(start: Start, index: Tensor) -> Start:
    """The rows `index` (K,) of a start of M; the start stays as it is.

    >>> take({"deter": torch.tensor([[1.0], [2.0]]), "more": None}, torch.tensor([1, 1, 0]))
    {'deter': tensor([[2.],
            [2.],
            [1.]]), 'more': None}
    """

    def one(part: Any) -> Any:
        if isinstance(part, Tensor):
            return part[index]
        return None if part is None else _laid(part).rows(index)

    return tree_map(one, start)


def join(starts: Sequence[Start]) -> Start:
    """All rows of several starts of one dynamics, in order.

    >>> join([{"deter": torch.zeros(2, 3)}, {"deter": torch.zeros(1, 3)}])["deter"].shape
    torch.Size([3, 3])
    """

    def one(part: Any, *others: Any) -> Any:
        if isinstance(part, Tensor):
            return torch.cat([part, *others])
        return None if part is None else _laid(part).joined(others)

    return starts[0] if len(starts) == 1 else tree_map(one, *starts)


def _laid(part: Any) -> Laid:
    if not isinstance(part, Laid):
        raise TypeError(
            f"a start holds a {type(part).__name__}, of which no row can be taken: give it `rows` and `joined`, or let it be "
            "nested tensors, rows first"
        )
    return part
