"""Implementations that update in turn: a line on standard input is one update, a JSON line on standard output its cost.

A COMMAND for `bench.py ... --against COMMAND` is any program that
1. sets itself up, makes as many updates as it needs to be warm, and writes one JSON line {"name": NAME, ...}; what else
   that line holds (parameters, versions, ...) is passed on,
2. then, for every line it reads, makes one update, by one thread, and writes one JSON line
   {"name": NAME, "cpu_s": user + system seconds, "wall_s": seconds, "peak_mb": peak resident memory so far in 10^6 bytes},
   with "system_s" beside them where it can,
3. ends at the end of its input. Lines that do not start with "{" are for people and ignored.

A Python program gets all that from `serve`. It waits while others work, so that neighbours on a shared machine disturb
all alike: only the ratios of one round count.
"""

from __future__ import annotations

import json
import re
import resource
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any, Self

KINDS = {"cpu_s": "CPU s", "wall_s": "wall s", "peak_mb": "peak MB"}


class TurnError(ValueError):
    """An implementation that does not keep to the protocol; the sentence says which and how."""

    user_error = True


def peak_mb() -> float:
    """Peak resident memory of this process in 10^6 bytes.

    Linux hands the peak of whoever started a process on to it in getrusage, so its own status is read first.
    """
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text()) if status.is_file() else None
    if found:
        return int(found[1]) * 1024 / 1e6
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 1e6 if sys.platform == "darwin" else most * 1024 / 1e6


def cost(run: Callable[[], object]) -> dict[str, float]:
    """CPU seconds (user + system, and system alone), wall seconds and the peak so far of running it once."""
    begin, wall = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    run()
    wall = time.perf_counter() - wall
    end = resource.getrusage(resource.RUSAGE_SELF)
    system = end.ru_stime - begin.ru_stime
    return {
        "cpu_s": end.ru_utime - begin.ru_utime + system,
        "system_s": system,
        "wall_s": wall,
        "peak_mb": peak_mb(),
    }


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
            pipe(self.process.stdin).close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        pipe(self.process.stdout).close()

    def read(self) -> dict[str, Any]:
        """The next JSON line."""
        for line in pipe(self.process.stdout):
            if line.startswith("{"):
                try:
                    found: dict[str, Any] = json.loads(line)
                except json.JSONDecodeError:
                    raise TurnError(f"{self.command} wrote a line that is not JSON: {line.strip()[:80]}") from None
                return found
        raise TurnError(f"{self.command} ended (exit code {self.process.wait()}) before its turns were over")

    def turn(self) -> dict[str, Any]:
        """One update."""
        stdin = pipe(self.process.stdin)
        try:
            stdin.write("turn\n")
            stdin.flush()
        except BrokenPipeError:
            raise TurnError(f"{self.command} ended before its turns were over") from None
        row = self.read()
        if missing := KINDS.keys() - row.keys():
            raise TurnError(f"{self.command} told no {', '.join(sorted(missing))}: see tools/bench_turns.py")
        return row


def pipe(stream: IO[str] | None) -> IO[str]:
    """A pipe that was asked for."""
    assert stream is not None
    return stream


def play(
    commands: Sequence[Sequence[str]], rounds: int, say: Callable[[str], object] = print, *, apart: bool = False
) -> list[dict[str, Any]]:
    """Each command's name, what it told about itself, and its rows: one each round, all in turn. Raises TurnError.

    `apart` starts everyone anew for every turn, so that no two are ever in memory together.
    """
    rows: list[list[dict[str, Any]]] = [[] for _ in commands]
    told: list[dict[str, Any]] = [{} for _ in commands]
    with ExitStack() as stay:
        players = [] if apart else [_start(command, stay, say) for command in commands]
        for i in range(rounds):
            for k, command in enumerate(commands):
                with ExitStack() as leave:
                    player = _start(command, leave, lambda _: None) if apart else players[k]
                    rows[k].append(player.turn())
                    told[k] = {"name": player.name, "command": player.command, "about": player.about}
                say(f"round {i + 1} of {rounds}: {told[k]['name']} {rows[k][-1]['cpu_s']:.2f} CPU s")
    return [{**one, "rows": mine} for one, mine in zip(told, rows, strict=True)]


def _start(command: Sequence[str], until: ExitStack, say: Callable[[str], object]) -> Player:
    """A player that is warm, until that stack unwinds."""
    player = until.enter_context(Player(command))
    say(f"ready: {player.name}")
    return player


def ratios(ours: Sequence[Mapping[str, float]], theirs: Sequence[Mapping[str, float]], kind: str) -> dict[str, float]:
    """Ours over theirs, round by round: median, least and greatest.

    >>> ratios([{"cpu_s": 1.0}, {"cpu_s": 3.0}], [{"cpu_s": 2.0}, {"cpu_s": 4.0}], "cpu_s")
    {'median': 0.625, 'least': 0.5, 'greatest': 0.75}
    """
    found = [mine[kind] / other[kind] for mine, other in zip(ours, theirs, strict=True)]
    return {"median": statistics.median(found), "least": min(found), "greatest": max(found)}


def compare(played: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Medians of everyone, and the ratios of the first to each of them."""
    ours = played[0]["rows"]
    return [
        {"name": one["name"]}
        | {kind: statistics.median(row[kind] for row in one["rows"]) for kind in KINDS}
        | {"system_s": statistics.median(row.get("system_s", 0.0) for row in one["rows"])}
        | {f"ratio_{kind}": ratios(ours, one["rows"], kind) for kind in KINDS}
        for one in played
    ]


def against_table(played: Sequence[Mapping[str, Any]]) -> str:
    """The comparison for people: medians, and in brackets the least and the greatest ratio of a round."""
    rows, name = compare(played), played[0]["name"]
    wide = max(len(str(row["name"])) for row in rows)
    lines = [f"{'':{wide}} {'CPU s':>9} {'(system)':>9} {'wall s':>9} {'peak MB':>9}   {name} over it: CPU, wall, peak"]
    for row in rows:
        parts = []
        for kind in KINDS:
            r = row[f"ratio_{kind}"]
            parts.append(f"{r['median']:.3f} ({r['least']:.3f}-{r['greatest']:.3f})")
        told = f"{row['cpu_s']:>9.3f} {row['system_s']:>9.3f} {row['wall_s']:>9.3f} {row['peak_mb']:>9,.0f}"
        lines.append(f"{row['name']:{wide}} {told}   " + ("  ".join(parts) if row is not rows[0] else "-"))
    return "\n".join(lines)
