"""The one clock, those who take turns before it, and what is said of their rounds."""

from __future__ import annotations

import re
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

Cost = Mapping[str, Any]  # cpu_s, system_s, wall_s, peak_mb, and what else whoever measured has to say
KINDS = ("cpu_s", "wall_s", "peak_mb")


def memory_mb(name: str = "VmHWM") -> float:
    """Resident memory of this process in 10^6 bytes: VmHWM, the most so far; VmRSS, now (0 where only the peak is told).

    Linux hands the peak of whoever started a process on to it in getrusage, so its own status is read first.
    """
    status = Path("/proc/self/status")
    found = re.search(rf"{name}:\s*(\d+) kB", status.read_text()) if status.is_file() else None
    if found:
        return int(found[1]) * 1024 / 1e6
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss if name == "VmHWM" else 0
    return most / 1e6 if sys.platform == "darwin" else most * 1024 / 1e6


def cost(run: Callable[[], object], wait: Callable[[], object] = lambda: None) -> dict[str, float]:
    """CPU seconds (user and system of all threads, and system alone), wall seconds and the peak so far of running it once.

    `wait` returns when a device has done what it was asked for.
    """
    wait()
    begin, wall = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    run()
    wait()
    wall = time.perf_counter() - wall
    end = resource.getrusage(resource.RUSAGE_SELF)
    system = end.ru_stime - begin.ru_stime
    return {"cpu_s": end.ru_utime - begin.ru_utime + system, "system_s": system, "wall_s": wall, "peak_mb": memory_mb()}


def interleaved(
    players: Mapping[str, Callable[[], Cost]],
    rounds: int,
    *,
    warmup: int = 0,
    say: Callable[[str], object] = lambda words: None,
) -> dict[str, list[Cost]]:
    """What each was charged for its turn in each round; every other round begins with the last. Warm-ups do not count.

    Neighbours on a shared machine disturb all alike: only the ratios of one round should be quoted.

    >>> order = []
    >>> found = interleaved({name: lambda name=name: order.append(name) or {"cpu_s": 1.0} for name in "ab"}, 2, warmup=1)
    >>> "".join(order), len(found["a"])
    ('abbaab', 2)
    """
    found: dict[str, list[Cost]] = {name: [] for name in players}
    for i in range(-warmup, rounds):
        for name in list(players)[:: 1 if (i + warmup) % 2 == 0 else -1]:
            result = players[name]()
            if i >= 0:
                found[name].append(result)
                say(f"round {i + 1} of {rounds}: {result.get('name', name)} {result['cpu_s']:.3g} CPU s")
    return found


def median(
    run: Callable[[], object], rounds: int, *, warmup: int, wait: Callable[[], object] = lambda: None
) -> dict[str, float]:
    """`medians` of running it alone."""
    return medians(interleaved({"": partial(cost, run, wait)}, rounds, warmup=warmup)[""])


def medians(costs: Sequence[Cost]) -> dict[str, float]:
    """The median of every number of theirs (none of a count), and the least and the greatest CPU seconds."""
    numbers = [name for name, value in costs[0].items() if isinstance(value, float)]
    cpu = [one["cpu_s"] for one in costs]
    middle = {name: statistics.median(one[name] for one in costs) for name in numbers}
    return middle | {"least_cpu_s": min(cpu), "greatest_cpu_s": max(cpu)}


def compared(found: Mapping[str, Sequence[Cost]]) -> list[dict[str, Any]]:
    """A row for each: medians, and the first over it, round by round: the median, the least and the greatest ratio.

    >>> rows = compared({"a": [{"cpu_s": 1.0}, {"cpu_s": 3.0}], "b": [{"cpu_s": 2.0}, {"cpu_s": 4.0}]})
    >>> [rows[1][name] for name in ("name", "cpu_s", "ratio_cpu_s", "ratio_cpu_s_least", "ratio_cpu_s_greatest")]
    ['b', 3.0, 0.625, 0.5, 0.75]
    """
    first = next(iter(found.values()))
    rows = []
    for name, costs in found.items():
        row: dict[str, Any] = {"name": name, "rounds": len(costs)} | medians(costs)
        for kind in KINDS:
            if all(one.get(kind) and other.get(kind) for one, other in zip(first, costs, strict=True)):
                ratios = [one[kind] / other[kind] for one, other in zip(first, costs, strict=True)]
                row |= {f"ratio_{kind}": statistics.median(ratios)}
                row |= {f"ratio_{kind}_least": min(ratios), f"ratio_{kind}_greatest": max(ratios)}
        rows.append(row)
    return rows


# what a table shows of `compared`
COMPARED = {
    "": "{name}",
    "CPU s": "{cpu_s:.3f}",
    "system": "{system_s:.3f}",
    "wall s": "{wall_s:.3f}",
    "peak MB": "{peak_mb:,.0f}",
    "first over it: CPU": "{ratio_cpu_s:.3f} ({ratio_cpu_s_least:.3f}-{ratio_cpu_s_greatest:.3f})",
    "wall": "{ratio_wall_s:.3f} ({ratio_wall_s_least:.3f}-{ratio_wall_s_greatest:.3f})",
    "peak": "{ratio_peak_mb:.3f} ({ratio_peak_mb_least:.3f}-{ratio_peak_mb_greatest:.3f})",
}


def ways(
    rounds: int,
    runs: Mapping[str, Callable[[], object]],
    *,
    warmup: int = 1,
    wait: Callable[[], object] = lambda: None,
) -> list[dict[str, Any]]:
    """Ways to do one thing, in this process, in turn: rows of `compared`."""
    return compared(interleaved({name: partial(cost, run, wait) for name, run in runs.items()}, rounds, warmup=warmup))
