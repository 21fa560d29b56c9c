"""One driver a suite: what has no row is carried out by an engine, and each row joins the others as it comes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from wm_suite.engines import Engine
from wm_suite.errors import SuiteError
from wm_suite.job import Job
from wm_suite.rows import append_row
from wm_suite.worker import Halt, finished


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """The one driver of the suite whose runs are in this folder. Raises SuiteError where there is another.

    The system lets the lock go however this process ends.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock", timeout=0)
        lock.acquire()
    except Timeout as error:
        raise SuiteError(
            f"another `run` of this suite is under way ({folder / '.lock'} is held): wait for it or stop it; `status` "
            "shows how far it is"
        ) from error
    except OSError as error:
        raise SuiteError(f"{folder} cannot be written to: {error.strerror}") from error
    try:
        yield
    finally:
        lock.release()


def gather(jobs: Sequence[Job], rows: Path) -> list[Job]:
    """Rows that lie beside finished runs join the file; the jobs that have none. Inside `alone`. Raises SuiteError."""
    left = []
    for job in jobs:
        row = finished(job)
        if row is None:
            left.append(job)
        else:
            append_row(rows, row)
    return left


def drive(jobs: Sequence[Job], rows: Path, engine: Engine, halt: Halt, say: Callable[[str], None]) -> int:
    """Every job to its row, or to the sentence about what went wrong; how many have none. Inside `alone`.

    jobs: without a row in the file. Raises SuiteError where the file takes no row; what is under way is then stopped, and
    saved.
    """
    without = 0
    for outcome in engine.carry_out(jobs, halt):
        if outcome.row is not None:
            append_row(rows, outcome.row)
        else:
            without += 1
        say(outcome.sentence)
    return without
