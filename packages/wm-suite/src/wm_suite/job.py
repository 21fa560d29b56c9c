"""All that one run needs, wherever it is carried out, and what came of it."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from wm_suite.suites import Cell

RETRIES = 2  # of a process that was killed, one after the other


@dataclass(frozen=True)
class Job:
    """One run: picklable, and JSON.

    Attributes:
        suite: its name.
        cell: the run.
        logdir: the run folder; the diary, the log, the lock and the row lie beside it.
        minutes: that training may compute over all its processes, see `wm_suite.process_time`; inf for no limit.
        score: the field that its row must have.
        cwd: where the app is started; a relative `logdir` begins there.
        path: folders in which the app and the measure are looked for first.
        environment: variables of the app and the measure, over those of the worker.
        retries: of a process that was killed.
        python: that starts both.
    """

    suite: str
    cell: Cell
    logdir: str
    minutes: float
    score: str = "trained"
    cwd: str = "."
    path: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    retries: int = RETRIES
    python: str = sys.executable

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.cwd) / self.logdir

    def beside(self, ending: str) -> Path:
        """A file beside the run folder: `json`, the diary; `log`; `lock`; `row.json`.

        >>> Job("s", Cell("t", "lr0.1", 0, "r2i", "", {}), "runs/t-lr0.1-0", 5).beside("json").name
        't-lr0.1-0.json'
        """
        return self.folder.with_name(f"{self.folder.name}.{ending}")

    def command(self, python: str = "python") -> list[str]:
        """What starts its training, for people."""
        return [python, "-m", self.cell.app, "train", *self.cell.words, "--logdir", self.logdir]

    def to_json(self) -> str:
        """For a command line; `from_json` is its inverse."""
        return json.dumps(dataclasses.asdict(self))

    @staticmethod
    def from_json(text: str) -> Job:
        """
        >>> job = Job("s", Cell("t", "a", 0, "r2i", "", {"steps": 3}), "runs/t", 5, path=("tools",))
        >>> Job.from_json(job.to_json()) == job
        True
        """
        found = json.loads(text)
        return Job(**found | {"cell": Cell(**found["cell"]), "path": tuple(found["path"])})


@dataclass(frozen=True)
class Outcome:
    """What came of a job, and a sentence about it. Only a run that is done has a row; a stopped one goes on with the next
    `run`, a failed one needs somebody first."""

    cell: Cell
    state: Literal["done", "stopped", "failed"]
    sentence: str
    row: dict[str, Any] | None = None
