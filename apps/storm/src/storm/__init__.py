"""STORM (2023), a world model on a transformer, and value alignment on it.

`load(logdir).policy(observation)` acts with a trained agent.
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wm_run.loading import Loaded

__all__ = ["load"]


def load(logdir: str | Path) -> "Loaded":
    """The agent of a run folder; its `policy` takes one unbatched gymnasium observation. UserError if there is none."""
    from wm_run import loading

    from storm.cli import APP

    return loading.load(APP, logdir)
