"""What a stage has seen, by how many steps ago -> the steps that an agent recalls, with what was seen there.

A memory holds keys, out of which no picture can be made: only frames that were kept beside it can be shown.
Sizes: N agents, K places.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from wm_core.types import Recollection

KEPT = 2_000  # steps of which frames are kept: more than a memory reaches back
MOST = 8  # steps that are shown, the heaviest


@dataclass(frozen=True)
class Recalled:
    """A past step. seen: its frame as it was recorded, of a team that of every agent; None where nobody kept it, as of steps
    before the first that was shown."""

    ago: int  # steps
    episodes: int  # ago; 0 is the one under way
    weight: float
    seen: NDArray[Any] | None


@dataclass(frozen=True)
class Recalling:
    """What is recalled at one moment: the heaviest steps first, and how many there are with those that are left out."""

    found: int
    steps: tuple[Recalled, ...]


class Album:
    """The frames of a stage's last steps.

    >>> import torch
    >>> album, places = Album(), torch.tensor([[[2, 1, 7]]])
    >>> for number in range(3):
    ...     album.keep(np.array([number]))
    >>> weights = torch.tensor([[[0.25, 0.5, 0.25]]])
    >>> found = album.found(Recollection(places, 0 * places, weights, torch.ones(1, 1, 3, dtype=torch.bool)), row=0)
    >>> [(one.ago, one.weight, None if one.seen is None else one.seen.tolist()) for one in found.steps]
    [(1, 0.5, [1]), (2, 0.25, [0]), (7, 0.25, None)]
    """

    def __init__(self, kept: int = KEPT) -> None:
        self._frames: deque[NDArray[Any] | None] = deque(maxlen=kept)

    def keep(self, frame: NDArray[Any] | None) -> None:
        """The next step's, after which 0 steps ago is this one; None where there is nothing to draw."""
        self._frames.append(None if frame is None else frame.copy())  # an environment may write into its own again

    def found(self, recollection: Recollection, row: int) -> Recalling:
        """What one row recalls at its last step."""
        age, episodes, weight, taken = (
            value[row, -1].cpu().numpy()
            for value in (recollection.age, recollection.episodes, recollection.weight, recollection.taken)
        )
        heaviest = [at for at in np.argsort(-weight, kind="stable").tolist() if taken[at]]
        steps = (
            Recalled(int(age[at]), int(episodes[at]), float(weight[at]), self._frame(int(age[at])))
            for at in heaviest[:MOST]
        )
        return Recalling(len(heaviest), tuple(steps))

    def _frame(self, ago: int) -> NDArray[Any] | None:
        return self._frames[-1 - ago] if 0 <= ago < len(self._frames) else None
