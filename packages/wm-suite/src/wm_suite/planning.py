"""wm-suite plan SUITE: the runs that have no row yet. --costs says what each takes, by trials on this machine, and --count by
its networks' shapes alone; --lines FILE writes one command a run.

A line is self-contained and safe to start again, in any queue: it trains the run, or goes on with it, measures it and
leaves its row beside it; `wm-suite run SUITE --slots 0` gathers the rows.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wm_suite import asked, costs, durable
from wm_suite.errors import SuiteError
from wm_suite.home import Home
from wm_suite.job import RETRIES, Job
from wm_suite.rows import missing, read_rows
from wm_suite.running import say


def main(words: Sequence[str], home: Home) -> int:
    """0."""
    parser = asked.parser("plan", __doc__ or "")
    parser.add_argument("--all", action="store_true", help="runs that have a row, too")
    parser.add_argument(
        "--costs", action="store_true", help="updates, FLOPs and bytes of each, by trials on this machine"
    )
    parser.add_argument(
        "--count", action="store_true", help="the same by shapes alone: nothing is computed, and there are no hours"
    )
    parser.add_argument("--card", type=Path, metavar="ROWS", help="rows of tools/gpu.py, for hours of what was counted")
    parser.add_argument("--lines", type=Path, metavar="FILE", help="write one command a run")
    parser.add_argument("--threads", type=asked.least(1), default=1, help="of a run (OMP_NUM_THREADS)")
    parser.add_argument("--retries", type=asked.least(0), default=RETRIES, help="of a process that was killed")
    args = parser.parse_args(words)
    suite, home = asked.opened(args, home)
    cells = asked.chosen(suite, args, None if args.all else missing(suite, home.rows(suite)))
    jobs = home.jobs(suite, cells, {"OMP_NUM_THREADS": str(args.threads)}, args.retries)
    if args.lines is not None:
        try:
            durable.write(args.lines, "".join(f"{line(job)}\n" for job in jobs))
        except OSError as error:
            raise SuiteError(f"{args.lines} cannot be written: {error.strerror}") from error
        say(f"{len(jobs)} commands in {args.lines}")
        return 0
    known: dict[str, dict[str, Any]] = {}
    if args.costs or args.count:
        kept = "counts.json" if args.count else "costs.json"
        known = costs.trials(jobs, home.folder(suite) / kept, say, count=args.count)
    if args.card is not None and not args.card.is_file():
        raise SuiteError(f"--card {args.card} is no file: name rows of tools/gpu.py")
    rows = read_rows(args.card) if args.card is not None else []
    for job in jobs:
        print(f"{job.cell.arm} {job.cell.task} {job.cell.seed}{_estimate(known.get(costs.kind_of(job), {}), rows)}")
    if known:
        print(_sum(jobs, known, rows))
    return 0


def _sum(jobs: Sequence[Job], known: Mapping[str, Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> str:
    sums = costs.total(jobs, known, 1)
    parts = [
        f"{len(jobs)} runs",
        f"{sums['flops']:.2e} FLOPs of updates",
        f"{sums['disk_bytes'] / costs.GIGA:.2f} GB of disk",
    ]
    found = [known.get(costs.kind_of(job), {}) for job in jobs]
    if any("hours" in one for one in found):
        parts.append(f"{sums['hours']:.2f} hours one by one here")
    elif None not in (hours := [costs.on_a_card(one, rows) for one in found]):
        parts.append(f"{sum(filter(None, hours)):.2f} hours of updates on that card")
    else:
        parts.append("hours not measured")
    if sums["untried"]:
        parts.append(f"without {sums['untried']:.0f} that could not be tried")
    return ", ".join(parts)


def line(job: Job) -> str:
    """One command for a shell, whatever its folder and its variables.

    >>> from wm_suite.suites import Cell
    >>> print(line(Job("s", Cell("t", "a b", 0, "r2i", "", {}), "runs/t", 5, cwd="/x y", python="py"))[:42])
    cd '/x y' && exec py -m wm_suite.worker '{
    """
    return (
        f"cd {shlex.quote(job.cwd)} && exec {shlex.quote(job.python)} -m wm_suite.worker {shlex.quote(job.to_json())}"
    )


def _estimate(found: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    if not found:
        return ""
    if "error" in found:
        return f": could not be tried: {found['error']}"
    memory = found.get("vram_bytes", 0) if found.get("device") == "cuda" else found.get("ram_bytes", 0)
    hours = "hours not measured"
    if "hours" in found:
        hours = f"{found['hours']:.2f} hours on this {found.get('device', '?')}"
    elif (card := costs.on_a_card(found, rows)) is not None:
        hours = f"{card:.2f} hours of updates on that card"
    return (
        f": {found.get('updates', 0):,} updates, {costs.flops_of(found):.2e} FLOPs, {memory / costs.GIGA:.1f} GB of memory, "
        f"{found.get('disk_bytes', 0) / costs.GIGA:.2f} GB of disk, {hours}"
    )
