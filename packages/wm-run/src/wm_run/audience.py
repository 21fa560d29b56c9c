"""Those who look at the page: each gets the newest frames, the first of them holds the wheel, and what they send waits here."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable
from typing import Any

ROOM = 3  # messages that wait for a slow reader; older ones are left out, for newer ones say all
WHEEL = "you are at the wheel"
WATCHING = "another browser is at the wheel: this one watches"


class Gone(Exception):
    """A reader has left: nothing more can be sent to it. Whoever reads from it is told, too, and gives its seat up."""


class Seat:
    """One reader: messages go out in a thread of its own, so that a slow one holds up nobody. send raises `Gone`."""

    def __init__(self, send: Callable[[str], None]) -> None:
        self._waiting: queue.Queue[str | None] = queue.Queue(ROOM)
        self._send = send
        threading.Thread(target=self._work, daemon=True).start()

    def give(self, message: str | None) -> None:
        """None: no more."""
        while True:
            try:
                return self._waiting.put_nowait(message)
            except queue.Full:
                try:
                    self._waiting.get_nowait()
                except queue.Empty:
                    continue

    def _work(self) -> None:
        while (message := self._waiting.get()) is not None:
            try:
                self._send(message)
            except Gone:
                return


class Audience:
    """Readers in the order in which they came.

    >>> told = []
    >>> audience = Audience()
    >>> first, second = audience.enter(told.append), audience.enter(lambda message: None)
    >>> audience.said(second, '{"pause": true}'), audience.said(first, '{"pause": true}'), audience.taken(0)[2:]
    (False, True, [{'pause': True}])
    >>> audience.leave(first)
    >>> audience.taken(0), audience.said(second, '{"step": true}')
    ([{'left': True}], True)
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seats: list[Seat] = []
        self._said: queue.Queue[dict[str, Any]] = queue.Queue()
        self._last = ""  # for those who come while nothing moves

    def enter(self, send: Callable[[str], None]) -> Seat:
        """Another reader."""
        seat = Seat(send)
        with self._lock:
            self._seats.append(seat)
            self._tell()
            if self._last:
                seat.give(self._last)
        self._said.put({"came": True})
        return seat

    def leave(self, seat: Seat) -> None:
        """One is gone: whoever held the wheel lets go of it, and the next one has it."""
        with self._lock:
            held = self._seats[:1] == [seat]
            self._seats.remove(seat)
            seat.give(None)
            if held:
                self._said.put({"left": True})
                self._tell()

    def said(self, seat: Seat, text: str | bytes) -> bool:
        """Keep what a reader sends, if it is at the wheel and the message is one."""
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            return False
        with self._lock:
            if self._seats[:1] != [seat] or not isinstance(found, dict):
                return False
        self._said.put(found)
        return True

    def taken(self, patience: float) -> list[dict[str, Any]]:
        """What was said since, in order; the first message is waited for."""
        found: list[dict[str, Any]] = []
        try:
            found.append(self._said.get(timeout=patience) if patience else self._said.get_nowait())
            while True:
                found.append(self._said.get_nowait())
        except queue.Empty:
            return found

    def show(self, message: str) -> None:
        """To all, and to those who come before the next one."""
        with self._lock:
            self._last = message
            for seat in self._seats:
                seat.give(message)

    def __len__(self) -> int:
        return len(self._seats)

    def _tell(self) -> None:
        for place, seat in enumerate(self._seats):
            seat.give(json.dumps({"wheel": place == 0, "told": WATCHING if place else WHEEL}))
