"""Records in order -> the episodes they are: where each lies in its stream, its length and score, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

CUT, TRUNCATED, TERMINAL = "cut", "truncated", "terminal"
COLUMNS = ("stream", "start", "length", "score", "ended", "who")


class Recorded(NamedTuple):
    """One episode of a recording. start: the position of its first record; it has length + 1 of them, for length actions.

    ended: "terminal", "truncated", or "cut" where the recording ends in it, or a fault of the environment ended it. who: of
    the recording's sources, the one that played.
    """

    stream: int
    start: int
    length: int
    score: float
    ended: str
    who: int = 0


class Tally:
    """The episodes of n streams, counted while their records come.

    >>> tally = Tally(1)
    >>> for t in range(3):
    ...     flags = {"first": [t == 0], "last": [t == 2], "terminal": [t == 2]}
    ...     tally.add({key: np.array(flag) for key, flag in flags.items()}, np.array([0.5]))
    >>> tally.episodes()
    [Recorded(stream=0, start=0, length=2, score=1.0, ended='terminal', who=0)]
    """

    def __init__(self, streams: int) -> None:
        self.position = self.actions = 0  # records of each stream; actions of all streams
        self._start = np.zeros(streams, np.int64)
        self._score = np.zeros(streams)
        self._ended: list[Recorded] = []
        self._open = np.zeros(streams, np.bool_)
        self._who = np.zeros(streams, np.int64)

    def add(
        self,
        record: Mapping[str, NDArray[Any]],
        score: NDArray[Any],
        cut: NDArray[np.bool_] | None = None,
        who: NDArray[np.int64] | None = None,
    ) -> None:
        """The next record of every stream; score (n,): what it counts. cut (n,): whose episode a fault ends with it; who (n,):
        plays the episode."""
        if who is not None:
            self._who = who.copy()
        first = record["first"]
        self._start = np.where(first, self.position, self._start)
        self._score = np.where(first, 0.0, self._score + score)
        self.actions += int((~first).sum())
        for i in np.flatnonzero(record["last"]).tolist():
            how = TERMINAL if record["terminal"][i] else TRUNCATED
            self._end(i, CUT if cut is not None and cut[i] else how, self.position)
        self._open = ~record["last"]
        self.position += 1

    @property
    def ended(self) -> int:
        """Episodes that have ended."""
        return len(self._ended)

    def add_episode(self, length: int, score: float, ended: str) -> None:
        """A whole episode at once, of the one stream that there is."""
        self._ended.append(Recorded(0, self.position, length, score, ended))
        self.actions += length
        self.position += length + 1

    def _end(self, stream: int, how: str, last: int) -> None:
        start = int(self._start[stream])
        self._ended.append(
            Recorded(stream, start, last - start, float(self._score[stream]), how, int(self._who[stream]))
        )

    def episodes(self) -> list[Recorded]:
        """All so far, in the order of their ends; those under way are cut here."""
        whole = Tally(len(self._start))
        whole.__dict__ |= self.__dict__ | {"_ended": list(self._ended)}
        for stream in np.flatnonzero(self._open).tolist():
            whole._end(stream, CUT, self.position - 1)
        return whole._ended

    def state(self) -> dict[str, Any]:
        """For a checkpoint: numbers, arrays and texts."""
        numbers = {"position": self.position, "actions": self.actions, "ended": columns(self._ended)}
        return numbers | {"start": self._start, "score": self._score, "open": self._open, "who": self._who}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Stand where `state` was taken."""
        self.position, self.actions, self._ended = state["position"], state["actions"], rows(state["ended"])
        self._start, self._score, self._open, self._who = (state[name] for name in ("start", "score", "open", "who"))


def columns(episodes: Sequence[Recorded]) -> dict[str, list[Any]]:
    """A table as JSON, column by column.

    >>> rows(columns([Recorded(0, 3, 2, 1.5, "cut")]))
    [Recorded(stream=0, start=3, length=2, score=1.5, ended='cut', who=0)]
    """
    return {name: [getattr(one, name) for one in episodes] for name in COLUMNS}


def rows(table: Mapping[str, Sequence[Any]]) -> list[Recorded]:
    """The episodes of such a table."""
    return [Recorded(*one) for one in zip(*(table[name] for name in COLUMNS), strict=True)]
