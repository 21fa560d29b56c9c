"""wm-suite verify PAGE...: recompute the numbers of a report from its raw rows, and say what differs; exit status 1 then."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from wm_suite.home import Home
from wm_suite.verification import Verdict, verify

SHOWN = 20  # problems of one page


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What this verb is asked."""
    parser.add_argument(
        "pages", nargs="+", type=Path, metavar="PAGE", help="what `wm-suite report` wrote, among its rows"
    )


def run(args: argparse.Namespace, home: Home | None = None) -> int:
    """0 where every page is what its rows give, else 1. Raises SuiteError for what is no such page."""
    found = [(page, verify(page, (home or Home()).modern)) for page in args.pages]
    for page, verdict in found:
        tell(page, verdict)
    return int(any(verdict.problems for _, verdict in found))


def tell(page: Path, found: Verdict) -> None:
    """A line for each thing that differs, or one for all that does not."""
    for problem in found.problems[:SHOWN]:
        print(f"{page}: {problem}")
    if len(found.problems) > SHOWN:
        print(f"{page}: and {len(found.problems) - SHOWN} more")
    for note in found.notes:
        print(f"{page}: {note}", file=sys.stderr)
    if not found.problems:
        print(f"{page}: its {found.numbers:,} numbers are what its {found.rows:,} rows give")


def main(words: Sequence[str], home: Home | None = None) -> int:
    """The verb. Raises SuiteError."""
    parser = argparse.ArgumentParser(prog="wm-suite verify", description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args(words), home)
