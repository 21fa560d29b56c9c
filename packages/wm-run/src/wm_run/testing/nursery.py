"""Training processes of an app, one at a time: run to their end, or killed somewhere."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Self

BEGUN = "run folder"  # what `train` says when everything is made or loaded, before the first step


class Failed(AssertionError):
    """What was found, in a sentence."""


class Ended(NamedTuple):
    """A process that has ended: its code (negative: a signal's number), stderr, CPU seconds since training began."""

    code: int
    said: str
    cpu: float
    orphans: int  # processes it started that were still there seconds later


class Nursery:
    """Forks of one process that has imported an app, one at a time: seconds less for each. See child.py for `setup`."""

    def __init__(self, app: str, setup: str = "") -> None:
        self.app = app
        command = [sys.executable, "-m", "wm_run.testing.child", app, setup]
        self._process = subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """No more."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def begin(self, folder: Path, log: Path, place: str, fatal: int, options: list[str]) -> int:
        """A process that trains; its id."""
        argv = [self.app, "train", "--logdir", str(folder), *options]
        assert self._process.stdin is not None
        print(json.dumps([str(folder), str(log), place, fatal, argv]), file=self._process.stdin, flush=True)
        return int(self._line())

    def ended(self, seconds: float) -> int | None:
        """How it ended, negative for a signal; None if it has not within that time."""
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], seconds)
        return int(self._line()) if ready else None

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise Failed(f"{self.app} cannot be imported")
        return line


def train(
    nursery: Nursery, logdir: Path, options: list[str], *, place: str = "", fatal: int = 0, cpu: float = 0
) -> Ended:
    """One `train` in a process of its own, to its end, or killed at a place, or after CPU seconds of training."""
    log = logdir.with_suffix(".stderr")
    log.unlink(missing_ok=True)
    pid = nursery.begin(logdir, log, place, fatal, options)
    begun: float | None = None
    used = 0.0
    while (code := nursery.ended(0.003 if cpu else 0.05)) is None:
        used = _cpu(pid) or used
        if begun is None and log.is_file() and BEGUN in log.read_text(errors="replace"):
            begun = used
        if cpu and begun is not None and used - begun >= cpu:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(pid, signal.SIGKILL)
            cpu = 0
    left = _wait_for_group(pid)
    return Ended(code, log.read_text(errors="replace"), used - (begun or used), left)


def _cpu(pid: int) -> float:
    """CPU seconds of a process so far; where the system does not tell, the time of day, which also goes on."""
    stat = Path(f"/proc/{pid}/stat")
    if not Path("/proc/self/stat").is_file():
        return time.monotonic()
    try:
        fields = stat.read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _wait_for_group(group: int, seconds: float = 10.0) -> int:
    """Processes of the group that outlive their parent by that long; they are killed then."""
    end = time.monotonic() + seconds
    while (living := list(_group(group))) and time.monotonic() < end:
        time.sleep(0.1)
    for pid in living:
        os.kill(pid, signal.SIGKILL)
    return len(living)


def _group(group: int) -> Iterator[int]:
    """Living processes of a group, where /proc tells."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[2]) == group and fields[0] not in "ZX":
            yield int(stat.parent.name)


def finish(ended: Ended, what: str) -> None:
    """Raises Failed where a process did not end well."""
    if ended.code != 0:
        raise Failed(f"{what} ended with code {ended.code}:\n{tail(ended.said)}")
    if ended.orphans:
        raise Failed(f"{what} left {ended.orphans} processes behind")


def tail(said: str) -> str:
    """The last lines of it."""
    return "\n".join(f"    {line}" for line in said.splitlines()[-12:])
