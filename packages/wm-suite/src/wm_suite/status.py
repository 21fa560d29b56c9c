"""wm-suite status SUITE: which runs are done, running (how far, how long still), stopped, failed (why), or missing."""

from __future__ import annotations

import json
import math
import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from wm_suite import asked, diary
from wm_suite.errors import SuiteError
from wm_suite.home import Home
from wm_suite.job import Job
from wm_suite.record import last_line
from wm_suite.rows import newest
from wm_suite.worker import busy, finished

STATES = ("done", "running", "stopped", "failed", "missing")


@dataclass(frozen=True)
class Status:
    """Of one run.

    Attributes:
        state: one of STATES; a stopped run goes on with the next `run`, a missing one has not begun.
        step: that its log has reached.
        share: of all its steps; None where that is not known.
        left_s: seconds until it is trained, at the pace of its log; None where that is not known.
        sentence: why it failed; or that its row is not among the others yet.
    """

    task: str
    arm: str
    seed: int
    state: str
    step: int = 0
    share: float | None = None
    left_s: float | None = None
    sentence: str = ""


def status(job: Job, row: dict[str, Any] | None) -> Status:
    """Of one run, by its row, its diary, its lock and its logs."""
    cell = job.cell
    missing = Status(cell.task, cell.arm, cell.seed, "missing")
    if row is not None:
        other = row.get("settings") != cell.settings
        sentence = f"its row was made with {row.get('settings')}" if other else ""
        done = replace(missing, state="failed" if other else "done", step=int(row.get("step", 0)), share=1.0)
        return replace(done, sentence=sentence)
    if (row := finished(job)) is not None:
        done = replace(missing, state="done", step=int(row["step"]), share=1.0)
        return replace(done, sentence="its row is gathered by the next `run`")
    step, share, left = _far(job)
    begun = replace(missing, step=step, share=share)
    if busy(job):
        trained = "it is evaluated and measured" if share == 1.0 else ""
        return replace(begun, state="running", left_s=left, sentence=trained)
    try:
        found = diary.read(job)
    except SuiteError as damaged:
        return replace(begun, state="failed", sentence=str(damaged))
    if error := found["error"] or _kept_error(job):
        return replace(begun, state="failed", sentence=error)
    return replace(begun, state="stopped") if found["attempts"] or step else missing


def _kept_error(job: Job) -> str:
    try:
        return str(json.loads(job.beside("json").read_bytes()).get("error", ""))
    except (OSError, ValueError):
        return ""


def _far(job: Job) -> tuple[int, float | None, float | None]:
    """The step, its share of all, and the seconds that are left, as the run's own log has them."""
    logs = [job.folder / name for name in ("metrics.jsonl", "scores.jsonl")]
    step = max(last_line(log).get("step", 0) for log in logs)
    pace = last_line(logs[0], "fps/policy").get("fps/policy", 0)
    try:
        steps = tomllib.loads((job.folder / "config.toml").read_text())["steps"]
    except (OSError, ValueError, KeyError):
        steps = None
    if not isinstance(steps, (int, float)) or steps <= 0:
        return int(step), None, None
    return int(step), min(1.0, step / steps), max(0.0, steps - step) / pace if pace > 0 else None


def table(found: Sequence[Status]) -> str:
    """For people: a line a run, and how many there are of each state.

    >>> print(table([Status("toy:catch", "r2i", 0, "running", 50, 0.25, 90.0), Status("toy:catch", "r2i", 1, "missing")]))
    task       arm  seed  state    step  share  left
    toy:catch  r2i  0     running  50    25%    1m 30s
    toy:catch  r2i  1     missing
    2 runs: 1 running, 1 missing
    """
    lines = [("task", "arm", "seed", "state", "step", "share", "left")]
    for one in found:
        share = "" if one.share is None else f"{100 * one.share:.0f}%"
        last = one.sentence or ("" if one.left_s is None or one.state != "running" else _duration(one.left_s))
        step = f"{one.step:,}" if one.step else ""
        lines.append((one.task, one.arm, str(one.seed), one.state, step, share, last))
    widths = [max(len(line[i]) for line in lines) for i in range(6)]
    aligned = [
        "  ".join([*(cell.ljust(w) for cell, w in zip(line, widths, strict=False)), line[6]]).rstrip() for line in lines
    ]
    count = Counter(one.state for one in found)
    return "\n".join([*aligned, f"{len(found)} runs: {', '.join(f'{count[s]} {s}' for s in STATES if count[s])}"])


def _duration(seconds: float) -> str:
    minutes = math.floor(seconds / 60)
    return f"{minutes // 60}h {minutes % 60}m" if minutes >= 60 else f"{minutes}m {seconds % 60:.0f}s"


def main(words: Sequence[str], home: Home) -> int:
    """0."""
    parser = asked.parser("status", __doc__ or "")
    parser.add_argument("--json", action="store_true", help="a list of objects instead")
    args = parser.parse_args(words)
    suite, home = asked.opened(args, home)
    rows = newest(home.rows(suite))
    jobs = home.jobs(suite, asked.chosen(suite, args))
    found = [status(job, rows.get(job.cell.key)) for job in jobs]
    print(json.dumps([asdict(one) for one in found]) if args.json else table(found))
    return 0
