"""Recorded steps -> rows at whose end a dream begins: those of a run's own replay, of a recording, or given as arrays.

Files are mapped for reading alone. Sizes: n rows, T steps of a row.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from wm_core.errors import UserError
from wm_core.types import Steps

from wm_run.chunks import Chunks, Entry
from wm_run.recording import VAST, Recording
from wm_run.rows import Rows

FLAGS = ("first", "last", "terminal")
NO_START = "every step there ends an episode, so no dream can begin: record more"


class Starts(Protocol):
    """Where dreams begin."""

    @property
    def length(self) -> int:
        """T of its rows."""

    def draw(self, rngs: Sequence[np.random.Generator]) -> tuple[Steps, NDArray[np.int64]]:
        """A row for each generator, uniform over all ends at which an episode goes on: steps (n, T, ...) on the CPU with
        `reset`, True at each row's first step; and (n, 2) stream and position of the last steps."""


class Kept:
    """`Starts`: rows out of chunks on a disk, [oldest, position) of every stream.

    keys: the observations that are read. length: T.
    """

    def __init__(self, chunks: Chunks, oldest: int, position: int, keys: Collection[str], length: int) -> None:
        """Raises UserError where no row of that length lies there, or where an observation does not."""
        held = {entry.key: entry for entry in chunks.schema}
        if position - oldest < length:
            raise UserError(
                f"a row of {length} steps was asked of {chunks.folder}, which holds {position - oldest} of each stream: "
                "give a smaller context, or other starts"
            )
        if missing := set(keys) - held.keys():
            raise UserError(
                f"{chunks.folder} holds no {sorted(missing)}, which the agent observes: take a recording of its own task"
            )
        self.length, self.streams, self.low, self.high = length, chunks.streams, oldest + length - 1, position
        ends = [
            chunks.held[number].columns["last"][:, here] for number, here, _ in chunks.pieces(0, self.low, position)
        ]
        self._open = ~np.concatenate(ends, 1)  # (streams, high - low): where a dream may begin
        if not self._open.any():
            raise UserError(f"of {chunks.folder} {NO_START}")
        # what is not read is not copied: the layout of the columns that are mapped stays
        chunks.schema = tuple(held[key] for key in (*sorted(keys), "action", *FLAGS))
        self._rows = Rows(chunks, {}, oldest)

    def draw(self, rngs: Sequence[np.random.Generator]) -> tuple[Steps, NDArray[np.int64]]:
        places = np.array([self._place(rng) for rng in rngs], np.int64)
        return self._rows.batch(places[:, 0], places[:, 1] - self.length + 1, self.length).steps, places

    def _place(self, rng: np.random.Generator) -> tuple[int, int]:
        while True:
            stream, end = int(rng.integers(self.streams)), int(rng.integers(self.low, self.high))
            if self._open[stream, end - self.low]:
                return stream, end


class Given:
    """`Starts`, rows that were handed over: observations (n, T, ...) and `action` (n, T, A), the vector that led to each step.

    `first` says where episodes begin, False where it is not given; a row whose last step is `last` begins no dream.
    """

    def __init__(self, rows: Mapping[str, Any], keys: Collection[str], actions: int) -> None:
        """Raises UserError for rows that lack something, or differ in n or T."""
        if missing := {*keys, "action"} - rows.keys():
            raise UserError(f"the rows lack {sorted(missing)}: they hold all that the agent observes, and `action`")
        arrays = {key: np.asarray(rows[key]) for key in (*sorted(keys), "action")}
        lead = arrays["action"].shape[:2]
        arrays |= {name: np.asarray(rows.get(name, np.zeros(lead, np.bool_)), np.bool_) for name in FLAGS}
        odd = [key for key, value in arrays.items() if value.shape[:2] != lead]
        if odd or len(lead) < 2 or 0 in lead or arrays["action"].shape[2:] != (actions,):
            raise UserError(
                f"rows are (n, T, ...) each, and `action` (n, T, {actions}); {odd[0] if odd else 'action'!r} is "
                f"{arrays[odd[0] if odd else 'action'].shape}"
            )
        arrays["action"] = arrays["action"].astype(np.float32)
        self._arrays = {key: torch.as_tensor(value) for key, value in arrays.items()}
        self.length = lead[1]
        self._open = np.flatnonzero(~arrays["last"][:, -1])
        if not len(self._open):
            raise UserError(f"of the rows {NO_START}")

    def draw(self, rngs: Sequence[np.random.Generator]) -> tuple[Steps, NDArray[np.int64]]:
        which = np.array([self._open[rng.integers(len(self._open))] for rng in rngs], np.int64)
        steps = {key: value[torch.as_tensor(which)] for key, value in self._arrays.items()}
        reset = steps["first"].clone()
        reset[:, 0] = True
        return steps | {"reset": reset}, np.stack([which, np.full_like(which, self.length - 1)], 1)


def of_run(logdir: Path, state: Mapping[str, Any] | None, keys: Collection[str], context: int, past: int) -> Kept:
    """Rows of a run's own replay, as its last checkpoint knew it. Raises UserError where it is not there.

    state: of the replay, in that checkpoint. Notes of the agent are not read: what is known of the past is what the agent
    as it is makes of it. context, past: as in `row_length`.
    """
    folder = logdir / "replay"
    if not state or not state["schema"] or not (folder / "schema.json").is_file():
        raise UserError(
            f"there is no replay in {logdir} where a dream could begin: give starts, a recording of the task or rows of it"
        )
    oldest, position = int(state["oldest"]), int(state["position"])
    schema = tuple(Entry(e["key"], e["dtype"], tuple(e["shape"])) for e in json.loads(state["schema"])["entries"])
    chunks = Chunks(folder, int(state["streams"]), chunk=int(state["chunk"]), length=1, limit_bytes=VAST)
    chunks.schema = schema
    for number in chunks.numbers(oldest, position):
        if not chunks.file(number).is_file():  # given up since, by a run that trains
            oldest = (number + 1) * chunks.chunk
            chunks.held.clear()
            continue
        chunks.held[number] = chunks.map(number, shared=False)
    return Kept(chunks, oldest, position, keys, row_length(position - oldest, context, past))


def of_recording(folder: Path, part: str, keys: Collection[str], context: int, past: int) -> Kept:
    """Rows of a recording's part. Raises UserError where there is none."""
    found = Recording.open(folder).part(part)
    return Kept(found.chunks, 0, found.position, keys, row_length(found.position, context, past))


def row_length(steps: int, context: int, past: int) -> int:
    """T of rows out of so many steps of a stream: the context, and before it what a memory is made of, at most half of
    what is left, so that there is more than one place to begin.

    >>> row_length(1000, 16, 800), row_length(10_000, 16, 800), row_length(1000, 16, 0)
    (508, 816, 16)
    """
    return context + min(past, max(0, steps - context) // 2)


def moved(steps: Steps, device: torch.device) -> dict[str, Tensor]:
    """Steps on a device."""
    return {key: value.to(device) for key, value in steps.items()}
