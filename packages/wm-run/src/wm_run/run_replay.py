"""An agent and its config -> the replay that its run has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wm_core.learner import Learner

from wm_run.config import RunConfig
from wm_run.replay import Replay


def run_replay(agent: Learner, config: RunConfig, streams: int, folder: Path | None = None, **others: Any) -> Replay:
    """The replay of a run.

    Args:
        agent: what it stores of past steps, and how its newest rows are learned from.
        config: budget, chunk, length and stride of rows, seed.
        streams: environments.
        folder: where its files are; None: in memory.
        others: arguments of `Replay` in the place of these.
    """
    given: dict[str, Any] = {
        "stores": agent.stores,
        "limit_bytes": config.replay_bytes,
        "chunk": config.chunk,
        "length": config.length,
        "seed": config.seed,
        "online": agent.online,
        "stride": config.stride,
        "aligned": agent.aligned,
    }
    return Replay(folder, streams, **(given | others))
