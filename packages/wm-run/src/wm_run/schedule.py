"""Shares of the steps -> who plays the episodes that begin: whoever is furthest behind. It follows from the records alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Schedule:
    """Which player acts in each of n streams, an episode at a time.

    shares: of the steps, in the order of the players; they sum to 1. An episode under way counts, beside the steps that it
    has, as long as those before it were, so that those that begin at once are divided too.

    >>> schedule = Schedule([0.5, 0.5], streams=4)
    >>> schedule.begin({"first": np.ones(4, bool), "last": np.zeros(4, bool)}).tolist()
    [0, 1, 0, 1]
    """

    def __init__(self, shares: Sequence[float], streams: int) -> None:
        self.shares = np.asarray(shares, np.float64)
        self.steps = np.zeros(len(shares), np.int64)  # actions of each player so far
        self.player = np.full(streams, -1)  # (n,) who plays
        self._ended = np.zeros(2, np.int64)  # episodes and their actions

    def begin(self, record: Mapping[str, NDArray[Any]]) -> NDArray[np.int64]:
        """Take note of a record of every stream, and give who plays on from it: (n,)."""
        first, last = record["first"], record["last"]
        np.add.at(self.steps, self.player[~first], 1)
        self._ended += [int(last.sum()), int((~first).sum())]
        mean = max(1.0, self._ended[1] / max(1, self._ended[0]))
        for stream in np.flatnonzero(first).tolist():
            self.player[stream] = -1
            going = np.bincount(self.player[self.player >= 0], minlength=len(self.shares))
            has = self.steps + going * mean
            self.player[stream] = int(np.argmax(self.shares * (has.sum() + mean) - has))
        return self.player

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"steps": self.steps, "turn": self.player, "ended": self._ended}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Stand where `state` was taken."""
        self.steps, self.player, self._ended = (state[name].copy() for name in ("steps", "turn", "ended"))
