"""One process a run folder: two would cut each other's logs and replay."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wm_core.errors import UserError

from wm_run import durable

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def locked(logdir: Path) -> Iterator[None]:
    """Hold LOGDIR/.lock inside. The system lets it go however this process ends, so that no stale lock is left.

    Raises UserError where another process holds it. A file system that knows no locks is trusted.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as logdir, locked(Path(logdir)):
    ...     sorted(os.listdir(logdir))
    ['.lock']
    """
    durable.make_folder(logdir)
    with (logdir / ".lock").open("a+") as file:
        if not _take(file.fileno()):
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise UserError(
                f"{holder} is training in {logdir}: wait for it or stop it, or give another --logdir for a run beside it"
            )
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


def _take(descriptor: int) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
