"""The environments of a config."""

from __future__ import annotations

from typing import Any

from env_adapters import VectorEnv, make_vec

from storm.config import Config


def make(config: Config, n: int, **switches: Any) -> VectorEnv:
    """n environments of the config's task; TaskError for a task that does not exist or lacks its extra.

    switches: of Atari's protocol; other tasks have none.
    """
    options: dict[str, Any] = {}
    if config.task.startswith("atari100k_"):
        options = {"protocol": config.protocol, **switches}
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


def fresh(config: Config, n: int, **switches: Any) -> VectorEnv:
    """The same for evaluations and films: Atari's episodes with seeds of their own, as the public code evaluates."""
    own = {"episode_seed": "own"} if config.eval_episode_seed == "own" else {}
    return make(config, n, **own, **switches)
