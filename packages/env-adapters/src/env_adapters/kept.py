"""The actions of the episode under way, as many as are kept: one array for each leaf of the action space."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

LOST = "cannot be restored"  # the only key of what stands for a snapshot that there is none of: its value says why
MOST = 100_000  # actions; beyond it executing them again would take longer than an episode is worth


class KeptActions:
    """Grows by doubling up to `most` actions; with one more it is `full` and keeps none, however long the episode is.

    >>> kept = KeptActions(most=2)
    >>> for action in (3, 1):
    ...     kept.add([np.array(action)])
    >>> kept.arrays()
    [array([3, 1])]
    >>> kept.add([np.array(2)])
    >>> kept.full, kept.arrays()
    (True, [])
    """

    def __init__(self, most: int = MOST) -> None:
        self.most, self.count = most, 0
        self._buffers: list[NDArray[Any]] = []

    @property
    def full(self) -> bool:
        return self.count > self.most

    def add(self, parts: list[NDArray[Any]]) -> None:
        """One action, a value for each leaf; copied."""
        self.count += 1
        if self.full:
            self._buffers = []
            return
        if not self._buffers:
            self._buffers = [np.empty((min(64, self.most), *part.shape), part.dtype) for part in parts]
        for at, part in enumerate(parts):
            if self.count > len(self._buffers[at]):
                more = np.empty_like(self._buffers[at], shape=(2 * len(self._buffers[at]), *part.shape))
                more[: self.count - 1] = self._buffers[at]
                self._buffers[at] = more
            self._buffers[at][self.count - 1] = part

    def arrays(self) -> list[NDArray[Any]]:
        """(t, ...) for each leaf; none before the first action, or when there were too many."""
        return [buffer[: self.count].copy() for buffer in self._buffers]
