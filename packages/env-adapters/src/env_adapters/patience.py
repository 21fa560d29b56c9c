"""How long another process is waited for, by a clock that stands still while this one does.

A job or a laptop that is suspended stops whoever waits and whoever is waited for: that time says nothing about the other.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
SPAN = 1.0  # seconds; of a longer wait no more than this is counted at a time, so that of a stop no more is


class Patience:
    """seconds: that are waited in all. clock: another than the machine's.

    >>> Patience(0.01).until(lambda seconds: [])  # nobody answers
    []
    """

    def __init__(self, seconds: float, clock: Callable[[], float] | None = None) -> None:
        self.left, self._clock = seconds, clock or time.monotonic

    def until(self, wait: Callable[[float], list[T]]) -> list[T]:
        """What `wait`, which is given how many seconds it may take, gives at last; [] where patience ends before."""
        while True:
            span, began = max(0.0, min(self.left, SPAN)), self._clock()
            ready = wait(span)
            self.left -= min(self._clock() - began, span)
            if ready or self.left <= 0:
                return ready
