"""Implementations that update in turn: a line on standard input is one update, a JSON line on standard output its cost.

A COMMAND for `update ... --against COMMAND` is any program that
1. sets itself up, makes as many updates as it needs to be warm, and writes one JSON line {"name": NAME, ...}; what else
   that line holds (parameters, versions, ...) is passed on,
2. then, for every line it reads, makes one update, by one thread, and writes one JSON line
   {"name": NAME, "cpu_s": user + system seconds, "wall_s": seconds, "peak_mb": peak resident memory so far in 10^6 bytes},
   with "system_s" beside them where it can,
3. ends at the end of its input. Lines that do not start with "{" are for people and ignored.

A Python program gets all that from `serve`. It waits while others work.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any, Self

from bench.clock import KINDS, compared, cost, interleaved


class TurnError(ValueError):
    """An implementation that does not keep to the protocol; the sentence says which and how."""

    user_error = True


def serve(name: str, run: Callable[[], object], *, warmup: int = 1, **about: Any) -> None:
    """Speak the protocol: `warmup` runs, a line about itself, then a run and its cost for every line of input."""
    for _ in range(warmup):
        run()
    print(json.dumps({"name": name, **about}), flush=True)
    for _ in sys.stdin:
        print(json.dumps({"name": name, **cost(run)}), flush=True)


class Player:
    """An implementation under way in a process of its own."""

    def __init__(self, command: Sequence[str]) -> None:
        self.command = shlex.join(command)
        try:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        except OSError as error:
            raise TurnError(f"cannot start {self.command}: {error.strerror}") from None
        assert self.process.stdin is not None and self.process.stdout is not None
        self.requests, self.replies = self.process.stdin, self.process.stdout
        try:
            self.about = self.read()
        except TurnError:
            self.__exit__()
            raise
        self.name = str(self.about.get("name", command[0]))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(BrokenPipeError):  # of a turn that was asked of one that had gone
            self.requests.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.replies.close()

    def read(self) -> dict[str, Any]:
        """The next JSON line."""
        for line in self.replies:
            if line.startswith("{"):
                try:
                    found: dict[str, Any] = json.loads(line)
                except json.JSONDecodeError:
                    raise TurnError(f"{self.command} wrote a line that is not JSON: {line.strip()[:80]}") from None
                return found
        raise TurnError(f"{self.command} ended (exit code {self.process.wait()}) before its turns were over")

    def update(self) -> dict[str, Any]:
        """One update."""
        try:
            self.requests.write("turn\n")
            self.requests.flush()
        except BrokenPipeError:
            raise TurnError(f"{self.command} ended before its turns were over") from None
        row = self.read()
        if lacking := set(KINDS) - row.keys():
            raise TurnError(f"{self.command} told no {', '.join(sorted(lacking))}: see tools/bench/turns.py")
        return row


def play(
    commands: Sequence[Sequence[str]],
    rounds: int,
    say: Callable[[str], object] = lambda words: None,
    *,
    apart: bool = False,
) -> list[dict[str, Any]]:
    """Each command's row: what it told about itself, and what `compared` says of its turns. Raises TurnError.

    `apart` starts everyone anew for every turn, so that no two are ever in memory together.
    """
    about: list[dict[str, Any]] = [{} for _ in commands]

    def start(k: int, until: ExitStack) -> Player:
        player = until.enter_context(Player(commands[k]))
        about[k] = player.about | {"name": player.name, "command": player.command}
        return player

    def once(k: int) -> dict[str, Any]:
        with ExitStack() as leave:
            return start(k, leave).update()

    with ExitStack() as stay:
        updates = [partial(once, k) if apart else start(k, stay).update for k in range(len(commands))]
        found = interleaved({str(k): update for k, update in enumerate(updates)}, rounds, say=say)
    return [row | facts for row, facts in zip(compared(found), about, strict=True)]
