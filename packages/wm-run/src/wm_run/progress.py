"""Steps and seconds -> where the run is, how fast it goes, and when it will end."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TextIO


class Rate:
    """How many a second, a mean in which what lies `smooth` seconds back counts 1/e.

    >>> rate = Rate(0.0, 3, smooth=60.0)
    >>> rate.at(10.0, 23)
    >>> rate.mean
    2.0
    """

    def __init__(self, now: float, count: int, *, smooth: float) -> None:
        self._seen, self._from, self._smooth = now, count, smooth
        self._done = self._seconds = 0.0  # both fading at the same rate

    def at(self, now: float, count: int, least: float = 0.5) -> None:
        """Let the old fade and count the new; not for every call, for a clock is coarse."""
        seconds = now - self._seen
        if seconds <= least:
            return
        fade = math.exp(-seconds / self._smooth)
        self._done = self._done * fade + count - self._from
        self._seconds = self._seconds * fade + seconds
        self._seen, self._from = now, count

    @property
    def mean(self) -> float | None:
        """None before anything was measured."""
        return self._done / self._seconds if self._seconds else None


class Progress:
    """Where the run is, how fast it goes and when it will end.

    total, start: steps at the end and now. On a terminal a live bar (rich, where installed); elsewhere one plain line
    every `every` seconds and one at the end. The speed is a mean over about the last `smooth` seconds.

    >>> with Progress(100, stream=sys.stdout, clock=iter([0.0, 10.0, 10.0]).__next__) as progress:
    ...     progress.update(50, score=1.5)
    train 50/100 (50%) | 5.0 steps/s | ETA 10s | score 1.5
    """

    def __init__(
        self,
        total: int,
        *,
        start: int = 0,
        label: str = "train",
        every: float = 30.0,
        smooth: float = 60.0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total, self.step, self.label = total, start, label
        self.values: dict[str, Any] = {}
        self._every, self._smooth, self._clock = every, smooth, clock
        self._stream: TextIO | None = sys.stderr if stream is None else stream
        self._shown = clock()
        self._rate = Rate(self._shown, start, smooth=smooth)
        self._beside: tuple[str, int, Rate] | None = (
            None  # what else is counted down: its name, how many were left, its rate
        )
        live = self._stream is not None and self._stream.isatty()  # there is none where it was closed (2>&-)
        self._bar = _bar(self._stream, label, total, start) if live else None
        self._closed = False
        self.measuring = False  # the speed so far is not the one that the rest will have: no time is told

    def update(self, step: int, **values: Any) -> None:
        """The run is at `step`; values (score, loss) stay shown until replaced."""
        now = self._clock()
        self.step = step
        self.values |= values
        self._rate.at(now, step)
        if now - self._shown >= (self._every if self._bar is None else 0.2):
            self._show(now)

    def restart(self, step: int) -> None:
        """What was measured before this step says nothing of the rest: measure from here on."""
        self._rate = Rate(self._clock(), step, smooth=self._smooth)

    def countdown(self, name: str, left: int) -> None:
        """Something else than steps that the run is at meanwhile, with the time that it takes; 0: it is over, and no longer
        shown."""
        now = self._clock()
        if not left:
            self._beside = None
            self.values.pop(name, None)
            return
        if self._beside is None or self._beside[0] != name or left > self._beside[1]:
            self._beside = name, left, Rate(now, -left, smooth=self._smooth)
        rate = self._beside[2]
        self._beside = name, left, rate
        rate.at(now, -left)
        self.update(self.step, **{name: f"{left:,} ({duration(left / rate.mean)})" if rate.mean else left})

    def close(self) -> None:
        """Show where the run ended."""
        if self._closed:
            return
        self._closed = True
        now = self._clock()
        self._rate.at(now, self.step, least=0.0)
        self._show(now)
        if self._bar is not None:
            with _unread():
                self._bar[0].stop()

    def speed(self) -> float | None:
        """Steps per second lately, or None before anything was measured."""
        return self._rate.mean

    def text(self) -> str:
        """The line: step/total, speed, time left, current values."""
        speed = self.speed()
        share = f" ({self.step / self.total:.0%})" if self.total else ""
        parts = [f"{self.label} {self.step:,}/{self.total:,}{share}"]
        if speed is not None:
            parts.append(f"{speed:,.0f} steps/s" if speed >= 10 else f"{speed:.1f} steps/s")
        left = max(0, self.total - self.step)
        if left:
            parts.append(f"ETA {'measuring' if self.measuring else duration(left / speed) if speed else '?'}")
        parts += [f"{name} {_short(value)}" for name, value in self.values.items()]
        return " | ".join(parts)

    def _show(self, now: float) -> None:
        self._shown = now
        with _unread():
            if self._bar is not None:
                bar, task = self._bar
                bar.update(task, completed=self.step, text=self.text())
            elif self._stream is not None:
                print(self.text(), file=self._stream, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _unread() -> suppress:
    """Who reads may have gone: a terminal that was closed, a pipe that is broken. The run goes on."""
    return suppress(OSError, ValueError)


def _bar(stream: TextIO | None, label: str, total: int, start: int) -> tuple[Any, Any] | None:
    """A live bar, or None without rich: a nicer line is not worth an error."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar
        from rich.table import Column
    except ModuleNotFoundError:
        return None
    line = TextColumn("{task.fields[text]}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis"))
    bar = Bar(BarColumn(bar_width=20), line, console=Console(file=stream), refresh_per_second=4)
    task = bar.add_task(label, total=total, completed=start, text=label)
    bar.start()
    return bar, task


def duration(seconds: float) -> str:
    """The two largest units that matter.

    >>> duration(42), duration(312), duration(11_000), duration(200_000)
    ('42s', '5m 12s', '3h 3m', '2d 7h')
    """
    if not math.isfinite(seconds):
        return "?"
    whole = round(seconds)
    for unit, size, smaller, part in (("d", 86_400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size}{unit} {whole % size // part}{smaller}"
    return f"{whole}s"


def _short(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else value if isinstance(value, str) else f"{float(value):.4g}"
