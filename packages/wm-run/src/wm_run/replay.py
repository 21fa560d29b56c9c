"""add -> chunks of memory-mapped steps -> sample rows with their past -> annotate them afterwards.

One time-contiguous stream per environment: episodes follow each other and `first` marks where one begins. `chunks.py`
holds the steps; a row of a batch is one or two block copies per key. `commits.py` brings them back to a checkpoint:
`state` goes into one, `commit` says that it is on disk, and `load_state` stands where it stood.

Sizes: n streams, C steps a chunk, B batch, T length of a row, P past. Positions count the steps of one stream since the
beginning of the run and never restart, so a position names a step for good, eviction or not.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from wm_core.types import Batch, Index

from wm_run import durable
from wm_run.chunks import FORMAT, Array, Chunks, Entry, ReplayError
from wm_run.commits import Commits, Move
from wm_run.rows import Rows


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
        stream has grown by that many steps, 0 meaning `length`. aligned: the first of them begins at the first step.
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
        aligned: bool = False,
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
        self._phase = length % self.stride if aligned else 0
        self._rng = np.random.default_rng(seed)
        self._chunks = Chunks(self.folder, streams, chunk=chunk, length=length, limit_bytes=limit_bytes)
        self._commits = Commits(self._chunks, self.stores)
        self._position = 0  # the write head: the next step gets this position, in every stream
        self._oldest = 0  # the first position still held
        self._queue: deque[tuple[int, int]] = deque()  # (stream, start) of rows not served yet

    # ---- writing

    @property
    def steps(self) -> int:
        """Steps held now, all streams together."""
        return (self._position - self._oldest) * self.streams

    @property
    def schema(self) -> tuple[Entry, ...]:
        """What a step holds, taken from the first `add`; () before."""
        return self._chunks.schema

    @property
    def step_bytes(self) -> int:
        """Bytes of one step of one stream; 0 before the first `add`."""
        return self._chunks.step_bytes

    def check(self, step: Mapping[str, Array | Tensor]) -> None:
        """Raises ReplayError where the first step, every value (n, ...), could not be such a one, for its entries or for want of room."""
        if not self.schema:
            self._chunks.schema_of({key: _array(value) for key, value in step.items()}, self.stores)

    def add(self, step: Mapping[str, Array | Tensor]) -> None:
        """Append one step to every stream: every value (n, ...), numpy or tensors of any device.

        The first call fixes keys, dtypes and shapes. Raises ReplayError where a later one differs or the disk is full;
        nothing is changed then.
        """
        arrays = {key: _array(value) for key, value in step.items()}
        if not self._chunks.schema:
            self._begin(arrays)
        self._chunks.check_step(arrays)
        number, slot = divmod(self._position, self.chunk)
        if number not in self._chunks.held:
            self._chunks.allocate(number)  # may fail: before anything older is given up
            self._evict()
        columns = self._chunks.held[number].columns
        for key, value in arrays.items():
            columns[key][:, slot] = value
        self._commits.changed(number, self._chunks.keys)
        self._position += 1
        if self.online and self._position % self.stride == self._phase:
            start = self._position - self.length
            if start >= self._oldest:
                self._queue.extend((stream, start) for stream in range(self.streams))

    def extend(self, steps: Mapping[str, Array]) -> None:
        """Append T steps to every stream at once: every value (n, T, ...), as numpy. The same as T times `add`, for a replay
        without an online queue, such as a recording's."""
        if self.online:
            raise ReplayError(
                "a replay with an online queue takes one step at a time: `add` it, or make it online=False"
            )
        length, done = len(steps["first"][0]), 0
        while done < length:
            self.add({key: value[:, done] for key, value in steps.items()})  # checks, and makes room
            slot = (self._position - 1) % self.chunk
            more = min(length - done, self.chunk - slot) - 1
            columns = self._chunks.held[(self._position - 1) // self.chunk].columns
            for key, value in steps.items():
                columns[key][:, slot + 1 : slot + 1 + more] = value[:, done + 1 : done + 1 + more]
            self._position += more
            done += 1 + more

    def _begin(self, arrays: Mapping[str, Array]) -> None:
        """Take the schema from the first step, and empty the folder of what an earlier run left there."""
        schema = self._chunks.schema_of(arrays, self.stores)
        self._commits.wipe()
        self._chunks.schema = schema
        if self.folder is not None:
            durable.make_folder(self.folder)
            durable.write(self.folder / "schema.json", self._chunks.describe())

    def _evict(self) -> None:
        """Give up the oldest chunks while the budget is exceeded."""
        while self._chunks.full:
            number = min(self._chunks.held)
            self._oldest = (number + 1) * self.chunk
            self._commits.drop(number)
        self._queue = deque((stream, start) for stream, start in self._queue if start >= self._oldest)

    def annotate(self, index: Index, **arrays: Array | Tensor) -> None:
        """Write back (B, T, ...) values of known entries to the steps of `index`'s rows, from each row's first on.

        Steps evicted since are skipped. Where two rows share a step the later row stands.
        """
        known = {entry.key: entry for entry in self._chunks.schema}
        stream, start = index.stream.tolist(), index.start.tolist()
        moves: list[Move] = []
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
                moves += [
                    (n, key, s, here, data[row, there]) for n, here, there in self._chunks.pieces(begin, low, high)
                ]
        self._commits.remember(moves)
        for number, key, s, here, new in moves:
            self._chunks.held[number].columns[key][s, here] = new
            self._commits.changed(number, (key,))

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
        return Rows(self._chunks, self.stores, self._oldest).batch(stream, start, length, past)

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

    # ---- keeping

    @property
    def disk_bytes(self) -> int:
        """Bytes of the folder: chunks, chunks kept for a resumed run, and the journal."""
        if self.folder is None or not self.schema:
            return 0
        return len(self._chunks.held) * self._chunks.bytes + self._commits.bytes

    @property
    def crowded(self) -> bool:
        """Whether the folder outgrows its budget until the next commit: save a checkpoint now."""
        return self.disk_bytes > self.limit_bytes

    def flush(self) -> None:
        """Hand everything written so far to the disk. A killed process loses nothing even without; a power cut does."""
        if self.folder is not None and self.schema:
            self._commits.flush()

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
            "schema": self._chunks.describe() if self.schema else "",
            "sums": self._commits.sums(self._position),
        }

    def commit(self, state: Mapping[str, Any]) -> None:
        """The checkpoint that holds `state` is on disk: what only earlier ones needed goes, and changes from here on
        can be undone.

        Between `state` and `commit` nothing may change. Killed between the two, nothing is lost either way.
        """
        if int(state["position"]) != self._position:
            raise ValueError(f"commit of position {state['position']}, but the replay stands at {self._position}")
        if self.folder is not None and self.schema:
            self._commits.commit(state)

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
        queue = np.asarray(state["queue"], np.int64).reshape(-1, 2)
        if not 0 <= oldest <= position < 2**62 or (queue < 0).any() or (queue >= [self.streams, position + 1]).any():
            raise ReplayError("the replay was saved at a place where none can stand: copy the checkpoint again")
        if self.folder is None:
            if state["schema"] != (self._chunks.describe() if self.schema else "") or position > self._position:
                raise ReplayError("a replay kept in memory ends with its process: give it a folder to resume the run")
            oldest = max(oldest, self._oldest)
            for number in [n for n in self._chunks.held if n not in self._chunks.numbers(oldest, position)]:
                self._commits.drop(number)
        elif state["schema"]:
            oldest, notices = self._commits.reopen(state)
        else:
            self._commits.wipe()
        self._position, self._oldest = position, min(oldest, position)
        self._queue = deque((int(s), int(start)) for s, start in queue if start >= self._oldest)
        self._rng.bit_generator.state = json.loads(state["rng"])
        if self.folder is not None and self.schema:
            self._commits.begin(state)
        return notices


def _array(value: Array | Tensor) -> Array:
    """numpy, whatever device a tensor is on."""
    if not isinstance(value, Tensor):
        return np.asarray(value)
    if value.dtype == torch.bfloat16:
        raise ReplayError("numpy has no bfloat16: store it as float16")
    return value.detach().cpu().numpy()
