"""DreamerV3 (Nature 2025), the baseline that all four papers are compared with.

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

    from dreamer.cli import APP

    return loading.load(APP, logdir)
