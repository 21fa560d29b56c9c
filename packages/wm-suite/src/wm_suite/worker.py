"""A job -> its run trained to the end, or on from where it was, and measured -> its row, beside the run before anywhere else.

python -m wm_suite.worker JOB   one job, as `wm-suite plan --lines` writes it; safe to be started again at any time

What a killed worker, a full disk or a power cut leave behind is what the next worker goes on from: the run saves itself,
the diary and the row are whole or absent, and a lock that the run's own process holds says when an earlier one has ended.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from wm_suite import child, diary, durable
from wm_suite.errors import SuiteError
from wm_suite.job import Job, Outcome
from wm_suite.process_time import ProcessTime
from wm_suite.record import row_of

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

BEAT = 10.0  # seconds between what the diary is told of a run under way
LOOK = 0.2  # seconds at least between looks at what it has used
WAIT = 60.0  # seconds that an earlier process of the run, whose worker was killed, has to save
MEASURING = 6 * 3600.0  # seconds
KILLED = frozenset({128 + number for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGABRT, 9)})


class Halt:
    """Whether the work is to end, and the processes that are told so: they save.

    >>> halt = Halt()
    >>> bool(halt), halt.set(), bool(halt)
    (False, None, True)
    """

    def __init__(self) -> None:
        self._event, self._children = threading.Event(), set[subprocess.Popen[bytes]]()

    def __bool__(self) -> bool:
        return self._event.is_set()

    def set(self) -> None:
        """No new process; those that are there are asked to end."""
        self._event.set()
        for one in list(self._children):
            one.send_signal(signal.SIGTERM)

    def wait(self, seconds: float) -> bool:
        """Until it is set, or so long."""
        return self._event.wait(seconds)

    @contextlib.contextmanager
    def telling(self, one: subprocess.Popen[bytes]) -> Iterator[None]:
        """It is told, inside; also where all were told just before."""
        self._children.add(one)
        if self:
            one.send_signal(signal.SIGTERM)
        try:
            yield
        finally:
            self._children.discard(one)


class Stopped(Exception):
    """The work was halted."""


@dataclass
class Ended:
    """How a process ended."""

    code: int
    seconds: float
    counted: float  # seconds of them that count against the limit, see `wm_suite.process_time`
    late: bool  # it was asked to, for its time
    said: str  # the last line of what it said

    @property
    def killed(self) -> bool:
        """Whether a signal ended it that was not ours."""
        return (self.code < 0 or self.code in KILLED) and not self.late

    def __str__(self) -> str:
        if self.code < 0:
            name = next((one.name for one in signal.Signals if one == -self.code), str(-self.code))
            more = ", as the system does where memory runs out" if self.code == -9 else ""
            return f"it was killed ({name}{more})"
        return self.said or f"it ended with code {self.code} and said nothing"


def finished(job: Job) -> dict[str, Any] | None:
    """The row beside a run that is this job's; None where there is none, where more is asked for than it tells of, or where
    the run itself was moved away, to begin anew."""
    if not (job.folder / "config.toml").exists():
        return None
    try:
        row = json.loads(job.beside("row.json").read_bytes())
    except (OSError, ValueError):  # none, or damaged: it is measured again
        return None
    if not isinstance(row, dict) or job.score not in row:
        return None
    made = {name: row.get(name) for name in ("task", "arm", "seed", "settings", "measure")}
    ours = {name: getattr(job.cell, name) for name in ("task", "arm", "seed", "settings", "measure")}
    given_more_time = row.get("ended") == "time" and diary.counted_seconds(row) < 60 * job.minutes - 1
    return row if made == ours and not given_more_time else None


def carry_out(job: Job, halt: Halt | None = None) -> Outcome:
    """Train and measure, whatever was done of it before; never raises for what happens to a run."""
    name, halt = job.cell.name, Halt() if halt is None else halt  # one that is not set is false
    try:
        job.folder.parent.mkdir(parents=True, exist_ok=True)
        with held(job, halt) as lock:
            if (row := finished(job)) is not None:
                return Outcome(job.cell, "done", f"{name}: done before", row)
            return _carried(job, halt, lock)
    except Stopped:
        return Outcome(job.cell, "stopped", f"{name}: stopped, and goes on from there")
    except SuiteError as error:
        return Outcome(job.cell, "failed", f"{name}: {error}")
    except OSError as error:
        room = ": make room, and the same command goes on" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        return Outcome(job.cell, "failed", f"{name}: {error.filename or job.folder}: {error.strerror}{room}")


def _carried(job: Job, halt: Halt, lock: BinaryIO) -> Outcome:
    found = diary.read(job)
    found["error"] = ""
    diary.write(job, found)  # already here: a run whose process is killed has its settings too
    with job.beside("log").open("ab") as log:
        if not found["done"]:
            _train(job, halt, lock, log, found)
        measured = {} if found["error"] else _measure(job, halt, lock, log, found)
    if found["error"]:
        diary.write(job, found)
        return Outcome(job.cell, "failed", f"{job.cell.name} failed: {found['error']} (see {job.beside('log')})")
    if not (job.folder / "config.toml").is_file():
        raise SuiteError(
            f"{job.cell.app} left no config.toml in {job.folder}, which says what was run: it is no app of a suite"
        )
    row = row_of(job, found, measured)
    durable.write(job.beside("row.json"), json.dumps(row))
    return Outcome(job.cell, "done", f"{job.cell.name}: measured, {found['wall_s'] / 60:.1f} minutes", row)


def _train(job: Job, halt: Halt, lock: BinaryIO, log: BinaryIO, found: dict[str, Any]) -> None:
    """To the end, to its limit of time, or to `error`. Raises Stopped."""
    words = ["app", job.cell.app, *job.command()[3:-1], str(job.folder)]
    for tries in range(1, job.retries + 2):
        found["attempts"] += 1
        ended = process(job, words, halt, lock, log, 60 * job.minutes - found["spent_s"], _beat(job, dict(found)))
        found["wall_s"] += ended.seconds
        found["spent_s"] += ended.counted
        found["done"] = "whole" if ended.code == 0 else "time" if ended.late else ""
        found["error"] = ""
        if found["done"] == "time" and not (job.folder / "config.toml").exists():
            found |= {"done": "", "error": f"its {job.minutes:g} minutes were over before it had begun: give it more"}
        diary.write(job, found)
        if found["done"] or ended.late:
            return
        if halt:
            raise Stopped
        found["error"] = f"{ended}, {tries} times one after the other" if ended.killed and tries > 1 else str(ended)
        if not ended.killed:
            return


def _beat(job: Job, before: dict[str, Any]) -> Callable[[float, float], None]:
    """What the diary is told while a process runs, so that one whose worker is killed has its time."""

    def beat(seconds: float, counted: float) -> None:
        now = {"wall_s": before["wall_s"] + seconds, "spent_s": before["spent_s"] + counted}
        with contextlib.suppress(OSError):  # a disk that is full now may not be so when the run ends
            diary.write(job, before | now)

    return beat


def _measure(job: Job, halt: Halt, lock: BinaryIO, log: BinaryIO, found: dict[str, Any]) -> dict[str, Any]:
    """What the measure of the run finds; nothing, with an `error`, where it fails. Raises Stopped."""
    out = job.beside("measured.json")
    words = [
        "measure",
        job.cell.measure,
        str(job.folder),
        json.dumps(dataclasses.asdict(job.cell) | {"settings": job.cell.settings}),
        str(out),
    ]
    for _ in range(job.retries + 1):
        ended = process(job, words, halt, lock, log, MEASURING)
        if halt:
            raise Stopped
        if not ended.killed:
            break
    try:
        if ended.code:
            found["error"] = f"it was trained and could not be measured by {job.cell.measure}: {ended}"
            return {}
        measured = json.loads(out.read_bytes())
    finally:
        out.unlink(missing_ok=True)
    if not isinstance(measured, dict) or job.score not in measured:
        names = ", ".join(measured) if isinstance(measured, dict) and measured else "nothing"
        found["error"] = (
            f"{job.cell.measure} finds {names}, and the score of the suite is {job.score!r}: name another measure or score"
        )
        return {}
    return measured


def process(
    job: Job,
    words: Sequence[str],
    halt: Halt,
    lock: BinaryIO,
    log: BinaryIO,
    limit: float,
    beat: Callable[[float, float], None] = lambda seconds, counted: None,
) -> Ended:
    """Start child.py with these words and wait. Raises Stopped before it starts.

    The process holds the read end of a pipe whose other end is ours alone, and the run's lock. limit: of seconds that count
    (`wm_suite.process_time`)."""
    if halt:
        raise Stopped
    begun, late, last_beat, start = time.monotonic(), False, time.monotonic(), log.seek(0, os.SEEK_END)
    theirs, ours = os.pipe()
    try:
        one = subprocess.Popen(
            [job.python, child.__file__, str(theirs), *words],
            env=_environment(job),
            cwd=job.cwd,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(theirs, lock.fileno()),
            start_new_session=True,  # alone, so that Ctrl-C reaches it once, from here
        )
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    try:
        with halt.telling(one):
            used, limit = ProcessTime(one.pid), max(1.0, limit)
            while True:
                try:
                    one.wait(min(BEAT, 1.0 if late else max(LOOK, limit - used.seconds)))
                    break
                except subprocess.TimeoutExpired:
                    now = time.monotonic()
                    if used.look(now - begun) >= limit and not late:
                        late = True
                        one.send_signal(signal.SIGTERM)  # it saves
                    if now - last_beat >= BEAT:
                        last_beat = now
                        beat(now - begun, used.seconds)
    finally:
        os.close(ours)  # an exception here lets the process save and end
    took = time.monotonic() - begun
    return Ended(one.returncode, took, used.look(took), late, _last_line(Path(log.name), start))


def _environment(job: Job) -> Mapping[str, str]:
    path = os.pathsep.join([*job.path, *filter(None, [os.environ.get("PYTHONPATH")])])
    return os.environ | ({"PYTHONPATH": path} if path else {}) | dict(job.environment)


def _last_line(log: Path, start: int) -> str:
    with log.open("rb") as file:
        file.seek(max(start, file.seek(0, os.SEEK_END) - 100_000))
        lines = [line.rpartition("\r")[2].strip() for line in file.read().decode(errors="replace").split("\n")]
    return next((line[:600] for line in reversed(lines) if line), "")


@contextlib.contextmanager
def held(job: Job, halt: Halt) -> Iterator[BinaryIO]:
    """The lock of a run. The processes of a run hold it too, so that a run whose worker was killed is not begun a second
    time while it saves. Raises SuiteError where another one keeps it, Stopped where there is no waiting any more."""
    with job.beside("lock").open("ab") as file:
        deadline = time.monotonic() + WAIT
        while not _take(file.fileno()):
            if time.monotonic() > deadline:
                raise SuiteError(f"another process is at it ({job.beside('lock')} is held): it is left to that one")
            if halt.wait(0.2):
                raise Stopped
        yield file


def busy(job: Job) -> bool:
    """Whether a process is at the run just now."""
    if not job.beside("lock").exists():
        return False
    with job.beside("lock").open("rb") as file:
        return not _take(file.fileno())


def _take(descriptor: int) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system that knows no locks is trusted
        return True
    return True


def main(words: Sequence[str]) -> int:
    """One job, to its end; SIGTERM and Ctrl-C let the run save."""
    halt = Halt()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: halt.set())
    outcome = carry_out(Job.from_json(words[0]), halt)
    print(outcome.sentence, file=sys.stderr, flush=True)
    return {"done": 0, "failed": 1, "stopped": 128 + signal.SIGTERM}[outcome.state]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
