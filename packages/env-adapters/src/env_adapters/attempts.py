"""Faults of environments -> how many in a row each had, how long to wait before the next try, and when it is enough."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from env_adapters.faults import Fault

_PAUSE, _LONGEST_PAUSE = 0.5, 30.0  # seconds before the third try; each later one waits twice as long, up to the second


class Attempts:
    """A streak of faults for each of n environments, broken by a step that arrives; `most` of them are a failure.

    failure: a sentence, or empty. A fault that is final is a failure at once.

    >>> attempts = Attempts(2, most=2)
    >>> attempts.count({1: Fault("its worker died")})
    >>> attempts.failure, attempts.count({1: Fault("its worker died")})
    ('', None)
    >>> attempts.failure
    'environment 1 failed 2 times without a step between (attempts), at last: its worker died'
    """

    def __init__(self, n: int, most: int) -> None:
        self.most, self.failure = most, ""
        self._streak = np.zeros(n, np.int64)

    def count(self, faults: Mapping[int, Fault]) -> None:
        """Take note of the rows that gave no record."""
        for row, fault in faults.items():
            self._streak[row] += 1
            if self.failure:
                continue
            if fault.final:
                self.failure = fault.reason
            elif self._streak[row] >= self.most:
                times = f"{self._streak[row]} times without a step between"
                self.failure = f"environment {row} failed {times} (attempts), at last: {fault.reason}"

    def arrived(self, rows: NDArray[np.bool_]) -> None:
        """Forgive rows whose step arrived."""
        self._streak[rows] = 0

    def pause(self, rows: Iterable[int]) -> None:
        """What failed twice (a server that starts again) is not asked at once."""
        again = max((int(self._streak[row]) for row in rows), default=0) - 2
        if again >= 0:
            time.sleep(min(_LONGEST_PAUSE, _PAUSE * 2.0 ** min(again, 16)))

    def forget(self) -> None:
        """As at the beginning."""
        self._streak[:], self.failure = 0, ""
