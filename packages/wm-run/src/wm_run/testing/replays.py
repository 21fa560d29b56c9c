"""Small replays whose every entry says where it is from, for tests of rows, folders and commits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from wm_run.replay import Replay

STREAMS, CHUNK, LENGTH = 3, 8, 6
STORES = {"key": 10, "deter": 1}


def step(t: int, streams: int = STREAMS) -> dict[str, Any]:
    """A step that names its stream and time in every entry."""
    stream = np.arange(streams)
    first = (t + stream) % 5 == 0
    return {
        "action": np.stack([stream, np.full(streams, t)], 1).astype(np.float32),
        "reward": (100 * stream + t).astype(np.float32),
        "first": first,
        "last": (t + 1 + stream) % 5 == 0,
        "image": np.broadcast_to(((t + 50 * stream) % 256)[:, None, None, None], (streams, 2, 2, 3)).astype(np.uint8),
        "count": stream * 10**10 + t,
        "key": torch.from_numpy(np.stack([stream, np.full(streams, t), stream + t], 1).astype(np.float16)),
        "deter": (stream - t)[:, None].astype(np.float16),
    }


def numpy_of(value: Any) -> NDArray[Any]:
    """An entry as an array."""
    return value.numpy() if isinstance(value, torch.Tensor) else np.asarray(value)


def chunk_bytes() -> int:
    """Of one chunk of all streams."""
    probe = Replay(None, STREAMS, stores=STORES, limit_bytes=10**9, chunk=CHUNK, length=LENGTH)
    probe.add(step(0))
    return 64 * sum(-(-STREAMS * CHUNK * numpy_of(v)[0].nbytes // 64) for v in step(0).values())


def build(folder: Path | None, chunks: int = 4, **options: Any) -> Replay:
    """An empty one that has room for so many chunks."""
    options = dict[str, Any](chunk=CHUNK, length=LENGTH, stores=STORES, streams=STREAMS) | options
    return Replay(folder, limit_bytes=-(-chunks * chunk_bytes() * 8 // 7), **options)  # an eighth is not for chunks


def filled(folder: Path | None, steps: int, **options: Any) -> Replay:
    """One that has seen so many steps."""
    replay = build(folder, **options)
    for t in range(steps):
        replay.add(step(t))
    return replay


def reread(folder: Path, state: dict[str, Any], **options: Any) -> Replay:
    """A folder opened anew, where a state was taken."""
    replay = build(folder, seed=99, **options)
    replay.load_state(state)
    return replay


def committed(folder: Path, steps: int, **options: Any) -> tuple[Replay, dict[str, Any]]:
    """A replay with a checkpoint, and what that holds."""
    replay = filled(folder, steps, **options)
    state = replay.state()
    replay.commit(state)
    return replay, state
