"""What a paper printed, as it printed it: never computed with, and never beside a score of another protocol unmarked.

Methods that a paper calls "ours" bear its name here. What a paper left empty is nan.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from wm_suite.errors import SuiteError
from wm_suite.tables import entry, table


@dataclass(frozen=True)
class Printed:
    """A table of a paper.

    scores: task (or what a line is of) -> a number for each method. spread: likewise what stands behind +-, in some lines.
    aggregates: what is printed below, as mean and median. misprints: what it contradicts, or what contradicts it.
    """

    name: str
    title: str
    source: str
    about: str
    methods: tuple[str, ...]
    scores: Mapping[str, tuple[float, ...]]
    spread: Mapping[str, tuple[float, ...]]
    aggregates: Mapping[str, tuple[float, ...]]
    misprints: tuple[str, ...]
    seeds: int | None

    def score(self, task: str, method: str) -> float:
        """nan where the task is not in the table. Raises SuiteError for a method that is not."""
        return self._of(self.scores, task, method)

    def error(self, task: str, method: str) -> float:
        """What stands behind +-, nan where nothing does. Raises SuiteError for a method that is not in the table."""
        return self._of(self.spread, task, method)

    def column(self, method: str) -> dict[str, float]:
        """The scores of a method, where it has one. Raises SuiteError for a method that is not in the table."""
        found = {task: self._of(self.scores, task, method) for task in self.scores}
        return {task: score for task, score in found.items() if not math.isnan(score)}

    def _of(self, section: Mapping[str, tuple[float, ...]], task: str, method: str) -> float:
        if method not in self.methods:
            raise SuiteError(f"{self.name} has no column {method!r}; it has {', '.join(self.methods)}")
        row = entry(section, task)
        return math.nan if row is None else row[self.methods.index(method)]


def printed(name: str) -> Printed:
    """The table of this name; `wm_suite.tables.names("scores")` lists them. Raises SuiteError where there is none.

    >>> found = printed("var_table1")
    >>> found.score("atari_pong", "DreamerV3+Var"), found.aggregates["mean"][4]
    (19.8, 1.34)
    """
    found = table(name, "scores")

    def rows(section: str) -> dict[str, tuple[float, ...]]:
        return {key: tuple(map(float, row)) for key, row in found.get(section, {}).items()}

    return Printed(
        name=name,
        title=found["title"],
        source=found["source"],
        about=found["about"],
        methods=tuple(found["methods"]),
        scores=rows("scores"),
        spread=rows("spread"),
        aggregates=rows("aggregates"),
        misprints=tuple(found.get("misprints", ())),
        seeds=found.get("seeds"),
    )
