"""Which instance of each environment plays which episode: seeds that follow from the run's, and instances made anew.

Every episode is reset with a seed that follows from (run seed, environment, episode), or from (run seed, environment) alone
where every episode is the same; every instance from (run seed, environment, how often it was made anew).
"""

# n environments

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from env_adapters.attempts import Attempts
from env_adapters.local import Local
from env_adapters.seeds import episode_seed, instance_seed
from env_adapters.workers import Workers


class Instances:
    """seed: the run's. episode, restarts (n,): how many each environment has begun, and how often it was made anew. gone (n,):
    left without an environment by a failure.

    crew: who holds the environments. attempts: how often each may fail without a step between. same: whether every episode
    of an environment has one seed.
    """

    def __init__(self, crew: Local | Workers, attempts: Attempts, n: int, *, same: bool) -> None:
        self._crew, self._attempts, self._same = crew, attempts, same
        self.seed = 0
        self.episode, self.restarts = np.zeros(n, np.int64), np.zeros(n, np.int64)
        self.gone = np.zeros(n, np.bool_)

    def begin(self, seed: int) -> None:
        """A run: every environment before its first episode."""
        self.seed = seed
        self.episode[:], self.restarts[:], self.gone[:] = 0, 0, False
        self._attempts.forget()

    def state(self) -> dict[str, Any]:
        """Everything but the environments' own."""
        return {"seed": self.seed, "episode": self.episode.copy(), "restarts": self.restarts.copy()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """The inverse; nobody has failed, and nobody is gone."""
        self.begin(int(state["seed"]))
        self.episode[:], self.restarts[:] = state["episode"], state["restarts"]

    def seeds(self, needed: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
        """(n,) seed of each environment's current episode, 0 where it is not needed."""
        seeds = np.zeros_like(self.episode)
        for row in range(len(seeds)) if needed is None else np.flatnonzero(needed).tolist():
            seeds[row] = episode_seed(self.seed, row, 0 if self._same else int(self.episode[row]))
        return seeds

    def revive(self, rows: Iterable[int], *, restarted: bool = True) -> set[int]:
        """Begin new instances, and again those that fail over it; not `restarted` where a run or a state begins.

        Gives other rows that were lost over it, and revived too: their process held one that failed.
        """
        wanted, rows = set(rows), sorted(rows)
        everyone = set(wanted)
        while rows:
            if restarted:
                self.restarts[rows] += 1
            if self._attempts.failure:
                self.gone[rows] = True
                break
            self._attempts.pause(rows)
            seeds = {row: instance_seed(self.seed, row, int(self.restarts[row])) for row in rows}
            faults = self._crew.ask("reseed", seeds)[1]
            self._attempts.count(faults)
            rows, restarted = sorted(faults), True
            everyone |= faults.keys()
        return everyone - wanted
