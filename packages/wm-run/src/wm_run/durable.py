"""text -> a file that is whole on the disk before it has its name, and whose name is on the disk before we go on.

A rename alone survives a killed process. A power cut may keep the new name and lose what is in the file, or lose the
name of a file that something else, by then on the disk, refers to: so the file is handed to the disk first, then
renamed, then its folder.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def write(path: Path, text: str) -> None:
    """All of the text or none of it, whatever happens to the process or the machine.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(Path(folder) / "a.json", "{}")
    ...     (Path(folder) / "a.json").read_text(), os.listdir(folder)
    ('{}', ['a.json'])
    """
    draft = path.with_name(f".{path.name}.draft")
    fill(draft, text)
    draft.replace(path)
    sync(path.parent)


def fill(path: Path, text: str) -> None:
    """A file with this text, on the disk; for a folder that is named later."""
    with path.open("wb") as file:
        file.write(text.encode("utf-8"))
        file.flush()
        os.fsync(file.fileno())


def share(path: Path) -> None:
    """The permissions that a new file gets here, by the umask, for one whose writer made it its user's alone."""
    other = path.with_name(f".{path.name}.mode")
    other.open("wb").close()
    shutil.copymode(other, path)
    other.unlink()


def erase(path: Path) -> None:
    """A folder and what is in it; of a link the link alone."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Hand a file to the disk, or a folder: the names in it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """The folder and those above it; the names of the new ones are on the disk."""
    new = [one for one in (path, *path.parents) if not one.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for one in reversed(new):
        sync(one.parent)


def lost(path: Path) -> bool:
    """Whether a file is missing or, as a power cut leaves it, without a word: empty, or zeros."""
    return not path.is_file() or not path.read_bytes().strip(b"\0\r\n\t ")
