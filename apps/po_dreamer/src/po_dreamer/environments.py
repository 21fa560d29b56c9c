"""The environments of a config."""

from __future__ import annotations

from typing import Any

from env_adapters import VectorEnv, make_vec

from po_dreamer.config import Config


def make(config: Config, n: int) -> VectorEnv:
    """n environments of the config's task; TaskError for a task that does not exist or lacks its extra."""
    options: dict[str, Any] = {"protocol": config.protocol} if config.task.startswith("atari100k_") else {}
    return make_vec(
        config.task,
        n,
        workers=None if config.workers < 0 else config.workers,
        timeout=config.timeout,
        attempts=config.attempts,
        restore=config.restore,
        grids=config.grids,
        **options,
    )
