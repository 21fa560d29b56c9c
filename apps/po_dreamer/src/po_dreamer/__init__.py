"""PO-Dreamer: a Dreamer whose world model recalls the most similar of its last 800 steps, across episodes.

`load(logdir).policy(observation)` acts with a trained agent; its carry holds the memory.
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wm_run.loading import Loaded

__all__ = ["load"]


def load(logdir: str | Path) -> "Loaded":
    """The agent of a run folder; its `policy` takes one unbatched gymnasium observation. UserError if there is none."""
    from wm_run import loading

    from po_dreamer.cli import APP

    return loading.load(APP, logdir)
