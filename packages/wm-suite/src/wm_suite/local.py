"""Slots on this machine: each is a thread that waits for the processes of one run after the other."""

from __future__ import annotations

import dataclasses
import queue
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from wm_suite.job import Job, Outcome
from wm_suite.worker import Halt, carry_out


class Local:
    """Several runs at a time on this machine.

    slots: how many. gpus: numbers of the cards that slots take in turns; without, every run sees all of them.
    """

    def __init__(self, slots: int = 1, gpus: Sequence[str] = ()) -> None:
        self._slots, self._gpus = slots, tuple(gpus)

    @property
    def slots(self) -> int:
        """How many at a time."""
        return self._slots

    def carry_out(self, jobs: Sequence[Job], halt: Halt) -> Iterator[Outcome]:
        """See `wm_suite.engines.Engine`."""
        free: queue.SimpleQueue[int] = queue.SimpleQueue()
        for slot in range(self._slots):
            free.put(slot)

        def one(job: Job) -> Outcome:
            slot = free.get()
            try:
                return carry_out(self._placed(job, slot), halt)
            finally:
                free.put(slot)

        with ThreadPoolExecutor(self._slots) as pool:
            under_way = [pool.submit(one, job) for job in jobs]
            try:
                for future in as_completed(under_way):
                    yield future.result()
            finally:
                if not all(future.done() for future in under_way):
                    halt.set()  # whoever wanted the outcomes has gone

    def _placed(self, job: Job, slot: int) -> Job:
        if not self._gpus:
            return job
        card = {"CUDA_VISIBLE_DEVICES": self._gpus[slot % len(self._gpus)]}
        return dataclasses.replace(job, environment={**job.environment, **card})
