"""add -> chunks of memory-mapped steps -> sample rows with their past -> annotate them afterwards.

One time-contiguous stream per environment: episodes follow each other and `first` marks where one begins. Every stream
is written at the same position, so a chunk is the same `chunk` steps of all streams: one file, one map, and in it one
contiguous column block per key, (streams, chunk, ...). A row of a batch is then one or two block copies per key.

Sizes: n streams, C steps a chunk, B batch, T length of a row, P past. Positions count the steps of one stream since the
beginning of the run and never restart, so a position names a step for good, eviction or not.
"""

from __future__ import annotations

import errno
import json
import os
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wm_core.errors import UserError
from wm_core.types import Batch, Index, Past

FORMAT = 1
DTYPES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")
ALIGN = 64  # bytes; a column block begins on a cache line
Array = NDArray[Any]


class ReplayError(UserError):
    """What a user can do about it is in the sentence."""


class Entry(NamedTuple):
    """One key of a step: its dtype and its shape without the stream axis."""

    key: str
    dtype: str
    shape: tuple[int, ...]


class Chunk(NamedTuple):
    """The columns of one chunk, key -> (n, C, ...), all views of one map."""

    columns: dict[str, Array]
    path: Path | None


class Replay:
    """What the environments brought, kept in order, under a byte budget.

    folder: where the chunk files lie, or None for plain memory. A folder that already holds chunks counts as empty
        until `load_state` says up to where they are valid; the first `add` without it begins the folder anew.
    streams: environments, the leading axis of everything added.
    stores: which entries the dynamics wants of the past, and of how many of the last past steps.
    limit_bytes: budget of all chunks. The oldest chunk goes when the next would exceed it; the next one is secured
        first, so while chunks change the disk holds one chunk more.
    length: rows of the online queue: whenever each stream has grown by `length` steps, that newest row of it is
        queued, and `sample` calls of this length take queued rows first. So every step is trained once soon
        (dreamerv3.md section 10). online=False leaves the queue out.
    seed: of the uniform sampling.

    >>> replay = Replay(None, streams=2, stores={}, limit_bytes=10**6, chunk=64, length=4)
    >>> for t in range(10):
    ...     replay.add(
    ...         {
    ...             "action": np.zeros((2, 3), np.float32),
    ...             "first": np.full(2, t == 0),
    ...             "vector": np.full((2, 5), t, np.float32),
    ...         }
    ...     )
    >>> batch = replay.sample(batch=3, length=4, past=2)
    >>> batch.steps["vector"].shape, batch.past.action.shape, replay.steps
    (torch.Size([3, 4, 5]), torch.Size([3, 2, 3]), 20)
    >>> replay.annotate(batch.index, vector=batch.steps["vector"] + 100)
    """

    def __init__(
        self,
        folder: Path | str | None,
        streams: int,
        *,
        stores: Mapping[str, int],
        limit_bytes: int,
        chunk: int = 1024,
        length: int = 64,
        online: bool = True,
        seed: int = 0,
    ) -> None:
        if min(streams, limit_bytes, chunk, length) < 1:
            raise ReplayError("streams, limit_bytes, chunk and length of a replay must all be at least 1")
        self.folder = None if folder is None else Path(folder)
        self.streams = streams
        self.stores = dict(stores)
        self.limit_bytes = limit_bytes
        self.chunk = chunk
        self.length = length
        self.online = online
        self._rng = np.random.default_rng(seed)
        self._schema: tuple[Entry, ...] = ()
        self._chunks: dict[int, Chunk] = {}  # number -> chunk; number = position // C
        self._position = 0  # the write head: the next step gets this position, in every stream
        self._oldest = 0  # the first position still held
        self._queue: deque[tuple[int, int]] = deque()  # (stream, start) of rows not served yet
        self._dirty: set[int] = set()

    # ---- writing

    @property
    def steps(self) -> int:
        """Steps held now, all streams together."""
        return (self._position - self._oldest) * self.streams

    @property
    def schema(self) -> tuple[Entry, ...]:
        """What a step holds, taken from the first `add`; () before."""
        return self._schema

    @property
    def step_bytes(self) -> int:
        """Bytes of one step of one stream; 0 before the first `add`."""
        return sum(np.dtype(e.dtype).itemsize * int(np.prod(e.shape)) for e in self._schema)

    def add(self, step: Mapping[str, Array | Tensor]) -> None:
        """Append one step to every stream: every value (n, ...), numpy or tensors of any device.

        The first call fixes keys, dtypes and shapes. Raises ReplayError where a later one differs or the disk is full;
        nothing is changed then.
        """
        arrays = {key: _array(value) for key, value in step.items()}
        if not self._schema:
            self._begin(arrays)
        self._check_step(arrays)
        number, slot = divmod(self._position, self.chunk)
        if number not in self._chunks:
            self._chunks[number] = self._allocate(number)  # may fail: before anything older is given up
            self._evict()
        columns = self._chunks[number].columns
        for key, value in arrays.items():
            columns[key][:, slot] = value
        self._dirty.add(number)
        self._position += 1
        if self.online and self._position % self.length == 0:
            start = self._position - self.length
            if start >= self._oldest:
                self._queue.extend((stream, start) for stream in range(self.streams))

    def annotate(self, index: Index, **arrays: Array | Tensor) -> None:
        """Write back (B, T, ...) values of known entries to the steps of `index`'s rows, from each row's first on.

        Steps evicted since are skipped. Where two rows share a step the later row stands.
        """
        known = {entry.key: entry for entry in self._schema}
        stream, start = index.stream.tolist(), index.start.tolist()
        for key, value in arrays.items():
            if key not in known:
                raise ReplayError(f"cannot annotate {key!r}: the replay holds {sorted(known)}")
            data, entry = _array(value), known[key]
            if data.dtype != entry.dtype or data.shape[:1] != (len(start),) or data.shape[2:] != entry.shape:
                raise ReplayError(
                    f"cannot annotate {key!r} with {data.dtype} {data.shape}: "
                    f"it is {entry.dtype} ({len(start)}, T, {str(entry.shape)[1:-1].rstrip(',')})"
                )
            for row, (s, begin) in enumerate(zip(stream, start, strict=True)):
                low, high = max(begin, self._oldest), min(begin + data.shape[1], self._position)
                for number, here, there in self._pieces(begin, low, high):
                    self._chunks[number].columns[key][s, here] = data[row, there]
                    self._dirty.add(number)

    # ---- reading

    def ready(self, length: int) -> bool:
        """Whether a row of `length` steps can be sampled."""
        return self._position - self._oldest >= length

    def sample(self, batch: int, length: int, past: int = 0) -> Batch:
        """B rows of T steps, queued rows first, the rest uniform over all row starts of all streams.

        steps hold every entry, (B, T, ...), with `weight` ones and `reset`. With past > 0, `Past` holds `action`,
        `first`, `valid` of the P steps before each row, and of each name in `stores` its last min(P, stores[name]).
        All are new contiguous CPU tensors that belong to the caller. Raises ReplayError with too little data.
        """
        if not self.ready(length):
            raise ReplayError(
                f"a row of {length} steps was asked of a replay that holds {self._position - self._oldest} per stream: "
                "collect more steps before training (`ready` tells)"
            )
        stream, start = self._draw(batch, length)
        rows = list(zip(stream.tolist(), start.tolist(), strict=True))
        steps = {entry.key: self._gather(entry, rows, 0, length) for entry in self._schema}
        context = self._past(rows, past) if past else None
        steps["weight"] = torch.ones(batch, length)
        steps["reset"] = steps["first"].clone()
        steps["reset"][:, 0][slice(None) if context is None else ~context.valid[:, -1]] = True
        return Batch(steps, context, Index(torch.from_numpy(stream), torch.from_numpy(start)))

    def _draw(self, batch: int, length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Streams and starts of B rows."""
        queued: list[tuple[int, int]] = []
        while self._queue and length == self.length and len(queued) < batch:
            queued.append(self._queue.popleft())
        starts = self._position - self._oldest - length + 1
        drawn = self._rng.integers(self.streams * starts, size=batch - len(queued))
        served = np.array(queued, np.int64).reshape(-1, 2)
        stream = np.concatenate([served[:, 0], drawn // starts])
        return stream, np.concatenate([served[:, 1], drawn % starts + self._oldest])

    def _past(self, rows: list[tuple[int, int]], past: int) -> Past:
        entries = {entry.key: entry for entry in self._schema}
        held = torch.tensor([start - self._oldest for _, start in rows])
        valid = torch.arange(-past, 0) >= -held[:, None]  # (B, P)
        stored = {}
        for name, last in self.stores.items():
            stored[name] = self._gather(entries[name], rows, -min(past, last), 0)
        action = self._gather(entries["action"], rows, -past, 0)
        return Past(stored, action, self._gather(entries["first"], rows, -past, 0), valid)

    def _gather(self, entry: Entry, rows: list[tuple[int, int]], begin: int, end: int) -> Tensor:
        """Steps [start + begin, start + end) of every row, zeros where evicted or never written: (B, end-begin, ...)."""
        out = np.empty((len(rows), end - begin, *entry.shape), entry.dtype)
        for row, (stream, start) in zip(out, rows, strict=True):
            low = max(start + begin, self._oldest)
            row[: low - start - begin] = 0
            for number, here, there in self._pieces(start + begin, low, start + end):
                row[there] = self._chunks[number].columns[entry.key][stream, here]
        return torch.from_numpy(out)

    def _pieces(self, origin: int, low: int, high: int) -> Iterator[tuple[int, slice, slice]]:
        """Positions [low, high) chunk by chunk: (chunk number, slice inside it, the same counted from `origin`)."""
        while low < high:
            number, slot = divmod(low, self.chunk)
            stop = min(high, (number + 1) * self.chunk)
            yield number, slice(slot, slot + stop - low), slice(low - origin, stop - origin)
            low = stop

    # ---- keeping

    def flush(self) -> None:
        """Hand everything written so far to the disk. A killed process loses nothing even without; a power cut does."""
        if self.folder is None or not self._schema:
            return
        for number in sorted(self._dirty & self._chunks.keys()):
            _fsync(self._file(number))  # covers pages dirtied through the map
        _fsync(self.folder)
        self._dirty.clear()

    def state(self) -> dict[str, Any]:
        """Where the streams stand, for a checkpoint: small, of numpy arrays, str and int. Call `flush` with it."""
        return {
            "format": FORMAT,
            "streams": self.streams,
            "chunk": self.chunk,
            "length": self.length,
            "position": self._position,
            "oldest": self._oldest,
            "queue": np.array(self._queue, np.int64).reshape(-1, 2),
            "rng": json.dumps(self._rng.bit_generator.state),
            "schema": self._describe() if self._schema else "",
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Stand again where `state` was taken: later steps are cut off and their chunk files deleted.

        Values annotated since then stay as they are, and chunks evicted since then stay gone. Raises ReplayError for a
        folder or a state of another shape, and for a chunk that is missing or cut short.
        """
        if state["format"] > FORMAT:
            raise ReplayError("this replay was saved by a newer wm-core: install that version to go on with it")
        mine = {"streams": self.streams, "chunk": self.chunk, "length": self.length}
        for name, value in mine.items():
            if state[name] != value:
                raise ReplayError(
                    f"the replay was saved with {name}={state[name]}, not {value}: go on with that number"
                )
        position, oldest = int(state["position"]), int(state["oldest"])
        if self.folder is None:
            if state["schema"] != (self._describe() if self._schema else "") or position > self._position:
                raise ReplayError("a replay kept in memory ends with its process: give it a folder to resume the run")
            oldest = max(oldest, self._oldest)
        elif state["schema"]:
            oldest = self._reopen(str(state["schema"]), position, oldest)
        else:
            self._wipe()
        self._position, self._oldest = position, min(oldest, position)
        keep = range(self._oldest // self.chunk, -(-position // self.chunk)) if position > self._oldest else range(0)
        for number in [n for n in self._chunks if n not in keep]:
            self._drop(number)
        queue = np.asarray(state["queue"], np.int64).reshape(-1, 2)
        self._queue = deque((int(s), int(start)) for s, start in queue if start >= self._oldest)
        self._rng.bit_generator.state = json.loads(state["rng"])

    def _begin(self, arrays: Mapping[str, Array]) -> None:
        """Take the schema from the first step, and empty the folder of what an earlier run left there."""
        taken = {"weight", "reset"} & arrays.keys()
        if taken:
            raise ReplayError(f"{sorted(taken)} are made by `sample` and cannot be stored: rename those entries")
        missing = ({"action", "first"} | self.stores.keys()) - arrays.keys()
        if missing:
            raise ReplayError(f"a step needs {sorted(missing)} (`action`, `first` and what the dynamics stores)")
        for key, value in arrays.items():
            if str(value.dtype) not in DTYPES:
                raise ReplayError(f"cannot store {key!r} as {value.dtype}: use one of {', '.join(DTYPES)}")
            if value.shape[:1] != (self.streams,):
                raise ReplayError(f"{key!r} has shape {value.shape}, but its first axis must be {self.streams} streams")
        schema = tuple(Entry(k, str(v.dtype), v.shape[1:]) for k, v in sorted(arrays.items()))
        size = self._layout(schema)[1]
        need = max(2, -(-self.length // self.chunk) + 1)
        if need * size > self.limit_bytes:
            raise ReplayError(
                f"a replay limit of {_size(self.limit_bytes)} is too small: {need} chunks of {self.chunk} steps of "
                f"{self.streams} streams take {_size(need * size)}; raise the limit or shorten the chunks"
            )
        self._wipe()
        self._schema = schema
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            _write(self.folder / "schema.json", self._describe())

    def _check_step(self, arrays: Mapping[str, Array]) -> None:
        if arrays.keys() != {entry.key for entry in self._schema}:
            odd = sorted(arrays.keys() ^ {entry.key for entry in self._schema})
            raise ReplayError(f"every step must hold the entries of the first one; {odd} are on one side only")
        for key, dtype, shape in self._schema:
            value = arrays[key]
            if value.dtype != dtype or value.shape != (self.streams, *shape):
                raise ReplayError(
                    f"{key!r} was {dtype} {(self.streams, *shape)} in the first step and is {value.dtype} {value.shape}"
                )

    def _allocate(self, number: int) -> Chunk:
        """A new chunk with its bytes reserved, so that writing through the map cannot fail later."""
        _, size = self._layout(self._schema)
        if self.folder is None:
            return self._columns(np.empty(size, np.uint8), None)
        path = self._file(number)
        try:
            with path.open("wb") as file:
                _reserve(file.fileno(), size)
        except OSError as error:
            with suppress(OSError):
                path.unlink(missing_ok=True)
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            raise ReplayError(
                f"no room for the next {_size(size)} of replay in {self.folder}: free some disk space or lower the "
                "replay limit, then resume the run; nothing stored so far was lost"
            ) from error
        return self._map(number)

    def _map(self, number: int) -> Chunk:
        """An existing chunk file, mapped for reading and writing."""
        path, (_, size) = self._file(number), self._layout(self._schema)
        found = path.stat().st_size if path.is_file() else 0
        if found != size:
            what = f"is cut short ({found} of {size} bytes)" if found else "is missing"
            raise ReplayError(f"the replay chunk {path} {what}: put it back, or start a new run")
        # torch closes the file once it is mapped; mmap and np.memmap hold one descriptor a chunk and reach the limit
        return self._columns(torch.from_file(str(path), shared=True, size=size, dtype=torch.uint8).numpy(), path)

    def _columns(self, block: Array, path: Path | None) -> Chunk:
        offsets, _ = self._layout(self._schema)
        columns = {}
        for entry in self._schema:
            shape = (self.streams, self.chunk, *entry.shape)
            count = int(np.prod(shape))
            columns[entry.key] = np.frombuffer(block, entry.dtype, count, offsets[entry.key]).reshape(shape)
        return Chunk(columns, path)

    def _layout(self, schema: tuple[Entry, ...]) -> tuple[dict[str, int], int]:
        """Offset of each key's block in a chunk, and the bytes of a chunk."""
        offsets, size = {}, 0
        for key, dtype, shape in schema:
            offsets[key] = size
            block = self.streams * self.chunk * int(np.prod(shape)) * np.dtype(dtype).itemsize
            size += -(-block // ALIGN) * ALIGN
        return offsets, size

    def _evict(self) -> None:
        """Give up the oldest chunks while the budget is exceeded."""
        _, size = self._layout(self._schema)
        while len(self._chunks) * size > self.limit_bytes:
            number = min(self._chunks)
            self._oldest = (number + 1) * self.chunk
            if self.folder is not None:  # said before it is done: a chunk gone without this is a missing one
                _write(self.folder / "oldest.json", json.dumps({"oldest": self._oldest}))
            self._drop(number)
        self._queue = deque((stream, start) for stream, start in self._queue if start >= self._oldest)

    def _reopen(self, schema: str, position: int, oldest: int) -> int:
        """Map the folder's chunks that hold [oldest, position); returns `oldest`, later where evicted since."""
        assert self.folder is not None
        described = self.folder / "schema.json"
        if not described.is_file():
            raise ReplayError(
                f"no replay in {self.folder}, but the checkpoint needs it: put it back, or start a new run"
            )
        if json.loads(described.read_text()) != json.loads(schema):
            raise ReplayError(
                f"the replay in {self.folder} holds other entries than the checkpoint: they are of two runs"
            )
        self._chunks.clear()
        self._schema = tuple(Entry(e["key"], e["dtype"], tuple(e["shape"])) for e in json.loads(schema)["entries"])
        if self.stores.keys() - {entry.key for entry in self._schema}:
            raise ReplayError(
                f"the replay in {self.folder} does not hold {sorted(self.stores)}: it is of another model"
            )
        gone = self.folder / "oldest.json"
        if gone.is_file():
            oldest = max(oldest, int(json.loads(gone.read_text())["oldest"]))
        numbers = range(oldest // self.chunk, -(-position // self.chunk)) if oldest < position else range(0)
        self._chunks = {number: self._map(number) for number in numbers}
        for path in self.folder.glob("*.chunk"):
            if int(path.stem) not in self._chunks:
                path.unlink()
        _write(gone, json.dumps({"oldest": min(oldest, position)}))
        return oldest

    def _wipe(self) -> None:
        """An empty replay and an empty folder."""
        self._chunks.clear()
        self._schema = ()
        if self.folder is not None and (self.folder / "schema.json").is_file():
            for path in (*self.folder.glob("*.chunk"), self.folder / "oldest.json", self.folder / "schema.json"):
                path.unlink(missing_ok=True)

    def _drop(self, number: int) -> None:
        path = self._chunks.pop(number).path
        self._dirty.discard(number)
        if path is not None:
            path.unlink(missing_ok=True)

    def _describe(self) -> str:
        """The folder's shape, as JSON."""
        shape = {"format": FORMAT, "streams": self.streams, "chunk": self.chunk}
        return json.dumps(shape | {"entries": [entry._asdict() for entry in self._schema]})

    def _file(self, number: int) -> Path:
        assert self.folder is not None
        return self.folder / f"{number:08d}.chunk"


def _array(value: Array | Tensor) -> Array:
    """numpy, whatever device a tensor is on."""
    if not isinstance(value, Tensor):
        return np.asarray(value)
    if value.dtype == torch.bfloat16:
        raise ReplayError("numpy has no bfloat16: store it as float16")
    return value.detach().cpu().numpy()


def _reserve(descriptor: int, size: int) -> None:
    """Real disk blocks for the whole file: without them a full disk kills the process at a write through the map."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
        return
    zeros = bytes(1 << 20)  # macOS has no posix_fallocate
    for begin in range(0, size, len(zeros)):
        os.write(descriptor, zeros[: size - begin])


def _write(path: Path, text: str) -> None:
    """All of the text or none of it."""
    draft = path.with_suffix(".draft")
    draft.write_text(text)
    draft.replace(path)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _size(count: int) -> str:
    return f"{count / 2**20:,.1f} MB" if count >= 2**20 else f"{count:,} bytes"
