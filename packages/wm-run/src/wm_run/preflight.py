"""What the rest of a run will ask of the disk, against what is free, before the first step."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from wm_core.errors import UserError

GIGA = 1e9


def disk_bytes(
    *,
    step_bytes: int,
    noted_bytes: int,
    actions: int,
    envs: int,
    chunk: int,
    replay_bytes: int,
    checkpoint_bytes: int,
    checkpoints: int,
) -> tuple[int, int]:
    """Of the replay and of the checkpoints at their largest.

    step_bytes: one record of one environment, of which noted_bytes may be written again and then stand in the undo
    journal, too. actions: of the whole run, all environments together. checkpoints: that are there at once, the one
    being written included.

    >>> disk_bytes(step_bytes=100, noted_bytes=0, actions=1000, envs=2, chunk=50, replay_bytes=10**9,
    ...     checkpoint_bytes=7, checkpoints=3)
    (110000, 21)
    >>> disk_bytes(step_bytes=100, noted_bytes=0, actions=10**9, envs=2, chunk=50, replay_bytes=10**6,
    ...     checkpoint_bytes=7, checkpoints=3)
    (1010000, 21)
    """
    block = step_bytes * envs * chunk
    chunks = -(-actions // (envs * chunk)) + 1
    whole = chunks * block * (step_bytes + noted_bytes) // max(1, step_bytes)
    return min(whole, replay_bytes + block), checkpoint_bytes * checkpoints


def check_disk(folder: Path, *, replay: int, checkpoints: int) -> None:
    """Raises UserError where less is free than the run needs beyond what its folder holds already."""
    kept = (path for name in ("replay", "checkpoint") for path in (folder / name).rglob("*"))
    held = sum(_size(path) for path in kept if path.is_file() and not path.is_symlink())
    there = folder
    while not there.exists():
        there = there.parent
    free, needed = shutil.disk_usage(there).free, replay + checkpoints
    if needed - held > free:
        have = f", of which {held / GIGA:.2f} GB are there" if held else ""
        raise UserError(
            f"this run needs {needed / GIGA:.2f} GB of disk in {folder} ({replay / GIGA:.2f} GB of replay, "
            f"{checkpoints / GIGA:.2f} GB of checkpoints{have}) and {free / GIGA:.2f} GB are free: lower --replay-bytes, "
            "--keep or --steps, or give a --logdir on another disk"
        )


def nested_bytes(value: Any) -> int:
    """Of all tensors and arrays in nested containers.

    >>> nested_bytes({"a": [np.zeros(3, np.float32)], "b": 1})
    12
    """
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, np.ndarray):
        return value.nbytes
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return sum(nested_bytes(one) for one in inner)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
