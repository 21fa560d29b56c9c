"""A checkpoint on the disk -> changes of the replay that can be undone -> the replay as that checkpoint knew it.

From a commit on nothing that its checkpoint refers to is lost: before a step of it is overwritten, the old bytes go to
an undo journal (the first time only), and the files of chunks evicted since are kept. `reopen` undoes both and checks
every chunk against its checksums, whenever the process was killed. The next commit drops journal and files.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from wm_core.names import NOTE

from wm_run import durable
from wm_run.chunks import ANEW, FORMAT, FULL, Array, Chunks, Entry, ReplayError, damaged
from wm_run.journal import Journal, Old, undo

CHUNK, UNDO = re.compile(r"[0-9]{8,}\.chunk"), re.compile(r"[0-9]{12,}-[0-9a-f]{8}\.undo")
Move = tuple[int, str, int, slice, Array]  # (chunk, key, stream, steps of the chunk, what stands there from now on)


class Commits:
    """What the last checkpoint refers to, of the chunks of a replay.

    stores: names of the entries that the dynamics wants of the past, of which a folder of format 2 has older names.
    """

    def __init__(self, chunks: Chunks, stores: Mapping[str, int]) -> None:
        self.chunks, self.stores = chunks, stores
        self._dirty: set[int] = set()
        self._committed = 0  # positions before it are referred to by a checkpoint on disk
        self._journal: Journal | None = None  # of changes since that checkpoint
        self._kept: dict[tuple[int, str], NDArray[np.bool_]] = {}  # (n, C): steps that the journal has the old value of
        self._retired: set[int] = set()  # chunks evicted since, whose files stay
        self._rewritten: set[str] = set()  # entries that were ever changed after they were written, in this folder
        self._sums: dict[tuple[int, str], int] = {}  # (chunk, entry) -> crc32 of what was written; missing: to be made

    @property
    def folder(self) -> Path:
        assert self.chunks.folder is not None
        return self.chunks.folder

    @property
    def bytes(self) -> int:
        """Of what only the last checkpoint needs: chunks evicted since, and the journal."""
        return len(self._retired) * self.chunks.bytes + (self._journal.bytes if self._journal else 0)

    # ---- what happens to the chunks

    def changed(self, number: int, keys: Iterable[str]) -> None:
        """These columns of a chunk are other than on disk, and than their checksums say."""
        self._dirty.add(number)
        for key in keys:
            self._sums.pop((number, key), None)

    def drop(self, number: int) -> None:
        """Give up a chunk; its file stays while a checkpoint refers to it."""
        path = self.chunks.held.pop(number).path
        self._dirty.discard(number)
        for entry in self.chunks.schema:
            self._sums.pop((number, entry.key), None)
        if path is None:
            return
        if number * self.chunks.chunk < self._committed:
            self._retired.add(number)
        else:
            path.unlink(missing_ok=True)

    def remember(self, moves: Iterable[Move]) -> None:
        """Record the committed values that these moves overwrite and that were not recorded before."""
        if self._journal is None:
            return
        pieces: list[Old] = []
        recorded: list[NDArray[np.bool_]] = []
        offsets, _ = self.chunks.layout(self.chunks.schema)
        fresh = {key for _, key, _, _, _ in moves} - self._rewritten
        if fresh:
            self._rewritten |= fresh
            last = self._last_commit()
            self._tell(max(self._committed, last["position"]), last["oldest"], last["boot"])
        for number, key, s, here, _ in moves:
            stop = min(here.stop, self._committed - number * self.chunks.chunk)
            if stop <= here.start:
                continue
            shape = (self.chunks.streams, self.chunks.chunk)
            kept = self._kept.setdefault((number, key), np.zeros(shape, np.bool_))[s, here.start : stop]
            if kept.all():
                continue
            column = self.chunks.held[number].columns[key]
            for begin, end in _runs(~kept):
                old = column[s, here.start + begin : here.start + end]
                place = offsets[key] + (s * self.chunks.chunk + here.start + begin) * (old.nbytes // len(old))
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

    def flush(self) -> None:
        """Hand everything written so far to the disk."""
        if self._journal and self._journal.bytes:  # first: it undoes what the chunks are about to hold for good
            durable.sync(self._journal.path)
        durable.sync(self.folder)
        for number in sorted(self._dirty & self.chunks.held.keys()):
            durable.sync(self.chunks.file(number))  # covers pages dirtied through the map
        self._dirty.clear()

    # ---- a checkpoint

    def sums(self, position: int) -> NDArray[np.uint32]:
        """(chunks, entries) crc32 of the steps written so far, by chunk and in the order of the schema."""
        if self.chunks.folder is None or not self.chunks.schema:
            return np.zeros((0, 0), np.uint32)
        for number, chunk in self.chunks.held.items():
            for key in self.chunks.keys:
                if (number, key) not in self._sums:
                    self._sums[number, key] = checksum(chunk.columns[key], position - number * self.chunks.chunk)
        rows = [[self._sums[number, key] for key in self.chunks.keys] for number in sorted(self.chunks.held)]
        return np.array(rows, np.uint32).reshape(len(rows), len(self.chunks.keys))

    def commit(self, state: Mapping[str, Any]) -> None:
        """The checkpoint that holds `state` is on disk: what only earlier ones needed goes."""
        self.begin(state)
        # before it is done: a chunk gone without this is a missing one
        self._tell(int(state["position"]), int(state["oldest"]), boot())
        for number in self._retired:
            self.chunks.file(number).unlink(missing_ok=True)
        self._retired.clear()
        for path in self._own(UNDO):
            if path != self._journal_path(state):
                path.unlink()

    def begin(self, state: Mapping[str, Any]) -> None:
        """From here on, changes of what `state` refers to are recorded."""
        self._committed = int(state["position"])
        self._journal = Journal(self._journal_path(state))
        self._kept.clear()

    def _journal_path(self, state: Mapping[str, Any]) -> Path:
        """Named after position and content, so that it is never undone on top of another content."""
        content = zlib.crc32(np.ascontiguousarray(state["sums"]).tobytes())
        return self.folder / f"{int(state['position']):012d}-{content:08x}.undo"

    def _own(self, names: re.Pattern[str]) -> list[Path]:
        """Files of the folder with such names: what a file manager, a copy or a sync put beside them is not ours."""
        return [path for path in self.folder.iterdir() if names.fullmatch(path.name) and path.is_file()]

    # ---- going back

    def reopen(self, state: Mapping[str, Any]) -> tuple[int, list[str]]:
        """Undo what happened since, check and map the folder's chunks; the first position held, and sentences."""
        position, oldest, schema = int(state["position"]), int(state["oldest"]), str(state["schema"])
        described = self.folder / "schema.json"
        if not described.is_file():
            raise ReplayError(f"no replay in {self.folder}, but the checkpoint needs it: put it back, or {ANEW}")
        entries = self._translated(json.loads(schema))
        if self._translated(_read(described)) != entries:
            raise ReplayError(
                f"the replay in {self.folder} holds other entries than the checkpoint: they are of two runs"
            )
        self.chunks.held.clear()
        self.chunks.schema = tuple(Entry(e["key"], e["dtype"], tuple(e["shape"])) for e in entries["entries"])
        self.chunks.check_limit(self.chunks.schema)
        if self.stores.keys() - set(self.chunks.keys):
            raise ReplayError(
                f"the replay in {self.folder} does not hold {sorted(self.stores)}: it is of another model"
            )
        last, notices, checked = self._last_commit(), list[str](), set(self.chunks.keys)
        self._rewritten = set(last["rewritten"])
        if last["position"] > position:  # of an earlier checkpoint than the last one
            checked -= self._rewritten
            notices += (
                [f"values of {sorted(self._rewritten)} stay as later updates left them"] if self._rewritten else []
            )
            if last["oldest"] > oldest:
                oldest = last["oldest"]
                notices.append(f"the first {oldest:,} steps of each stream were evicted since")
        journal = self._journal_path(state)
        if journal.is_file():
            try:
                undo(journal, self.chunks.file)
            except FileNotFoundError as error:
                raise ReplayError(damaged(Path(error.filename), "is missing")) from error
        numbers = self.chunks.numbers(oldest, position)
        self.chunks.held = {number: self.chunks.map(number) for number in numbers}
        self._sums.clear()
        sums = np.asarray(state["sums"], np.uint32)[
            len(self.chunks.numbers(int(state["oldest"]), position)) - len(numbers) :
        ]
        cut = bool(last["boot"]) and last["boot"] != boot()  # the machine began anew: of the journal a part may be lost
        altered: set[str] = set()
        for number, row in zip(numbers, sums.tolist(), strict=True):
            for key, expected in zip(self.chunks.keys, row, strict=True):
                if key not in checked:
                    continue
                if checksum(self.chunks.held[number].columns[key], position - number * self.chunks.chunk) != expected:
                    if cut and key in self._rewritten:
                        altered.add(key)
                        continue
                    what = f"is not what was saved (the checksum of {key!r} differs)"
                    raise ReplayError(damaged(self.chunks.file(number), what))
                self._sums[number, key] = expected
        if altered:
            notices.append(f"the machine was restarted: values of {sorted(altered)} stay as later updates left them")
        self._retired.clear()
        # the next commit alone makes an earlier checkpoint the last one: killed before it, all of this is done again
        self._tell(max(position, last["position"]), min(oldest, position), last["boot"])
        for path in (*self._own(CHUNK), *self._own(UNDO)):  # the journal last: it is done with
            if path.suffix == ".undo" or int(path.stem) not in self.chunks.held:
                path.unlink()
        return oldest, notices

    def _last_commit(self) -> dict[str, Any]:
        """What the folder says of its last commit."""
        path = self.folder / "commit.json"
        commit: dict[str, Any] = {"position": 0, "oldest": 0, "rewritten": [], "boot": ""}
        commit |= _read(path) if path.is_file() else {}
        if _read(self.folder / "schema.json")["format"] == 2:
            commit["rewritten"] = [self._today(key) for key in commit["rewritten"]]
        return commit

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
        commit = {"position": position, "oldest": oldest, "rewritten": sorted(self._rewritten), "boot": boot}
        durable.write(self.folder / "commit.json", json.dumps(commit))

    def wipe(self) -> None:
        """No chunks, no schema and an empty folder."""
        for held in (self.chunks.held, self._sums, self._kept, self._retired, self._rewritten):
            held.clear()
        self.chunks.schema, self._journal, self._committed = (), None, 0
        if self.chunks.folder is not None and (self.folder / "schema.json").is_file():
            names = ("commit.json", "schema.json")
            ours = (*self._own(CHUNK), *self._own(UNDO), *(self.folder / name for name in names))
            for path in ours:
                path.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any]:
    """What `durable.write` wrote."""
    try:
        return dict(json.loads(path.read_text()))
    except (ValueError, TypeError, RecursionError) as error:
        raise ReplayError(f"{path} is not what was saved: put it back, or {ANEW}") from error


def boot() -> str:
    """What tells one run of the machine from the next; "" where the system does not say."""
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.is_file() else ""


def checksum(column: Array, steps: int) -> int:
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
