"""`wm-suite export`: a suite, rows, run folders or a score file -> score files of other projects."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from wm_suite import exports
from wm_suite.errors import SuiteError
from wm_suite.gather import find, legible
from wm_suite.groups import group
from wm_suite.home import Home
from wm_suite.rows import of_suite, read_rows
from wm_suite.scored import Scored, of_rows, of_runs
from wm_suite.suites import read

SUFFIX = {"danijar": "scores.json.gz", "finals": "finals", "marl-eval": "marl-eval.json"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of the verb, to a parser of its own."""
    parser.add_argument(
        "sources",
        nargs="+",
        type=Path,
        help="suites (files that end in .toml, or names), rows (.jsonl), run folders or folders of them, or score files of "
        "DreamerV3's kind (.json, .json.gz)",
    )
    parser.add_argument(
        "--to",
        choices=exports.KINDS,
        default="danijar",
        help="danijar: DreamerV3's score files and plot.py; finals: a list of scores a game, as STORM and DIAMOND; marl-eval",
    )
    parser.add_argument("--out", type=Path, help="the file, or the folder of --to finals")
    parser.add_argument("--score", help="of rows: the field that is the score; without, the suite's, or trained")
    parser.add_argument("--outcome", help="of rows: a field of 0 and 1, for marl-eval's win_rate; without, the suite's")
    parser.add_argument("--points", type=int, default=exports.POINTS, help="of a curve in marl-eval's file")
    parser.add_argument("--mixed", action="store_true", help="take run folders of different protocols, marked")


def main(words: Sequence[str], home: Home | None = None) -> int:
    """The verb. Raises SuiteError."""
    parser = argparse.ArgumentParser(prog="wm-suite export", description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args(words), home)


def run(args: argparse.Namespace, home: Home | None = None) -> int:
    """Write the files, print their names, and what was left out to stderr. Raises SuiteError."""
    if args.points < 1:
        raise SuiteError(f"{args.points} points are no curve: take {exports.POINTS}")
    scored, notes = gathered(args.sources, args.score, args.outcome, mixed=args.mixed, home=home)
    files, more = exports.write(args.to, scored, args.out or Path(SUFFIX[args.to]), args.points)
    for note in [*notes, *more]:
        print(note, file=sys.stderr)
    for file in files:
        print(file)
    return 0


def gathered(
    sources: list[Path],
    score: str | None = None,
    outcome: str | None = None,
    *,
    mixed: bool = False,
    home: Home | None = None,
) -> tuple[list[Scored], list[str]]:
    """The runs in these, and sentences about what was left out. Raises SuiteError for what is none of them, or two runs of
    one task, method and seed."""
    scored: list[Scored] = []
    folders = [one for one in sources if one.is_dir()]
    for source in sources:
        if source.is_dir():
            continue
        if source.suffix == ".jsonl":
            if not source.exists():
                raise SuiteError(f"there is no {source}")
            scored += of_rows(read_rows(source), score or "trained", outcome or "")
        elif source.name.endswith((".json", ".json.gz")):
            scored += exports.read(source)
        else:
            scored += _of_suite(str(source), score, outcome, home or Home())
    notes: list[str] = []
    if folders:
        runs, notes = legible(find(folders))
        groups, more = group(runs, mixed=mixed)
        scored += of_runs(groups)
        notes += more
    names = [(one.task, one.method, one.seed) for one in scored]
    if twice := [one for one in scored if names.count((one.task, one.method, one.seed)) > 1]:
        raise SuiteError(f"there are two runs of {twice[0].name}: name the sources apart, and export each alone")
    return scored, notes


def _of_suite(name: str, score: str | None, outcome: str | None, home: Home) -> list[Scored]:
    """The newest rows of a suite's runs, scored as it says. Raises SuiteError where there is none, of the suite or of its rows."""
    try:
        suite = read(name, None, [home.cwd / folder for folder in home.suites])
    except SuiteError as error:
        if name.endswith(".toml"):
            raise
        raise SuiteError(
            f"{error}; and {name} is no rows (.jsonl), no run folder and no score file (.json, .json.gz)"
        ) from error
    rows = of_suite(suite, home.rows(suite))
    if not rows:
        raise SuiteError(
            f"{home.rows_of(suite)} has no row of the suite {suite.name} yet: `wm-suite run {name}` makes them"
        )
    return of_rows(rows, score or suite.score, suite.outcome if outcome is None else outcome)
