"""Environments in this process, with the interface of Workers."""

from __future__ import annotations

from typing import Any

from env_adapters.faults import Fault, raised
from env_adapters.rows import Arrays, Runner
from env_adapters.values import Notices


class Local:
    """A Runner's rows. Whatever is begun happens in `finish`; no process can be lost."""

    def __init__(self, runner: Runner, rows: Arrays) -> None:
        self.rows, self.sentences, self.notices = rows, list[str](), Notices()
        self._runner = runner

    def begin(self) -> None:
        """Nobody else is there to work meanwhile."""

    def finish(self) -> dict[int, Fault]:
        faults, notices = self._runner.run()
        self.notices |= notices
        self.sentences += [raised(row, fault) for row, fault in faults.items()]
        return faults

    def ask(self, verb: str, arguments: dict[int, Any]) -> tuple[dict[int, Any], dict[int, Fault]]:
        answers, faults = self._runner.ask(verb, arguments)
        self.sentences += [raised(row, fault) for row, fault in faults.items()]
        return answers, faults

    def pids(self) -> list[int]:
        return []

    def close(self) -> None:
        self._runner.close()
