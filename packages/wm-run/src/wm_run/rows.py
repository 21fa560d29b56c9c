"""Rows of consecutive steps (stream, start) -> a batch with its past, out of chunks: one or two block copies per key.

Sizes: B rows, T length of a row, P past.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from wm_core.types import Batch, Index, Past

from wm_run.chunks import Chunks, Entry


class Rows:
    """What lies in [oldest, end of a row) of every stream of some chunks.

    stores: which entries are wanted of the past, and of how many of the last past steps. Positions as in `replay`.

    >>> chunks = Chunks(None, streams=1, chunk=8, length=2, limit_bytes=10**6)
    >>> step = {"action": np.zeros((1, 3), np.float32), "first": np.ones(1, bool)}
    >>> chunks.schema = chunks.schema_of(step, needed=())
    >>> chunks.allocate(0)
    >>> chunks.held[0].columns["first"][:], chunks.held[0].columns["action"][:] = True, 1
    >>> batch = Rows(chunks, {}, oldest=0).batch(np.array([0, 0]), np.array([0, 3]), length=2, past=1)
    >>> batch.steps["action"].shape, batch.past.valid.tolist()
    (torch.Size([2, 2, 3]), [[False], [True]])
    """

    def __init__(self, chunks: Chunks, stores: Mapping[str, int], oldest: int) -> None:
        self.chunks, self.stores, self.oldest = chunks, stores, oldest

    def batch(self, stream: NDArray[np.int64], start: NDArray[np.int64], length: int, past: int = 0) -> Batch:
        """The rows that begin there, as new contiguous CPU tensors that belong to the caller; see `Replay.sample`."""
        rows = list(zip(stream.tolist(), start.tolist(), strict=True))
        steps = {entry.key: self.gather(entry, rows, 0, length) for entry in self.chunks.schema}
        context = self._past(rows, past) if past else None
        steps["weight"] = torch.ones(len(rows), length)
        steps["reset"] = steps["first"].clone()
        steps["reset"][:, 0][slice(None) if context is None else ~context.valid[:, -1]] = True
        return Batch(steps, context, Index(torch.from_numpy(stream), torch.from_numpy(start)))

    def _past(self, rows: list[tuple[int, int]], past: int) -> Past:
        entries = {entry.key: entry for entry in self.chunks.schema}
        held = torch.tensor([start - self.oldest for _, start in rows])
        valid = torch.arange(-past, 0) >= -held[:, None]  # (B, P)
        stored = {}
        for name, last in self.stores.items():
            stored[name] = self.gather(entries[name], rows, -min(past, last), 0)
        action = self.gather(entries["action"], rows, -past, 0)
        return Past(stored, action, self.gather(entries["first"], rows, -past, 0), valid)

    def gather(self, entry: Entry, rows: list[tuple[int, int]], begin: int, end: int) -> Tensor:
        """Steps [start + begin, start + end) of every row, zeros where evicted or never written: (B, end-begin, ...)."""
        out = np.empty((len(rows), end - begin, *entry.shape), entry.dtype)
        for row, (stream, start) in zip(out, rows, strict=True):
            low = max(start + begin, self.oldest)
            row[: low - start - begin] = 0
            for number, here, there in self.chunks.pieces(start + begin, low, start + end):
                row[there] = self.chunks.held[number].columns[entry.key][stream, here]
        return torch.from_numpy(out)
