"""What the runs of a suite will take, by a short trial of each kind on this machine: the apps' own `info`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from wm_suite import durable
from wm_suite.job import Job

GIGA = 1e9
TRIAL = 900.0  # seconds


def kind_of(job: Job) -> str:
    """Runs of one kind take about the same: one method, whatever its task and seed. (A preset may fit a task alone, so a
    trial is told the task of the first.)"""
    return json.dumps(job.cell.settings, sort_keys=True)


def tried(job: Job, *options: str) -> dict[str, Any]:
    """The `estimate` of the app's `info --json`: hours, updates, flops_per_update, ram_bytes, vram_bytes, disk_bytes; or
    `error`, the last line of what it said. With the option `--count` nothing is computed, and there are no hours."""
    command = [job.python, "-m", job.cell.app, "info", *job.cell.words, "--json", *options]
    path = os.pathsep.join([*job.path, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | ({"PYTHONPATH": path} if path else {}) | dict(job.environment)
    try:
        ended = subprocess.run(
            command, cwd=job.cwd, env=environment, capture_output=True, text=True, timeout=TRIAL, check=False
        )
        return dict(json.loads(ended.stdout)["estimate"]) if ended.returncode == 0 else {"error": _last(ended.stderr)}
    except subprocess.TimeoutExpired:
        return {"error": f"a trial takes more than {TRIAL / 60:.0f} minutes here"}
    except (OSError, ValueError, KeyError, TypeError) as error:
        return {"error": f"{type(error).__name__}: {error}"}


def trials(
    jobs: Sequence[Job], kept: Path, say: Callable[[str], None], *, count: bool = False
) -> dict[str, dict[str, Any]]:
    """The trial of each kind, from the file `kept` where it was made before; it is renewed. count: by shapes alone."""
    try:
        known = dict(json.loads(kept.read_bytes()))
    except (OSError, ValueError):
        known = {}
    for job in jobs:
        kind = kind_of(job)
        if kind not in known or "error" in known[kind]:
            what = "" if count else " (--no-trial leaves that out)"
            say(f"{'counting' if count else 'trying'} {job.cell.arm} on {job.cell.task} for what it takes{what}")
            known[kind] = tried(job, *(["--count"] if count else []))
            kept.parent.mkdir(parents=True, exist_ok=True)
            durable.write(kept, json.dumps(known))
    return known


def total(jobs: Sequence[Job], known: Mapping[str, Mapping[str, Any]], slots: int) -> dict[str, float]:
    """Of all that could be tried: hours of `slots` at a time, bytes of disk, bytes of memory of the `slots` largest; and
    `untried`, how many runs that leaves out. A run takes no more hours than its limit.

    >>> from wm_suite.suites import Cell
    >>> jobs = [Job("s", Cell("t", "a", seed, "r2i", "", {}), "", 60) for seed in range(3)]
    >>> known = {kind_of(jobs[0]): {"hours": 2.0, "disk_bytes": 5, "ram_bytes": 7, "vram_bytes": 1, "device": "cuda"}}
    >>> total(jobs, known, 2)
    {'hours': 1.5, 'flops': 0, 'disk_bytes': 15, 'ram_bytes': 14, 'vram_bytes': 2, 'untried': 0}
    """
    found = [(job, known.get(kind_of(job), {})) for job in jobs]
    found = [(job, one) for job, one in found if one and "error" not in one]

    def largest(name: str) -> float:
        return sum(sorted((one.get(name, 0) for _, one in found), reverse=True)[:slots])

    gpu = any(one.get("device") == "cuda" for _, one in found)
    return {
        "hours": sum(min(one.get("hours", 0.0), job.minutes / 60) for job, one in found) / max(1, slots),
        "flops": sum(flops_of(one) for _, one in found),
        "disk_bytes": sum(one.get("disk_bytes", 0) for _, one in found),
        "ram_bytes": largest("ram_bytes"),
        "vram_bytes": largest("vram_bytes") if gpu else 0,
        "untried": len(jobs) - len(found),
    }


def flops_of(found: Mapping[str, Any]) -> int:
    """Of all of a run's updates."""
    return int(found.get("updates", 0)) * int(found.get("flops_per_update", 0))


def on_a_card(found: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Hours of a run's updates by the newest row of tools/gpu.py that is of just that network and batch; None without one.

    >>> row = {"part": "update dreamer 12m, pixels", "parameters": 7, "flops": 1000, "graph_ms": 36.0}
    >>> found = {"parameters": 7, "flops_per_update": 1001, "updates": 100_000}
    >>> on_a_card(found, [row]), on_a_card(found | {"parameters": 8}, [row])
    (1.0, None)
    """
    for row in reversed(rows):
        mine = row.get("parameters") == found.get("parameters") and not row.get("rehearsal") and "graph_ms" in row
        if mine and abs(row.get("flops", 0) / found.get("flops_per_update", 1) - 1) < 0.01:
            return float(found["updates"] * row["graph_ms"] / 3.6e6)
    return None


def sentences(jobs: Sequence[Job], known: Mapping[str, Mapping[str, Any]], slots: int, folder: Path) -> list[str]:
    """Hours, memory and disk in words, beside what is free; a warning where that is less."""
    sums = total(jobs, known, min(slots, len(jobs)))
    lines = []
    if sums["untried"] < len(jobs):
        there = next(one for one in (folder, *folder.absolute().parents) if one.exists())
        disk, memory = shutil.disk_usage(there).free, free_memory()
        lines.append(
            f"training takes about {_hours(sums['hours'])} with {slots} at a time, "
            f"{sums['ram_bytes'] / GIGA:.1f} GB of memory ({_free(memory)}), "
            + (f"{sums['vram_bytes'] / GIGA:.1f} GB of GPU memory, " if sums["vram_bytes"] else "")
            + f"{sums['disk_bytes'] / GIGA:.1f} GB of disk ({_free(disk)}); by trials of the first task of each arm here"
        )
        if sums["disk_bytes"] > disk:
            lines.append("that is more disk than there is: runs for which there is no room will say so and wait for it")
        if memory is not None and sums["ram_bytes"] > memory:
            lines.append("that is more memory than there is: take fewer --slots")
    errors = {str(known[kind]["error"]) for kind in map(kind_of, jobs) if "error" in known.get(kind, {})}
    if sums["untried"]:
        more = f": {min(errors)}" if errors else ""
        lines.append(f"what {sums['untried']} of {len(jobs)} runs take could not be tried{more}")
    return lines


def free_memory(proc: Path = Path("/proc/meminfo"), group: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes that new processes can get, by the system and by the control group; None where neither tells."""
    found = []
    if proc.is_file():
        lines = dict(line.split(":") for line in proc.read_text().splitlines() if ":" in line)
        if "MemAvailable" in lines:
            found.append(int(lines["MemAvailable"].split()[0]) * 1024)
    limit, used = group / "memory.max", group / "memory.current"
    if limit.is_file() and used.is_file() and (most := limit.read_text().strip()) != "max":
        found.append(int(most) - int(used.read_text()))
    return min(found) if found else None


def _hours(hours: float) -> str:
    """
    >>> _hours(0.5), _hours(1.25), _hours(300.0)
    ('30 minutes', '1.2 hours', '300 hours')
    """
    if hours < 1:
        return f"{max(1, round(60 * hours))} minutes"
    return f"{hours:.1f} hours" if hours < 100 else f"{hours:,.0f} hours"


def _free(amount: int | None) -> str:
    return "how much is free is not known" if amount is None else f"{amount / GIGA:.1f} free"


def _last(text: str) -> str:
    return next((line.strip()[:300] for line in reversed(text.splitlines()) if line.strip()), "it said nothing")
