"""Where jobs are carried out: placing and retrying are an engine's, the rest is the worker's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from wm_suite.job import Job, Outcome
from wm_suite.worker import Halt


class Engine(Protocol):
    """Carries jobs out by `wm_suite.worker.carry_out`, several at a time.

    Whoever calls it holds nothing but the iterator: a worker whose engine is gone must stop by itself, for the process of
    this one may be killed at any moment.
    """

    @property
    def slots(self) -> int:
        """How many at a time."""
        ...

    def carry_out(self, jobs: Sequence[Job], halt: Halt) -> Iterator[Outcome]:
        """What came of each, as it ends; they begin in their order. After `halt` is set none begins, those under way are
        stopped, and every job still has its outcome."""
        ...
