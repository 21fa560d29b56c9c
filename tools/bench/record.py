"""tests/calls.json: how many calls an update and an act make, for every app; the same on every machine.

Widths do not change the count (a row more may, by a few), so that the nets are as deep and the rows as long as in the
real presets, and very narrow. `per_step` and `per_dreamt_step` are what a step more costs, between half the length and
all of it, and between a third of the horizon and all of it.
"""

from __future__ import annotations

import itertools
import json
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from bench.calls import count
from bench.cases import batches_of, configured, prepare
from bench.command import Command
from bench.rows import Row
from bench.update import acting

FILE = Path(__file__).resolve().parents[2] / "tests" / "calls.json"
RENEW = "python tools/bench calls --write"
# Atari's frames and six actions, as the comparison in docs/results/speed.md; narrow everywhere
SHARED = "--preset atari100k --task atari100k_pong --device cpu --batch 2 --depth 2 --stoch 4 --classes 4"
DREAMER = f"{SHARED} --size 12m --deter 32 --hidden 8 --units 8"
MEMORY = "--memory-window 16 --memory-count 4 --memory-width 16 --memory-hidden 16 --memory-depth 2 --memory-units 8"
TEAMS = "--preset smax --task toy:leavers --device cpu"
LEAVERS = "--preset tiny --task toy:leavers --device cpu --epochs 5"
APPS = {  # by an app's name, and what of it
    "dreamer": DREAMER.split(),
    "po_dreamer": f"{DREAMER} {MEMORY} --bottleneck-width 16 --bottleneck-hidden 16".split(),
    "mappo": f"{TEAMS} --envs 2 --batch 2 --units 8".split(),
    "r2i": f"{SHARED} --deter 16 --width 16 --state 16 --units 8".split(),
    "dmawm": f"{LEAVERS} --batch 2 --layers 3 --absorbing 16".split(),
    "po_dreamer of a team": f"{LEAVERS} {MEMORY}".split(),
    "storm": f"{SHARED} --width 16 --hidden 16 --heads 2 --dreams 4".split(),
}
LENGTH, HORIZON = 64, 15
SLACK = 0.95  # a count below this share of the record has to be recorded too, or the record guards nothing


def update_calls(app: str, length: int, horizon: int) -> int:
    """Calls of one update of rows of that length, and of dreams of that many steps where the app dreams."""
    module = app.partition(" ")[0]
    fields = configured(module, APPS[app])[0].config.__dataclass_fields__
    dreams = ["--horizon", str(horizon)] if "horizon" in fields else []
    case = prepare(module, [*APPS[app], "--length", str(length), *dreams])
    batches = batches_of(case)
    return count(lambda: case.agent.update(*batches)).computing


def act_calls(app: str, n: int) -> int:
    """Calls of one acting step of n environments."""
    return count(acting(prepare(app.partition(" ")[0], APPS[app]), n)).computing


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


def record(args: Namespace, words: list[str]) -> Iterator[Row]:
    """A row for each app as it is written down; with --write, as it is counted now, and then written down."""
    about = {"torch": torch.__version__.partition("+")[0], "length": LENGTH, "horizon": HORIZON}
    if args.write:
        FILE.write_text(json.dumps(about | {"apps": {app: measure(app) for app in APPS}}, indent=2) + "\n")
    kept = recorded()
    for app, row in kept["apps"].items():
        yield (
            {name: kept[name] for name in about}
            | {"method": app}
            | row
            | {f"act_{n}": calls for n, calls in row["act"].items()}
        )


def verdict(what: str, calls: int, kept: int) -> str | None:
    """None where a count is as recorded, or a little better; else one sentence with the way out.

    >>> verdict("an update of dreamer", 5000, 5000), verdict("an update of dreamer", 4900, 5000)
    (None, None)
    >>> verdict("an update of dreamer", 5001, 5000)
    'an update of dreamer makes 5,001 calls, 1 more than recorded: if that is meant, run `python tools/bench calls --write` and commit tests/calls.json'
    """
    if calls > kept:
        more = f"{what} makes {calls:,} calls, {calls - kept:,} more than recorded"
        return f"{more}: if that is meant, run `{RENEW}` and commit tests/calls.json"
    if calls < SLACK * kept:
        return f"{what} makes {calls:,} calls instead of {kept:,}: hold the gain, run `{RENEW}` and commit tests/calls.json"
    return None


COLUMNS = {
    "app": "{method}",
    "an update": "{update:,}",
    "each step": "{per_step:g}",
    "each dreamt step": "{per_dreamt_step:g}",
    "rest": "{rest:,.0f}",
    "an act of 1": "{act_1}",
    "of 16": "{act_16}",
}


def options(parser: ArgumentParser) -> None:
    parser.add_argument("--write", action="store_true", help="count everything and renew the record")


COMMANDS = {"calls": Command(record, COLUMNS, options, app=False)}
