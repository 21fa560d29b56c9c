"""A first step -> a schema -> chunks: files of memory-mapped steps, under a byte budget.

Every stream is written at the same position, so a chunk is the same `chunk` steps of all streams: one file, one map, and
in it one contiguous column block per key, (streams, chunk, ...). Sizes: n streams, C steps a chunk.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from wm_core.errors import UserError

FORMAT = 3  # 2 had notes under bare names, see `Commits.reopen`; 1 had no checksums
DTYPES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")
ALIGN = 64  # bytes; a column block begins on a cache line
SPARE = 8  # one part in so many of the budget is for what a resumed run would need back
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
ANEW = "start a new run, from the weights of this one with --init-from"
Array = NDArray[Any]


class ReplayError(UserError):
    """What a user can do about it is in the sentence."""


class Entry(NamedTuple):
    """One key of a step: its dtype and its shape without the stream axis."""

    key: str
    dtype: str
    shape: tuple[int, ...]


LEAST = (  # what every step holds, of whatever environment
    Entry("action", "float32", (1,)),
    Entry("reward", "float32", ()),
    *(Entry(name, "bool", ()) for name in ("first", "last", "terminal")),
)


class Chunk(NamedTuple):
    """The columns of one chunk, key -> (n, C, ...), all views of one map."""

    columns: dict[str, Array]
    path: Path | None


class Chunks:
    """The chunks that can be sampled, number -> Chunk in `held`; a number is position // C.

    folder: where the files lie, or None for plain memory. length: steps of a row, which the budget `limit_bytes` has to
    hold wherever it begins.

    >>> chunks = Chunks(None, streams=2, chunk=64, length=4, limit_bytes=10**6)
    >>> step = {"action": np.zeros((2, 3), np.float32), "first": np.zeros(2, bool)}
    >>> chunks.schema = chunks.schema_of(step, needed=())
    >>> chunks.allocate(0)
    >>> chunks.held[0].columns["action"].shape, chunks.bytes
    ((2, 64, 3), 1664)
    """

    def __init__(self, folder: Path | None, streams: int, *, chunk: int, length: int, limit_bytes: int) -> None:
        self.folder, self.streams, self.chunk = folder, streams, chunk
        self.length, self.limit_bytes = length, limit_bytes
        self.schema: tuple[Entry, ...] = ()  # what a step holds; () before the first one
        self.held: dict[int, Chunk] = {}

    @property
    def keys(self) -> list[str]:
        return [entry.key for entry in self.schema]

    @property
    def step_bytes(self) -> int:
        """Bytes of one step of one stream; 0 before the first."""
        return sum(np.dtype(e.dtype).itemsize * int(np.prod(e.shape)) for e in self.schema)

    @property
    def bytes(self) -> int:
        """Of one chunk."""
        return self.layout(self.schema)[1]

    @property
    def full(self) -> bool:
        """Whether the oldest has to go: the rest of the budget is for what a resumed run needs back."""
        return len(self.held) * self.bytes > self._room()

    # ---- the schema

    def schema_of(self, arrays: Mapping[str, Array], needed: Collection[str]) -> tuple[Entry, ...]:
        """The schema that a first step gives. Raises ReplayError for a step that cannot be stored, or a budget that is
        too small for it."""
        taken = {"weight", "reset"} & arrays.keys()
        if taken:
            raise ReplayError(f"{sorted(taken)} are made by `sample` and cannot be stored: rename those entries")
        missing = {"action", "first", *needed} - arrays.keys()
        if missing:
            raise ReplayError(f"a step needs {sorted(missing)} (`action`, `first` and what the dynamics stores)")
        for key, value in arrays.items():
            if str(value.dtype) not in DTYPES:
                raise ReplayError(f"cannot store {key!r} as {value.dtype}: use one of {', '.join(DTYPES)}")
            if value.shape[:1] != (self.streams,):
                raise ReplayError(f"{key!r} has shape {value.shape}, but its first axis must be {self.streams} streams")
        schema = tuple(Entry(k, str(v.dtype), v.shape[1:]) for k, v in sorted(arrays.items()))
        self.check_limit(schema)
        return schema

    def check_limit(self, schema: tuple[Entry, ...]) -> None:
        """Raises ReplayError where the budget does not hold a row wherever it begins."""
        size = self.layout(schema)[1]
        need = max(2, -(-self.length // self.chunk) + 1)
        if need * size > self._room():
            raise ReplayError(
                f"a replay limit of {_size(self.limit_bytes)} is too small: {need} chunks of {self.chunk} steps of "
                f"{self.streams} streams take {_size(need * size)} and an eighth is kept free: raise the limit "
                "(--replay-bytes), shorten the chunks (--chunk) or take fewer streams (--envs)"
            )

    def check_step(self, arrays: Mapping[str, Array]) -> None:
        if arrays.keys() != {entry.key for entry in self.schema}:
            odd = sorted(arrays.keys() ^ {entry.key for entry in self.schema})
            raise ReplayError(f"every step must hold the entries of the first one; {odd} are on one side only")
        for key, dtype, shape in self.schema:
            value = arrays[key]
            if value.dtype != dtype or value.shape != (self.streams, *shape):
                raise ReplayError(
                    f"{key!r} was {dtype} {(self.streams, *shape)} in the first step and is {value.dtype} {value.shape}"
                )

    def allocate(self, number: int) -> None:
        """Hold a new chunk with its bytes reserved, so that writing through the map cannot fail later."""
        size = self.bytes
        if self.folder is None:
            self.held[number] = self._columns(np.empty(size, np.uint8), None)
            return
        path = self.file(number)
        try:
            with path.open("wb") as file:
                _reserve(file.fileno(), size)
        except OSError as error:
            with suppress(OSError):
                path.unlink(missing_ok=True)
            if error.errno not in FULL:
                raise
            raise ReplayError(
                f"no room for the next {_size(size)} of replay in {self.folder}: free some disk space or lower the "
                "replay limit, then resume the run; nothing stored so far was lost"
            ) from error
        self.held[number] = self.map(number)

    def map(self, number: int, *, shared: bool = True) -> Chunk:
        """An existing chunk file, mapped for reading and writing; shared=False: for reading alone, and whoever writes into
        the columns is refused."""
        path, size = self.file(number), self.bytes
        found = path.stat().st_size if path.is_file() else 0
        if found != size:
            raise ReplayError(damaged(path, f"is cut short ({found} of {size} bytes)" if found else "is missing"))
        # torch closes the file once it is mapped; mmap and np.memmap hold one descriptor a chunk and reach the limit
        block = torch.from_file(str(path), shared=shared, size=size, dtype=torch.uint8).numpy()
        if not shared:
            block.flags.writeable = False
        return self._columns(block, path)

    def _columns(self, block: Array, path: Path | None) -> Chunk:
        offsets, _ = self.layout(self.schema)
        columns = {}
        for entry in self.schema:
            shape = (self.streams, self.chunk, *entry.shape)
            count = int(np.prod(shape))
            columns[entry.key] = np.frombuffer(block, entry.dtype, count, offsets[entry.key]).reshape(shape)
        return Chunk(columns, path)

    def layout(self, schema: tuple[Entry, ...]) -> tuple[dict[str, int], int]:
        """Offset of each key's block in a chunk, and the bytes of a chunk."""
        offsets, size = {}, 0
        for key, dtype, shape in schema:
            offsets[key] = size
            block = self.streams * self.chunk * int(np.prod(shape)) * np.dtype(dtype).itemsize
            size += -(-block // ALIGN) * ALIGN
        return offsets, size

    def _room(self) -> int:
        """Bytes for chunks that can be sampled; the rest of the budget is for what a resumed run needs back."""
        return self.limit_bytes - self.limit_bytes // SPARE

    def numbers(self, oldest: int, position: int) -> range:
        """Of the chunks that hold [oldest, position)."""
        return range(oldest // self.chunk, -(-position // self.chunk)) if oldest < position else range(0)

    def pieces(self, origin: int, low: int, high: int) -> Iterator[tuple[int, slice, slice]]:
        """Positions [low, high) chunk by chunk: (chunk number, slice inside it, the same counted from `origin`)."""
        while low < high:
            number, slot = divmod(low, self.chunk)
            stop = min(high, (number + 1) * self.chunk)
            yield number, slice(slot, slot + stop - low), slice(low - origin, stop - origin)
            low = stop

    def describe(self) -> str:
        """The folder's shape, as JSON."""
        shape = {"format": FORMAT, "streams": self.streams, "chunk": self.chunk}
        return json.dumps(shape | {"entries": [entry._asdict() for entry in self.schema]})

    def file(self, number: int) -> Path:
        assert self.folder is not None
        return self.folder / f"{number:08d}.chunk"


def _reserve(descriptor: int, size: int) -> None:
    """Real disk blocks for the whole file: without them a full disk kills the process at a write through the map."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
        return
    zeros = bytes(1 << 20)  # macOS has no posix_fallocate
    for begin in range(0, size, len(zeros)):
        os.write(descriptor, zeros[: size - begin])


def damaged(path: Path, what: str) -> str:
    return f"the replay chunk {path} {what}: put it back, or {ANEW}"


def _size(count: int) -> str:
    return f"{count / 2**20:,.1f} MB" if count >= 2**20 else f"{count:,} bytes"
