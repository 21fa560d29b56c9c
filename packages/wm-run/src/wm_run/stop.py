"""Signals that ask a run to end -> a `Stop` that is asked where ending loses nothing.

Who sends which: a terminal SIGINT (Ctrl-C) and, when it closes, SIGHUP; a scheduler SIGTERM, or SIGUSR1 or SIGUSR2 some
time before it kills. `uv run` and `timeout` pass on what reaches them although the terminal has sent it to all, so that
one Ctrl-C arrives twice: what comes within a second of the first is its echo.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

GRACE = 1.0  # seconds
ASKING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)
)


def say(text: str) -> None:
    """For people, so that stdout stays for results. A run does not end for want of a reader: a terminal that is closed, a
    pipe that is broken, a print that this one interrupts."""
    if sys.stderr is None:
        return
    with suppress(OSError, ValueError, RuntimeError):
        print(text, file=sys.stderr, flush=True)


class Stop:
    """The signals that came, the first of which ended the run.

    >>> stop = Stop()
    >>> bool(stop), stop.note(15), bool(stop), stop.first
    (False, None, True, 15)
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.first = 0
        self._clock, self._since = clock, 0.0

    def __bool__(self) -> bool:
        return self.first > 0

    def note(self, number: int, frame: FrameType | None = None) -> None:
        """A signal came. Raises KeyboardInterrupt for a Ctrl-C when there has been one a second ago, or another signal."""
        if not self.first:
            self.first, self._since = number, self._clock()
            say("stopping: what has been begun is ended and the run is saved (Ctrl-C again: end at once, unsaved)")
        elif number == signal.SIGINT and self._clock() - self._since >= GRACE:
            raise KeyboardInterrupt


@contextmanager
def handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """The signals that ask a run to end go to `handler` inside. One that is ignored (SIGHUP, under `nohup`) stays so, and
    one that has a handler, but for Ctrl-C's and SIGTERM's, keeps it."""
    before = {}
    if threading.current_thread() is threading.main_thread():  # others may not have handlers
        for number in ASKING:
            if number in (signal.SIGINT, signal.SIGTERM) or signal.getsignal(number) == signal.SIG_DFL:
                before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, handler_before in before.items():
            signal.signal(number, handler_before)


@contextmanager
def heeded() -> Iterator[Stop]:
    """What is asked inside, where a run can be ended."""
    stop = Stop()
    with handled(stop.note):
        yield stop
