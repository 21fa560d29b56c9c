"""add -> chunks of memory-mapped steps -> sample rows with their past -> annotate them afterwards.

One time-contiguous stream per environment: episodes follow each other and `first` marks where one begins. Every stream
is written at the same position, so a chunk is the same `chunk` steps of all streams: one file, one map, and in it one
contiguous column block per key, (streams, chunk, ...). A row of a batch is then one or two block copies per key.

`state` goes into a checkpoint, `commit` says that this checkpoint is on disk. From then on nothing it refers to is
lost: before `annotate` overwrites a step of it, the old bytes go to an undo journal (the first time only), and the
files of chunks evicted since are kept. `load_state` undoes both, checks every chunk against its checksums, and stands
where the checkpoint stood, whenever the process was killed. The next commit drops journal and files.

Sizes: n streams, C steps a chunk, B batch, T length of a row, P past. Positions count the steps of one stream since the
beginning of the run and never restart, so a position names a step for good, eviction or not.
"""

from __future__ import annotations

import errno
import json
import os
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from wm_core.errors import UserError
from wm_core.names import NOTE
from wm_core.types import Batch, Index, Past

from wm_run import durable
from wm_run.journal import Journal, Old, undo

FORMAT = 3  # 2 had notes under bare names, see `_translated`; 1 had no checksums
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
    limit_bytes: budget of the folder. An eighth of it is left to what a resumed run would need back
        (the journal, and chunks evicted since the last commit); the oldest chunk goes when the next would exceed the
        rest. `crowded` says when a commit has to make room. The next chunk is secured before anything is given up, so
        the folder holds up to one chunk more.
    length: rows of the online queue: whenever each stream has grown by `length` steps, that newest row of it is
        queued, and `sample` calls of this length take queued rows first. So every step is trained once soon
        (dreamerv3.md section 10). online=False leaves the queue out; with a `stride` a row is queued whenever each
        stream has grown by that many steps, 0 meaning `length`.
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
        stride: int = 0,
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
        self.online, self.stride = online, stride or length
        self._rng = np.random.default_rng(seed)
        self._schema: tuple[Entry, ...] = ()
        self._chunks: dict[int, Chunk] = {}  # number -> chunk; number = position // C
        self._position = 0  # the write head: the next step gets this position, in every stream
        self._oldest = 0  # the first position still held
        self._queue: deque[tuple[int, int]] = deque()  # (stream, start) of rows not served yet
        self._dirty: set[int] = set()
        self._committed = 0  # positions before it are referred to by a checkpoint on disk
        self._journal: Journal | None = None  # of changes since that checkpoint
        self._kept: dict[tuple[int, str], NDArray[np.bool_]] = {}  # (n, C): steps that the journal has the old value of
        self._retired: set[int] = set()  # chunks evicted since, whose files stay
        self._rewritten: set[str] = set()  # entries that `annotate` ever changed, in this folder
        self._sums: dict[tuple[int, str], int] = {}  # (chunk, entry) -> crc32 of what was written; missing: to be made

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
    def _keys(self) -> list[str]:
        return [entry.key for entry in self._schema]

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
        self._changed(number, self._keys)
        self._position += 1
        if self.online and self._position % self.stride == 0:
            start = self._position - self.length
            if start >= self._oldest:
                self._queue.extend((stream, start) for stream in range(self.streams))

    def annotate(self, index: Index, **arrays: Array | Tensor) -> None:
        """Write back (B, T, ...) values of known entries to the steps of `index`'s rows, from each row's first on.

        Steps evicted since are skipped. Where two rows share a step the later row stands.
        """
        known = {entry.key: entry for entry in self._schema}
        stream, start = index.stream.tolist(), index.start.tolist()
        moves: list[tuple[int, str, int, slice, Array]] = []
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
                moves += [(n, key, s, here, data[row, there]) for n, here, there in self._pieces(begin, low, high)]
        self._remember(moves)
        for number, key, s, here, new in moves:
            self._chunks[number].columns[key][s, here] = new
            self._changed(number, (key,))

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

    @property
    def disk_bytes(self) -> int:
        """Bytes of the folder: chunks, chunks kept for a resumed run, and the journal."""
        if self.folder is None or not self._schema:
            return 0
        journal = self._journal.bytes if self._journal else 0
        return (len(self._chunks) + len(self._retired)) * self._layout(self._schema)[1] + journal

    @property
    def crowded(self) -> bool:
        """Whether the folder outgrows its budget until the next commit: save a checkpoint now."""
        return self.disk_bytes > self.limit_bytes

    def flush(self) -> None:
        """Hand everything written so far to the disk. A killed process loses nothing even without; a power cut does."""
        if self.folder is None or not self._schema:
            return
        if self._journal and self._journal.bytes:  # first: it undoes what the chunks are about to hold for good
            durable.sync(self._journal.path)
        durable.sync(self.folder)
        for number in sorted(self._dirty & self._chunks.keys()):
            durable.sync(self._file(number))  # covers pages dirtied through the map
        self._dirty.clear()

    def state(self) -> dict[str, Any]:
        """Where the streams stand, for a checkpoint: of numpy arrays, str and int. Call `flush` with it.

        `sums` (chunks, entries) are checksums of every step held; only what changed since the last time is read.
        """
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
            "sums": self._summed(),
        }

    def commit(self, state: Mapping[str, Any]) -> None:
        """The checkpoint that holds `state` is on disk: what only earlier ones needed goes, and changes from here on
        can be undone.

        Between `state` and `commit` nothing may change. Killed between the two, nothing is lost either way.
        """
        if int(state["position"]) != self._position:
            raise ValueError(f"commit of position {state['position']}, but the replay stands at {self._position}")
        if self.folder is None or not self._schema:
            return
        self._begin_journal(state)
        # before it is done: a chunk gone without this is a missing one
        self._tell(self._position, self._oldest, boot())
        for number in self._retired:
            self._file(number).unlink(missing_ok=True)
        self._retired.clear()
        for path in self.folder.glob("*.undo"):
            if path != self._journal_path(state):
                path.unlink()

    def load_state(self, state: Mapping[str, Any]) -> list[str]:
        """Stand again where `state` was taken; gives sentences about what could not be put back.

        Of a folder: steps, write-backs and evictions since the commit of `state` are undone, and every chunk is checked.
        For the state of an earlier checkpoint than the last one committed the write-backs stay as they are and chunks
        evicted in between stay gone; the sentences say so. In memory all of these stay. Raises ReplayError for a
        folder or a state of another shape, and for a chunk that is missing, cut short or damaged.
        """
        if state["format"] not in (2, FORMAT):
            raise ReplayError(
                f"this replay has format {state['format']}, this wm-core reads {FORMAT}: go on with the "
                f"{'newer' if state['format'] > FORMAT else 'older'} wm-core that saved it, or take only the weights into "
                "a new run with --init-from"
            )
        mine = {"streams": self.streams, "chunk": self.chunk, "length": self.length}
        for name, value in mine.items():
            if state[name] != value:
                raise ReplayError(
                    f"the replay was saved with {name}={state[name]}, not {value}: go on with that number"
                )
        position, oldest, notices = int(state["position"]), int(state["oldest"]), list[str]()
        if self.folder is None:
            if state["schema"] != (self._describe() if self._schema else "") or position > self._position:
                raise ReplayError("a replay kept in memory ends with its process: give it a folder to resume the run")
            oldest = max(oldest, self._oldest)
            for number in [n for n in self._chunks if n not in self._numbers(oldest, position)]:
                self._drop(number)
        elif state["schema"]:
            oldest, notices = self._reopen(state)
        else:
            self._wipe()
        self._position, self._oldest = position, min(oldest, position)
        queue = np.asarray(state["queue"], np.int64).reshape(-1, 2)
        self._queue = deque((int(s), int(start)) for s, start in queue if start >= self._oldest)
        self._rng.bit_generator.state = json.loads(state["rng"])
        if self.folder is not None and self._schema:
            self._begin_journal(state)
        return notices

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
        self._check_limit(schema)
        self._wipe()
        self._schema = schema
        if self.folder is not None:
            durable.make_folder(self.folder)
            durable.write(self.folder / "schema.json", self._describe())

    def _check_limit(self, schema: tuple[Entry, ...]) -> None:
        """Raises ReplayError where the budget does not hold a row wherever it begins."""
        size = self._layout(schema)[1]
        need = max(2, -(-self.length // self.chunk) + 1)
        if need * size > self._room():
            raise ReplayError(
                f"a replay limit of {_size(self.limit_bytes)} is too small: {need} chunks of {self.chunk} steps of "
                f"{self.streams} streams take {_size(need * size)} and an eighth is kept free; raise the limit or shorten "
                "the chunks"
            )

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
            if error.errno not in FULL:
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
            raise ReplayError(_damaged(path, f"is cut short ({found} of {size} bytes)" if found else "is missing"))
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
        while len(self._chunks) * size > self._room():
            number = min(self._chunks)
            self._oldest = (number + 1) * self.chunk
            self._drop(number)
        self._queue = deque((stream, start) for stream, start in self._queue if start >= self._oldest)

    def _room(self) -> int:
        """Bytes for chunks that can be sampled; the rest of the budget is for what a resumed run needs back."""
        return self.limit_bytes - self.limit_bytes // SPARE

    def _drop(self, number: int) -> None:
        """Give up a chunk; its file stays while a checkpoint refers to it."""
        path = self._chunks.pop(number).path
        self._dirty.discard(number)
        for entry in self._schema:
            self._sums.pop((number, entry.key), None)
        if path is None:
            return
        if number * self.chunk < self._committed:
            self._retired.add(number)
        else:
            path.unlink(missing_ok=True)

    def _numbers(self, oldest: int, position: int) -> range:
        """Of the chunks that hold [oldest, position)."""
        return range(oldest // self.chunk, -(-position // self.chunk)) if oldest < position else range(0)

    # ---- going back

    def _begin_journal(self, state: Mapping[str, Any]) -> None:
        """From here on, changes of what `state` refers to are recorded."""
        self._committed = self._position
        self._journal = Journal(self._journal_path(state))
        self._kept.clear()

    def _journal_path(self, state: Mapping[str, Any]) -> Path:
        """Named after position and content, so that it is never undone on top of another content."""
        assert self.folder is not None
        content = zlib.crc32(np.ascontiguousarray(state["sums"]).tobytes())
        return self.folder / f"{int(state['position']):012d}-{content:08x}.undo"

    def _remember(self, moves: Iterable[tuple[int, str, int, slice, Array]]) -> None:
        """Record the committed values that these moves overwrite and that were not recorded before."""
        if self._journal is None:
            return
        pieces: list[Old] = []
        recorded: list[NDArray[np.bool_]] = []
        offsets, _ = self._layout(self._schema)
        fresh = {key for _, key, _, _, _ in moves} - self._rewritten
        if fresh:
            self._rewritten |= fresh
            told = self._told()
            self._tell(max(self._committed, told["position"]), told["oldest"], told["boot"])
        for number, key, s, here, _ in moves:
            stop = min(here.stop, self._committed - number * self.chunk)
            if stop <= here.start:
                continue
            shape = (self.streams, self.chunk)
            kept = self._kept.setdefault((number, key), np.zeros(shape, np.bool_))[s, here.start : stop]
            if kept.all():
                continue
            column = self._chunks[number].columns[key]
            for begin, end in _runs(~kept):
                old = column[s, here.start + begin : here.start + end]
                place = offsets[key] + (s * self.chunk + here.start + begin) * (old.nbytes // len(old))
                pieces.append(Old(number, place, old))
            recorded.append(kept)
        if not pieces:
            return
        try:
            self._journal.record(pieces)
        except OSError as error:
            if error.errno not in FULL:
                raise
            raise ReplayError(
                f"no room for the undo journal in {self.folder}: free some disk space, then resume the run; nothing "
                "stored so far was lost"
            ) from error
        for kept in recorded:
            kept[:] = True

    def _changed(self, number: int, keys: Iterable[str]) -> None:
        """These columns of a chunk are other than on disk, and than their checksums say."""
        self._dirty.add(number)
        for key in keys:
            self._sums.pop((number, key), None)

    def _summed(self) -> NDArray[np.uint32]:
        """(chunks, entries) crc32 of the steps written so far, by chunk and in the order of the schema."""
        if self.folder is None or not self._schema:
            return np.zeros((0, 0), np.uint32)
        for number, chunk in self._chunks.items():
            for key in self._keys:
                if (number, key) not in self._sums:
                    self._sums[number, key] = _sum(chunk.columns[key], self._position - number * self.chunk)
        rows = [[self._sums[number, key] for key in self._keys] for number in sorted(self._chunks)]
        return np.array(rows, np.uint32).reshape(len(rows), len(self._keys))

    def _reopen(self, state: Mapping[str, Any]) -> tuple[int, list[str]]:
        """Undo what happened since, check and map the folder's chunks; the first position held, and sentences."""
        assert self.folder is not None
        position, oldest, schema = int(state["position"]), int(state["oldest"]), str(state["schema"])
        described = self.folder / "schema.json"
        if not described.is_file():
            raise ReplayError(f"no replay in {self.folder}, but the checkpoint needs it: put it back, or {ANEW}")
        entries = self._translated(json.loads(schema))
        if self._translated(_read(described)) != entries:
            raise ReplayError(
                f"the replay in {self.folder} holds other entries than the checkpoint: they are of two runs"
            )
        self._chunks.clear()
        self._schema = tuple(Entry(e["key"], e["dtype"], tuple(e["shape"])) for e in entries["entries"])
        self._check_limit(self._schema)
        if self.stores.keys() - set(self._keys):
            raise ReplayError(
                f"the replay in {self.folder} does not hold {sorted(self.stores)}: it is of another model"
            )
        told, notices, checked = self._told(), list[str](), set(self._keys)
        self._rewritten = set(told["rewritten"])
        if told["position"] > position:  # of an earlier checkpoint than the last one
            checked -= self._rewritten
            notices += (
                [f"values of {sorted(self._rewritten)} stay as later updates left them"] if self._rewritten else []
            )
            if told["oldest"] > oldest:
                oldest = told["oldest"]
                notices.append(f"the first {oldest:,} steps of each stream were evicted since")
        journal = self._journal_path(state)
        if journal.is_file():
            try:
                undo(journal, self._file)
            except FileNotFoundError as error:
                raise ReplayError(_damaged(Path(error.filename), "is missing")) from error
        numbers = self._numbers(oldest, position)
        self._chunks = {number: self._map(number) for number in numbers}
        self._sums.clear()
        sums = np.asarray(state["sums"], np.uint32)[len(self._numbers(int(state["oldest"]), position)) - len(numbers) :]
        cut = bool(told["boot"]) and told["boot"] != boot()  # the machine began anew: of the journal a part may be lost
        altered: set[str] = set()
        for number, row in zip(numbers, sums.tolist(), strict=True):
            for key, expected in zip(self._keys, row, strict=True):
                if key not in checked:
                    continue
                if _sum(self._chunks[number].columns[key], position - number * self.chunk) != expected:
                    if cut and key in self._rewritten:
                        altered.add(key)
                        continue
                    what = f"is not what was saved (the checksum of {key!r} differs)"
                    raise ReplayError(_damaged(self._file(number), what))
                self._sums[number, key] = expected
        if altered:
            notices.append(f"the machine was restarted: values of {sorted(altered)} stay as later updates left them")
        self._retired.clear()
        # the next commit alone makes an earlier checkpoint the last one: killed before it, all of this is done again
        self._tell(max(position, told["position"]), min(oldest, position), told["boot"])
        for path in (*self.folder.glob("*.chunk"), *self.folder.glob("*.undo")):  # the journal last: it is done with
            if path.suffix == ".undo" or int(path.stem) not in self._chunks:
                path.unlink()
        return oldest, notices

    def _told(self) -> dict[str, Any]:
        """What the folder says of its last commit."""
        assert self.folder is not None
        path = self.folder / "commit.json"
        told: dict[str, Any] = {"position": 0, "oldest": 0, "rewritten": [], "boot": ""}
        told |= _read(path) if path.is_file() else {}
        if _read(self.folder / "schema.json")["format"] == 2:
            told["rewritten"] = [self._today(key) for key in told["rewritten"]]
        return told

    def _translated(self, described: dict[str, Any]) -> dict[str, Any]:
        """A folder's description in today's names, of which it may hold older ones."""
        if described["format"] != 2:
            return described
        entries = [{**entry, "key": self._today(entry["key"])} for entry in described["entries"]]
        return {**described, "format": FORMAT, "entries": entries}

    def _today(self, key: str) -> str:
        """The name of an entry of format 2: where a note is wanted by the name of an entry, that entry was the note."""
        return NOTE + key if NOTE + key in self.stores else key

    def _tell(self, position: int, oldest: int, boot: str) -> None:
        """boot: of the machine at the last commit."""
        assert self.folder is not None
        told = {"position": position, "oldest": oldest, "rewritten": sorted(self._rewritten), "boot": boot}
        durable.write(self.folder / "commit.json", json.dumps(told))

    def _wipe(self) -> None:
        """An empty replay and an empty folder."""
        for held in (self._chunks, self._sums, self._kept, self._retired, self._rewritten):
            held.clear()
        self._schema, self._journal, self._committed = (), None, 0
        if self.folder is not None and (self.folder / "schema.json").is_file():
            names = ("commit.json", "schema.json")
            ours = (*self.folder.glob("*.chunk"), *self.folder.glob("*.undo"), *(self.folder / name for name in names))
            for path in ours:
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


def _read(path: Path) -> dict[str, Any]:
    """What `durable.write` wrote."""
    try:
        return dict(json.loads(path.read_text()))
    except ValueError as error:
        raise ReplayError(f"{path} is not what was saved: put it back, or {ANEW}") from error


def boot() -> str:
    """What tells one run of the machine from the next; "" where the system does not say."""
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.is_file() else ""


def _damaged(path: Path, what: str) -> str:
    return f"the replay chunk {path} {what}: put it back, or {ANEW}"


def _sum(column: Array, steps: int) -> int:
    """crc32 of the first `steps` steps of every stream of a column (n, C, ...); of all where there are fewer."""
    if steps >= column.shape[1]:
        return zlib.crc32(_bytes(column))
    crc = 0
    for stream in column[:, :steps]:
        crc = zlib.crc32(_bytes(stream), crc)
    return crc


def _bytes(array: Array) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _runs(flags: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """(begin, end) of every stretch of True.

    >>> _runs(np.array([True, True, False, True]))
    [(0, 2), (3, 4)]
    """
    edges = np.flatnonzero(np.diff(flags, prepend=False, append=False)).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


def _size(count: int) -> str:
    return f"{count / 2**20:,.1f} MB" if count >= 2**20 else f"{count:,} bytes"
