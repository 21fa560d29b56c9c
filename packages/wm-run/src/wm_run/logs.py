"""Rows -> a log that knows what it holds, so that a row which somebody changed, added or took away is noticed.

A checkpoint keeps how far each log had come and the crc32 of it up to there. The sum is carried along with the rows: no
log is read again for it, but where another program wrote into it.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wm_run import durable
from wm_run.errors import RunError

OURS = "put it back from a copy if that was not meant"


class Log:
    r"""One file of rows, each a line of JSON with a step, opened for appending after the last whole row.

    altered: whether another program had a hand in it, as far as is known; notices: sentences about that which are new.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     log = Log(Path(folder) / "scores.jsonl")
    ...     log.write(b'{"step": 1}\n')
    ...     with log.path.open("ab") as other:
    ...         _ = other.write(b'{"step": 0}')
    ...     log.write(b'{"step": 2}\n')
    ...     log.close()
    ...     log.path.read_text(), [sentence.split()[1:6] for sentence in log.notices]
    ('{"step": 1}\n{"step": 0}\n{"step": 2}\n', [['was', 'written', 'by', 'another', 'program,']])
    """

    def __init__(self, path: Path) -> None:
        self.path, self.altered, self.notices = path, False, list[str]()
        self.bytes, self.crc = 0, 0
        self._open()

    def write(self, row: bytes) -> None:
        """One more row; it is whole or absent when the process is killed."""
        self._look()
        self._file.write(row)
        self._file.flush()
        self.bytes, self.crc = self.bytes + len(row), zlib.crc32(row, self.crc)

    def sync(self) -> None:
        """Hand everything written so far to the disk."""
        self._look()
        os.fsync(self._file.fileno())

    def mark(self) -> dict[str, Any]:
        """For a checkpoint, after `sync`: what it holds."""
        return {"bytes": self.bytes, "crc32": self.crc, "altered": self.altered}

    def cut(self, size: int, step: int = 0, mark: Any = None) -> None:
        """Drop the rows behind a checkpoint of that step, where it was `size` bytes long. All of it stays in
        <name>.before-<k> where it is not what `mark` says, or where rows that go are none of a run's that went on from there."""
        text = self.path.read_bytes()
        mark = mark if isinstance(mark, Mapping) else {}
        odd = difference(text, mark)
        if odd:
            size = _end(text, step)
        if odd or size and not _all_later(text[size:], step):
            kept = self.set_aside()
            self.notices.append(
                f"{self.path} {odd}: its rows up to step {step:,} stay as they are, all of it is in {kept.name}; {OURS}"
                if odd
                else f"{self.path} holds rows of another program behind step {step:,}: they are in {kept.name}"
            )
        altered = bool(odd) or mark.get("altered") is True
        self.close()
        os.truncate(self.path, min(len(text), size))
        self._open()
        self.altered = altered

    def set_aside(self) -> Path:
        """A copy as <name>.before-<k>."""
        names = (self.path.with_name(f"{self.path.name}.before-{k}") for k in itertools.count(1))
        copy = Path(shutil.copy(self.path, next(name for name in names if not name.exists())))
        durable.sync(copy)
        return copy

    @property
    def closed(self) -> bool:
        return self._file.closed

    def close(self) -> None:
        """On the disk, and closed."""
        os.fsync(self._file.fileno())
        self._file.close()

    def _open(self) -> None:
        """Raises RunError for a pipe or a device, which is waited for without end or keeps no row."""
        if self.path.exists() and not self.path.is_file() and not self.path.is_dir():
            raise RunError(f"{self.path} is a pipe or a device where a file should be: move it away")
        text = self.path.read_bytes() if self.path.exists() else b""
        whole = text.rfind(b"\n") + 1
        lacks = _step(text[whole:]) is not None  # an editor left out the last line's end
        if not lacks and whole < len(text):
            os.truncate(self.path, whole)
            text = text[:whole]
        self._file = self.path.open("a+b")
        if lacks:
            self._file.write(b"\n")
            self._file.flush()
            text += b"\n"
        self.bytes, self.crc = len(text), zlib.crc32(text)

    def _look(self) -> None:
        """Take in what another program did to the file meanwhile."""
        here, there = os.fstat(self._file.fileno()), _stat(self.path)
        if there is None:
            self._file.seek(0)
            durable.write(self.path, self._file.read().decode(errors="replace"))
            self._reopen("was removed by another program, and is written again")  # which alone need not be told
        elif (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino):
            self._reopen("was replaced by another program, and goes on from what it holds now")
        elif there.st_size != self.bytes:
            how = "written by another program, too" if there.st_size > self.bytes else "cut short by another program"
            self._reopen(f"was {how}: what it holds stays")

    def _reopen(self, what: str) -> None:
        before = self.bytes, self.crc
        self._file.close()
        self._open()
        if before == (self.bytes, self.crc):
            return  # a copy in its place, or a file system whose numbers of files change
        self.notices += [] if self.altered else [f"{self.path} {what}"]
        self.altered = True


def difference(text: bytes, mark: Any) -> str:
    """What is wrong with a log by what a checkpoint says of it, or nothing; one that says nothing is content.

    >>> difference(b"abc", {"bytes": 2, "crc32": zlib.crc32(b"ab")}), difference(b"abc", None)
    ('', '')
    >>> difference(b"a", {"bytes": 2, "crc32": 7})
    'is shorter than when it was saved'
    """
    size, crc = (mark.get(name) for name in ("bytes", "crc32")) if isinstance(mark, Mapping) else (None, None)
    if not isinstance(size, int) or not isinstance(crc, int):
        return ""
    if len(text) < size:
        return "is shorter than when it was saved"
    return "" if zlib.crc32(text[:size]) == crc else "is not what was saved (its checksum differs)"


def differences(logdir: Path, marks: Any) -> list[str]:
    """Sentences about the logs of a run folder that are not what the checkpoint says of them."""
    found = []
    for name, mark in marks.items() if isinstance(marks, Mapping) else ():
        path = logdir / Path(str(name)).name
        if odd := difference(path.read_bytes() if path.is_file() else b"", mark):
            found.append(f"{path} {odd}: rows were changed or taken away; {OURS}")
    return found


def _step(row: bytes) -> int | None:
    """The step of a row; None for what is no row of ours."""
    try:
        found = json.loads(row)
    except (ValueError, RecursionError):
        return None
    step = found.get("step") if isinstance(found, dict) else None
    return step if isinstance(step, int) and not isinstance(step, bool) else None


def _end(text: bytes, step: int) -> int:
    """Bytes of the rows before the first one of a later step."""
    size = 0
    for line in text.splitlines(keepends=True):
        if (_step(line) or 0) > step:
            break
        size += len(line)
    return size


def _all_later(text: bytes, step: int) -> bool:
    """Whether all rows are such as a run writes after a checkpoint of that step."""
    return all((found := _step(line)) is not None and found >= step for line in text.splitlines())


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None
