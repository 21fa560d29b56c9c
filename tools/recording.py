"""Environments under random play -> arrays on disk, one a key, memory-mapped: episodes that are recorded once and read often.

Sizes: E streams, R records of each, B rows, T steps of a row.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from env_adapters import ActionSpec
from env_adapters.team import choose
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from wm_core.types import Batch, Index

Record = Mapping[str, NDArray[Any]]


def chosen(mask: NDArray[np.bool_], rng: np.random.Generator, attacks: int | None = None) -> NDArray[np.float32]:
    """One-hots (n, N, A) of actions that masks allow, at random; half of them at least `attacks`, where one can be."""
    wish = rng.random(mask.shape)
    if attacks is not None:
        wish[..., attacks:] += (rng.random(mask.shape[:-1]) < 0.5)[..., None]
    return choose(ActionSpec((mask.shape[-1],)), wish, mask)


def played(envs: Any, seed: int, records: int, attacks: int | None = None) -> Iterator[Record]:
    """So many records of environments in which everybody acts at random; what was drawn depends on `seed` alone."""
    rng, step = np.random.default_rng(seed), envs.reset(seed)
    for at in range(records):
        yield step
        if at + 1 < records:
            step = envs.step(chosen(step["action_mask"], rng, attacks))


class Recording:
    """Every entry as an array (E, R, ...), memory-mapped, from a folder that `record` wrote.

    >>> import tempfile
    >>> flags = np.array([True, False])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     steps = ({"first": flags == (at == 0), "x": np.full((2, 1), at, np.float32)} for at in range(5))
    ...     recording = record(Path(folder) / "some", 5, steps)
    ...     batch = recording.rows([0, 1, 1], [0, 1, 2], 3)
    >>> recording.streams, recording.records, batch.steps["x"][1, :, 0].tolist(), batch.steps["reset"][:, 0].tolist()
    (2, 5, [1.0, 2.0, 3.0], [True, True, True])
    """

    def __init__(self, folder: Path) -> None:
        self.arrays = {file.stem: np.load(file, mmap_mode="r") for file in sorted(folder.glob("*.npy"))}
        self.streams, self.records = self.arrays["first"].shape[:2]

    def rows(self, streams: Sequence[int], starts: Sequence[int], length: int) -> Batch:
        """Rows (B, T, ...) from these streams and starts on, with the zero state before each."""
        at = list(zip(streams, starts, strict=True))
        steps = {
            key: torch.from_numpy(np.stack([array[stream, start : start + length] for stream, start in at]))
            for key, array in self.arrays.items()
        }
        steps["weight"] = torch.ones(len(at), length)
        steps["reset"] = steps["first"].clone()
        steps["reset"][:, 0] = True
        return Batch(steps, None, Index(torch.tensor([s for s, _ in at]), torch.tensor([s for _, s in at])))

    def sampled(self, batch: int, length: int, seed: int, update: int) -> Batch:
        """The rows of one update, uniform over all there are: a resumed run draws what an unbroken one would."""
        rng = np.random.default_rng((seed, update))
        streams = rng.integers(self.streams, size=batch)
        return self.rows(streams.tolist(), rng.integers(self.records - length + 1, size=batch).tolist(), length)


def record(folder: Path, records: int, steps: Iterator[Record]) -> Recording:
    """Write so many records into a new folder, whole or not at all."""
    draft = folder.with_name(folder.name + ".draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    arrays: dict[str, NDArray[Any]] = {}
    for at, step in enumerate(steps):
        for key, value in step.items():
            if at == 0:
                shape = len(value), records, *value.shape[1:]
                arrays[key] = open_memmap(draft / f"{key}.npy", "w+", value.dtype, shape)
            arrays[key][:, at] = value
    for array in arrays.values():
        array.flush()  # type: ignore[attr-defined]  # it is a memmap
    draft.rename(folder)
    return Recording(folder)


def recorded(folder: Path, records: int, play: Callable[[], Iterator[Record]]) -> Recording:
    """What lies in the folder, or what is played and recorded now."""
    return Recording(folder) if folder.is_dir() else record(folder, records, play())
