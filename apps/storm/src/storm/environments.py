"""The environments that a run does not learn from."""

from typing import Any

from wm_run.loop import Environments
from wm_run.tasks import Tasks

from storm.config import Config


def fresh(config: Config, n: int, **options: Any) -> Environments:
    """For evaluations and films: Atari's episodes with seeds of their own, as the public code evaluates."""
    own = {"episode_seed": "own"} if config.eval_episode_seed == "own" else {}
    return Tasks(("protocol",))(config, n, **own, **options)
