"""tests/calls.json: how many calls an update and an act make, for every app; the same on every machine.

Widths do not change the count (a row more may, by a few), so that the nets are as deep and the rows as long as in the
real presets, and very narrow. `per_step` and `per_dreamt_step` are what a step more costs, between half the length and
all of it, and between a third of the horizon and all of it.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import torch
from bench_app import batches_of, prepare, records
from bench_calls import count

FILE = Path(__file__).resolve().parents[1] / "tests" / "calls.json"
RENEW = "python tools/bench.py calls --write"
NARROW = [
    "--deter",
    "32",
    "--hidden",
    "8",
    "--classes",
    "4",
    "--stoch",
    "4",
    "--depth",
    "2",
    "--units",
    "8",
    "--batch",
    "2",
]
MEMORY = [
    "--memory-window",
    "16",
    "--memory-count",
    "4",
    "--memory-width",
    "16",
    "--memory-hidden",
    "16",
    "--memory-depth",
    "2",
    "--memory-units",
    "8",
]
STORM = [
    "--width",
    "16",
    "--hidden",
    "16",
    "--heads",
    "2",
    "--stoch",
    "4",
    "--classes",
    "4",
    "--depth",
    "2",
    "--batch",
    "2",
    "--dreams",
    "4",
]
R2I = [
    "--deter",
    "16",
    "--width",
    "16",
    "--state",
    "16",
    "--stoch",
    "4",
    "--classes",
    "4",
    "--depth",
    "2",
    "--units",
    "8",
    "--batch",
    "2",
]
# Atari's frames and six actions, as the comparison in docs/results/speed.md
APPS = {
    "dreamer": ["--preset", "atari100k", "--size", "12m", "--task", "atari100k_pong", "--device", "cpu", *NARROW],
    "po_dreamer": ["--preset", "atari100k", "--size", "12m", "--task", "atari100k_pong", "--device", "cpu", *NARROW]
    + [*MEMORY, "--bottleneck-width", "16", "--bottleneck-hidden", "16"],
    "r2i": ["--preset", "atari100k", "--task", "atari100k_pong", "--device", "cpu", *R2I],
    "storm": ["--preset", "atari100k", "--task", "atari100k_pong", "--device", "cpu", *STORM],
}
LENGTH, HORIZON = 64, 15
SLACK = 0.95  # a count below this share of the record has to be recorded too, or the record guards nothing


def update_calls(app: str, length: int, horizon: int) -> int:
    """Calls of one update of rows of that length."""
    case = prepare(app, [*APPS[app], "--length", str(length), "--horizon", str(horizon)])
    batches = batches_of(case)
    return count(lambda: case.agent.update(*batches))[0].computing


def act_calls(app: str, n: int) -> int:
    """Calls of one acting step of n environments."""
    case = prepare(app, [*APPS[app]])
    source = records(case, n)
    carry = case.agent.initial(n)
    for _ in range(2):
        carry = case.agent.act(carry, next(source))[0]
    step = next(source)
    return count(lambda: case.agent.act(carry, step))[0].computing


def measure(app: str) -> dict[str, Any]:
    """The record of one app."""
    shorter = {
        (t, h): update_calls(app, t, h) for t, h in itertools.product((LENGTH // 2, LENGTH), (HORIZON // 3, HORIZON))
    }
    whole = shorter[LENGTH, HORIZON]
    step = (whole - shorter[LENGTH // 2, HORIZON]) / (LENGTH - LENGTH // 2)
    dreamt = (whole - shorter[LENGTH, HORIZON // 3]) / (HORIZON - HORIZON // 3)
    return {
        "update": whole,
        "per_step": step,
        "per_dreamt_step": dreamt,
        "rest": whole - step * LENGTH - dreamt * HORIZON,
        "act": {str(n): act_calls(app, n) for n in (1, 16)},
    }


def recorded() -> dict[str, Any]:
    """What the file holds."""
    found: dict[str, Any] = json.loads(FILE.read_text())
    return found


def renew() -> str:
    """Count everything and write it down."""
    found = {"torch": torch.__version__.partition("+")[0], "length": LENGTH, "horizon": HORIZON}
    FILE.write_text(json.dumps(found | {"apps": {app: measure(app) for app in APPS}}, indent=2) + "\n")
    return f"written: {FILE.relative_to(FILE.parents[1])}\n{report()}"


def report() -> str:
    """What is written down, for people."""
    kept = recorded()
    lines = [f"calls of one update of {kept['length']} steps and {kept['horizon']} dreamt ones, torch {kept['torch']}"]
    for app, row in kept["apps"].items():
        lines.append(
            f"{app}: {row['update']:,} = {row['rest']:,.0f} + {kept['length']} * {row['per_step']:g} + "
            f"{kept['horizon']} * {row['per_dreamt_step']:g}; an act of 1, 16 environments: "
            f"{row['act']['1']}, {row['act']['16']}"
        )
    return "\n".join(lines)


def verdict(what: str, calls: int, kept: int) -> str | None:
    """None where a count is as recorded, or a little better; else one sentence with the way out.

    >>> verdict("an update of dreamer", 5000, 5000), verdict("an update of dreamer", 4900, 5000)
    (None, None)
    >>> verdict("an update of dreamer", 5001, 5000)
    'an update of dreamer makes 5,001 calls, 1 more than recorded: if that is meant, run `python tools/bench.py calls --write` and commit tests/calls.json'
    """
    if calls > kept:
        more = f"{what} makes {calls:,} calls, {calls - kept:,} more than recorded"
        return f"{more}: if that is meant, run `{RENEW}` and commit tests/calls.json"
    if calls < SLACK * kept:
        return f"{what} makes {calls:,} calls instead of {kept:,}: hold the gain, run `{RENEW}` and commit tests/calls.json"
    return None
