"""A recording in the place of an environment that is watched: its records follow each other, whoever acts.

For `play --dream` where no environment is known: what is observed before a dream is what was recorded, and the action that
is shown is the one that was taken then.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wm_run.recording import Recording
from wm_run.stand_in import StandIn

Record = dict[str, NDArray[Any]]


class Replaying(StandIn):
    """The first stream of the episodes that were held out or, where none were, of those learned from; at its end from its
    beginning. Its steps obey nobody."""

    def __init__(self, recording: Recording) -> None:
        super().__init__(recording)
        self.part = "held_out" if recording.steps("held_out") else "train"
        self.num_envs = 1
        self.cut = np.zeros(1, np.bool_)
        self.reset(0)

    @property
    def acted(self) -> NDArray[np.float32]:
        """(1, A), of a team (1, N, A): the action that was recorded of the step shown now; zeros where an episode ends."""
        action: NDArray[np.float32] = self._next["action"]
        return action

    def reset(self, seed: int) -> Record:
        """The first record, whatever the seed."""
        self._records = self._forever()
        self._now, self._next = next(self._records), next(self._records)
        return self._now

    def step(self, action: NDArray[np.float32]) -> Record:
        """The next record, whatever the action."""
        self._now, self._next = self._next, next(self._records)
        return self._now

    def _forever(self) -> Iterator[Record]:
        for block in itertools.chain.from_iterable(self.blocks(self.part) for _ in itertools.count()):
            for t in range(block["first"].shape[1]):
                yield {name: value[:1, t].copy() for name, value in block.items()}
