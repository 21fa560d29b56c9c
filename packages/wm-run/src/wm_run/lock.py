"""One process a run folder: two would cut each other's logs and replay."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from wm_core.errors import UserError

from wm_run import durable

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def locked(
    logdir: Path, doing: str = "training in", instead: str = "another --logdir for a run beside it"
) -> Iterator[None]:
    """Hold the folder and LOGDIR/.lock inside. The system lets them go however this process ends, so that no stale lock is
    left. A folder that was made for it goes again where nothing came to lie in it.

    Raises UserError where another process holds it. A file system that knows no locks is trusted.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as logdir, locked(Path(logdir)):
    ...     sorted(os.listdir(logdir))
    ['.lock']
    """
    made = [folder for folder in (logdir, *logdir.parents) if not folder.exists()]
    durable.make_folder(logdir)
    _check(logdir / ".lock")
    with _folder(logdir) as folder, (logdir / ".lock").open("a+") as file:
        if not (_take(folder) and _take(file.fileno())):
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise UserError(f"{holder} is {doing} {logdir}: wait for it or stop it, or give {instead}")
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        try:
            yield
        finally:
            if made:
                _unmake(logdir, made)


def _check(file: Path) -> None:
    """Raises UserError for what nobody can write his name into."""
    if os.path.lexists(file) and not file.is_file():
        what = "a folder" if file.is_dir() else "a link to nowhere" if file.is_symlink() else "a pipe or a device"
        raise UserError(f"{file} is {what} where a file should be: remove it")


@contextmanager
def _folder(path: Path) -> Iterator[int | None]:
    """A descriptor of the folder: the lock on it stays where the file .lock is deleted, which shells and syncs do."""
    descriptor = None
    with suppress(OSError):  # Windows opens no folders
        descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _unmake(logdir: Path, made: list[Path]) -> None:
    """Remove the folders that were made for this run, if it left nothing in them: it was refused."""
    with suppress(OSError):
        inside = list(logdir.iterdir())
        if any(path.name != ".lock" and (not path.is_file() or path.stat().st_size) for path in inside):
            return
        for path in inside:
            path.unlink()
        for folder in made:
            folder.rmdir()


def _take(descriptor: int | None) -> bool:
    """Whether nobody else has it locked."""
    if fcntl is None or descriptor is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
