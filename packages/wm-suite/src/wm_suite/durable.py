"""Text -> a file that is whole on the disk before it has its name."""

from __future__ import annotations

import errno
import os
from pathlib import Path


def write(path: Path, text: str) -> None:
    """All of the text or none of it, whatever happens to the process or the machine. Raises OSError; the file is then as it
    was.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(Path(folder) / "a.json", "{}")
    ...     [(file.name, file.read_text()) for file in Path(folder).iterdir()]
    [('a.json', '{}')]
    """
    if not path.name:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    draft = path.with_name(f".{path.name}.draft")
    try:
        with draft.open("wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
