"""python tools/bench COMMAND [options]: what things cost. Times are CPU seconds unless a column says otherwise.

update        one update of an app: seconds, memory, FLOPs, calls into torch; --against COMMAND ...: in turn with others
act           one acting step, of 1, 4 and 16 environments
parts         where `learn` spends it, part by part, against the floors of this CPU
scaling       how an update grows with the option that has several values, --length 16 64 256
loop          acting in real environments, beside the emulator alone
overlap       learning while the environments step, over one after the other
calls         tests/calls.json, the counts of calls that CI holds; --write renews it
serve, floor  an update, and its products alone, as a COMMAND of --against
peer          another code as a COMMAND: peer r2dreamer CHECKOUT, and dreamerv3_torch, storm, dreamerv3 (the official one)
length        R2I's sequence model against Dreamer's RSSM over the length of rows
dream         STORM's imagination from a cache against recomputation
encoder       STORM's encoder on frames of contexts, in pieces and at once
scan          the scans of wm-ssm by their methods: time and memory
environments  environments under random actions, beside the bare emulator
mat           acting of the Multi-Agent Transformer over the number of agents, cached and recomputed
smax          steps of SMAX through the adapter, beside its compiled step alone
replay        the replay at full size: budget and memory; its samples from more and more steps

Every command takes --rounds, --warmup, --json (rows as JSON lines instead of a table) and --out FILE (the rows are kept
there, in place of those of the same things; where it pays all rows of the file are drawn beside it). `COMMAND --help`
names its own. Where an app is measured, --app is its module (dreamer unless named) and every other option one of the
app's `info`: --preset, --size, --ablation and any field of its config (--device, --precision, --threads, --task, ...).
--threads is 1 unless named, for cpu_s counts what idle threads spin. But for loop and overlap no environment is played:
frames and actions are random, the notes of the dynamics come from acting on such frames, and a real replay in memory
makes the batch exactly as the app's `learn` asks for it.

cpu_s, wall_s  medians over the rounds, of an update without sampling and writing back; user and system time of all threads.
peak_mb        peak resident memory of the process until then, torch and all, in 10^6 bytes. peak_gpu_mb on a GPU.
flops          forward and backward, by the rules of torch's FLOP counter: 2 for a multiply-add in products,
               convolutions and attention, nothing for the rest.
aten_calls     dispatcher calls of an eager update that compute something: see calls.py. aten_views: views and metadata.
parameters     trainable, all parts together, without the slow critic.
ratio_*        the first over this one in the same round: median, least and greatest. Only these should be quoted.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.command import Command, missing
from bench.rows import Row, cell, keep, read, table

# command -> the file that measures it, imported when it is asked for: another code's environment may lack ours
FILES = dict.fromkeys(("update", "act", "serve", "floor"), "update") | {"calls": "record", "peer": "peers"}
FILES |= {"dream": "storm", "encoder": "storm", "overlap": "loop", "replay": "replays"}
FILES |= {name: name for name in ("parts", "scaling", "loop", "length", "scan", "environments", "mat", "smax")}
HEAD = ("{app}", "{task}", "{parameters:,} parameters", "{device}", "{precision}", "{threads} threads")


def head(row: Row) -> str:
    """What was measured and where, in a line."""
    columns = [*HEAD, "torch {torch}", "commit {commit:.12}"]
    return ", ".join(filter(None, (cell(row, words) for words in columns)))


def show(command: Command, rows: Sequence[Row]) -> str:
    """Rows for people."""
    return "\n\n".join(filter(None, (head(rows[0]), table(rows, command.columns), command.after(rows)))) if rows else ""


def parser_of(name: str, command: Command) -> argparse.ArgumentParser:
    """The options that all commands have, and its own."""
    parser = argparse.ArgumentParser(
        prog=f"bench {name}", usage=f"bench {name} [options]", description=__doc__, allow_abbrev=False, conflict_handler="resolve",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, metavar="N", default=command.rounds, help=f"default {command.rounds}")
    parser.add_argument("--warmup", type=int, metavar="N", default=command.warmup, help="that do not count")
    parser.add_argument("--json", action="store_true", help="rows as JSON lines")
    parser.add_argument("--out", type=Path, metavar="FILE", help="keep the rows there")
    if command.app:
        parser.add_argument("--app", default="dreamer", help="dreamer, po_dreamer, ...: its module")
        parser.add_argument("--image", type=int, metavar="SIDE", help="side of images, instead of the task's")
    command.options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and tell."""
    name, *rest = [*(sys.argv[1:] if argv is None else argv)] or ["--help"]
    if name not in FILES:
        print(__doc__)
        raise SystemExit(0 if name in ("-h", "--help") else f"there is no command {name!r}: one of {', '.join(FILES)}")
    command: Command = importlib.import_module(f"bench.{FILES[name]}").COMMANDS[name]
    parser = parser_of(name, command)
    args, words = parser.parse_known_args(rest)
    args.command = name
    if args.rounds < 1 or args.warmup < 0:
        parser.error("--rounds must be at least 1 and --warmup at least 0")
    if command.app and missing(args.app):
        parser.error(f"there is no app {args.app!r}: name its module, for example dreamer or po_dreamer")
    if words and not (command.app or command.others):
        parser.error(f"there is no option {words[0]!r}")
    rows: list[Row] = []
    try:
        for row in command.measure(args, words):
            same = [i for i, old in enumerate(rows) if command.key and all(old[k] == row[k] for k in command.key)]
            rows = [*(old for i, old in enumerate(rows) if i not in same), row]  # a later round knows more of it
            if args.out:
                keep(args.out, [row], command.key)
    except ValueError as error:  # UserError, TurnError and TaskError are such, and say what to do in one sentence
        if not (getattr(error, "user_error", False) or type(error).__name__ == "TaskError"):
            raise
        parser.error(str(error))
    if args.out and command.picture is not None:
        command.picture.draw(read(args.out), args.out.with_suffix(".png"))
    if rows:
        print("\n".join(map(json.dumps, rows)) if args.json else show(command, rows))
