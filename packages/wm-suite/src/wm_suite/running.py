"""wm-suite run SUITE: train and measure what has no row yet. Ctrl-C saves what is under way; the same command goes on."""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from wm_suite import asked, costs
from wm_suite.driver import alone, drive, gather
from wm_suite.engines import Engine
from wm_suite.errors import SuiteError
from wm_suite.home import Home
from wm_suite.job import RETRIES
from wm_suite.local import Local
from wm_suite.rows import missing
from wm_suite.worker import Halt

STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


def main(words: Sequence[str], home: Home) -> int:
    """0 where every run that was asked for has its row, 1 where not, 130 where it was stopped."""
    parser = asked.parser("run", __doc__ or "")
    parser.add_argument(
        "--slots", "--jobs", type=asked.least(0), default=2, help="runs at a time; 0 gathers the rows of finished ones"
    )
    parser.add_argument("--on", default="local", help="local; ray, on this machine; or ray://host:port of a cluster")
    parser.add_argument("--gpus", nargs="+", default=[], help="local: numbers of cards, which slots take in turns")
    parser.add_argument("--gpu-share", type=float, help="ray: of a card a run, such as 0.25; 0 for none")
    parser.add_argument("--threads", type=asked.least(1), default=1, help="of a run (OMP_NUM_THREADS)")
    parser.add_argument("--retries", type=asked.least(0), default=RETRIES, help="of a process that was killed")
    parser.add_argument("--no-trial", action="store_true", help="begin without saying what it will take")
    args = parser.parse_args(words)
    suite, home = asked.opened(args, home)
    rows = home.rows_of(suite)
    with alone(home.folder(suite)), halting() as halt:
        cells = asked.chosen(suite, args, missing(suite, home.rows(suite)))
        jobs = home.jobs(suite, cells, {"OMP_NUM_THREADS": str(args.threads)}, args.retries)
        left = gather(jobs, rows)
        gathered = f", {len(jobs) - len(left)} rows gathered" if len(jobs) > len(left) else ""
        say(f"{suite.name}: {len(left)} of {len(asked.chosen(suite, args))} runs are missing{gathered}")
        if not left or args.slots == 0:
            return 1 if left else 0
        engine = engine_of(args)
        if not args.no_trial:
            known = costs.trials(left, home.folder(suite) / "costs.json", say)
            for sentence in costs.sentences(left, known, engine.slots, home.folder(suite)):
                say(sentence)
        without = drive(left, rows, engine, halt, say)
    return 130 if halt else 1 if without else 0


def engine_of(args: argparse.Namespace) -> Engine:
    """By --on. Raises SuiteError."""
    if args.on == "local":
        return Local(args.slots, args.gpus)
    if args.on == "ray" or re.fullmatch(r"(ray://)?[\w.-]+:\d+", args.on):
        from wm_suite.ray_engine import Ray

        return Ray(args.on, args.slots, args.gpu_share, args.threads)
    raise SuiteError(f"--on {args.on} is unknown: it is local, ray, or ray://host:port of a cluster")


@contextmanager
def halting() -> Iterator[Halt]:
    """Signals that ask a process to end let the runs save inside; the second Ctrl-C leaves them to that alone."""
    halt = Halt()

    def stop(number: int, frame: FrameType | None) -> None:
        if halt and number == signal.SIGINT:
            say("left: what is under way saves by itself")
            os._exit(130)
        if not halt:
            say("stopping: what is under way is saved (Ctrl-C again: do not wait for it)")
        halt.set()

    before = {number: signal.signal(number, stop) for number in STOPPING}
    try:
        yield halt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def say(text: str) -> None:
    """For people."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:  # nobody listens any more; the runs go on
        pass
