"""Where the files of a suite are: its run folders, its rows, and what its apps and measures are started with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wm_suite.job import RETRIES, Job
from wm_suite.rows import read_rows
from wm_suite.suites import Cell, Suite

Rows = list[dict[str, Any]]


def _as_they_are(suite: str, rows: Rows) -> Rows:
    return rows


@dataclass(frozen=True)
class Home:
    """The places of suites.

    Attributes:
        cwd: where apps are started; relative paths of this begin there.
        runs: holds a folder for each suite, which holds its run folders.
        results: holds NAME.jsonl for each suite; without, rows lie among its runs, as rows.jsonl.
        rows_file: the rows of the one suite that is looked at, in place of that.
        suites: folders in which the name of a suite is looked for first.
        path: folders in which apps and measures are looked for first.
        modern: of a suite's name and its rows of an older making, the rows as they would be written today.
    """

    cwd: Path = field(default_factory=Path)
    runs: Path = Path("runs") / "suites"
    results: Path | None = None
    rows_file: Path | None = None
    suites: tuple[Path, ...] = ()
    path: tuple[Path, ...] = ()
    modern: Callable[[str, Rows], Rows] = _as_they_are

    def folder(self, suite: Suite) -> Path:
        """Of its runs."""
        return self.cwd / self.runs / suite.name

    def rows_of(self, suite: Suite) -> Path:
        """The file of its rows.

        >>> from wm_suite.suites import Suite
        >>> str(Home().rows_of(Suite("mine", "", 5, ())))
        'runs/suites/mine/rows.jsonl'
        """
        if self.rows_file is not None:
            return self.cwd / self.rows_file
        return self.cwd / self.results / f"{suite.name}.jsonl" if self.results else self.folder(suite) / "rows.jsonl"

    def rows(self, suite: Suite) -> Rows:
        """All rows of its file. Raises SuiteError for a damaged one."""
        return self.modern(suite.name, read_rows(self.rows_of(suite)))

    def jobs(
        self,
        suite: Suite,
        cells: Iterable[Cell],
        environment: Mapping[str, str] | None = None,
        retries: int = RETRIES,
    ) -> Sequence[Job]:
        """All that each run needs."""
        return [
            Job(
                suite=suite.name,
                cell=cell,
                logdir=str(self.runs / suite.name / cell.folder),
                minutes=suite.minutes,
                score=suite.score,
                cwd=str(self.cwd.absolute()),
                path=tuple(str((self.cwd / folder).absolute()) for folder in self.path),
                environment=dict(environment or {}),
                retries=retries,
            )
            for cell in cells
        ]
