"""Tensors that autograd keeps for backward passes -> the most bytes of them that are there at once."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


class Retained:
    """Storages that wait for a backward pass, each counted once, until the last that waits has been served.

    An update of several passes, as PPO's epochs are, keeps those of one at a time: their sum would be memory that nobody needs.

    Args:
        own: tensors that are there anyway, such as the weights.

    Example:
        >>> weight = torch.ones(2, requires_grad=True)
        >>> retained = Retained([weight])
        >>> with retained.hooks():
        ...     for _ in range(3):  # sigmoid keeps its two numbers
        ...         weight.sigmoid().sum().backward()
        >>> retained.most
        8
    """

    def __init__(self, own: Iterable[Tensor]) -> None:
        self.now, self.most = 0, 0
        self._own = {_identity(one) for one in own}
        self._waiting: dict[int, int] = {}

    def hooks(self) -> torch.autograd.graph.saved_tensors_hooks:
        """A context inside which what is kept is counted."""
        return torch.autograd.graph.saved_tensors_hooks(lambda value: _Saved(self, value), lambda saved: saved.value)

    def wait(self, value: Tensor) -> None:
        where = _identity(value)
        if where in self._own:
            return
        before = self._waiting.get(where, 0)
        self._waiting[where] = before + 1
        if not before:
            self.now += value.untyped_storage().nbytes()
            self.most = max(self.most, self.now)

    def served(self, value: Tensor) -> None:
        where = _identity(value)
        if where in self._own:
            return
        self._waiting[where] -= 1
        if not self._waiting[where]:
            del self._waiting[where]
            self.now -= value.untyped_storage().nbytes()


class _Saved:
    """What a node of the graph holds; it goes with the node, or when its backward pass is over."""

    def __init__(self, retained: Retained, value: Tensor) -> None:
        self.retained, self.value = retained, value
        retained.wait(value)

    def __del__(self) -> None:
        self.retained.served(self.value)


def _identity(value: Tensor) -> int:
    """Of its storage while that lives; a fake tensor's has no other."""
    return int(value.untyped_storage()._cdata)  # noqa: SLF001
