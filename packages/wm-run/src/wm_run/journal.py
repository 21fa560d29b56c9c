"""old bytes -> an append-only file -> back to where they were: files that change in place and can be put back.

A record says "these were the bytes at this offset of this file" and is written before they are changed. A process may
be killed at any instant: the kernel keeps what was written in the order it was written, so a record that is cut short
at the end of the journal belongs to a change that has not begun. A power cut may lose the order, and records with it:
handing each record to the disk before the change would cost every update a wait for the disk, so whoever reads the files
again has to know that the machine was restarted.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wm_run import durable

HEAD = struct.Struct("<QQQ")  # number of the file, offset, bytes that follow
SEAL = struct.Struct("<I")  # crc32 of the head, so that bytes that are no record are never put anywhere
LEAST = HEAD.size + SEAL.size


class Old(NamedTuple):
    """What a file holds at an offset now: `data` is contiguous, of any dtype."""

    number: int
    offset: int
    data: NDArray[Any]


class Journal:
    """An undo journal in one file, which exists once something was recorded. `bytes` is its length.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file, journal = Path(folder) / "7", Journal(Path(folder) / "undo")
    ...     _ = file.write_bytes(b"abcdef")
    ...     journal.record([Old(7, 2, np.frombuffer(b"cd", np.uint8))])
    ...     _ = file.write_bytes(b"abXXef")
    ...     undo(journal.path, lambda number: Path(folder) / str(number)), file.read_bytes()
    (1, b'abcdef')
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bytes = 0

    def record(self, pieces: Iterable[Old]) -> None:
        """Append what is about to be changed. Raises OSError on a full disk, with the journal as it was before."""
        try:
            with self.path.open("ab" if self.bytes else "wb", buffering=1 << 20) as file:
                for number, offset, data in pieces:
                    head = HEAD.pack(number, offset, data.nbytes)
                    file.write(head + SEAL.pack(zlib.crc32(head)))
                    file.write(data.reshape(-1).view(np.uint8).data)
                file.flush()
                self.bytes = file.tell()
        except OSError:
            if self.path.exists():
                os.truncate(self.path, self.bytes)
            raise

    def drop(self) -> None:
        """What was recorded will not be needed again."""
        self.path.unlink(missing_ok=True)
        self.bytes = 0


def undo(path: Path, file_of: Callable[[int], Path]) -> int:
    """Put every recorded byte back; gives the number of records. Doing it twice, or half and then whole, does no harm.

    Later records first: where one place was recorded twice the older bytes stand. What was put back is on the disk then,
    for the journal may go. Raises OSError for a file that is gone.
    """
    records = list(_records(path))
    with path.open("rb") as journal:
        for number, offset, start, count in reversed(records):
            journal.seek(start)
            descriptor = os.open(file_of(number), os.O_WRONLY)
            try:
                os.pwrite(descriptor, journal.read(count), offset)
            finally:
                os.close(descriptor)
    for number in sorted({number for number, *_ in records}):
        durable.sync(file_of(number))
    return len(records)


def _records(path: Path) -> Iterator[tuple[int, int, int, int]]:
    """(number, offset, where in the journal, bytes) of every whole record."""
    end = path.stat().st_size
    with path.open("rb") as journal:
        at = 0
        while at + LEAST <= end:
            head, seal = journal.read(HEAD.size), journal.read(SEAL.size)
            number, offset, count = HEAD.unpack(head)
            at += LEAST
            if SEAL.unpack(seal)[0] != zlib.crc32(head) or at + count > end:
                return
            yield number, offset, at, count
            at += count
            journal.seek(at)
