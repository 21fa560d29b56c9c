"""What every verb is asked: a suite, which part of it, and where its files are."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from wm_suite.errors import SuiteError
from wm_suite.home import Home
from wm_suite.suites import Cell, Suite, read


def parser(verb: str, about: str) -> argparse.ArgumentParser:
    """For one verb; more may be added to it."""
    made = argparse.ArgumentParser(
        prog=f"wm-suite {verb}", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("suite", help="a file that ends in .toml, or the name of a suite")
    made.add_argument("--seeds", type=int, nargs="+", help="in place of the suite's")
    made.add_argument("--arms", nargs="+", help="these alone")
    made.add_argument("--tasks", nargs="+", help="these alone")
    made.add_argument("--rows", type=Path, help="the file of rows")
    made.add_argument("--runs", type=Path, help="the folder that holds a folder for each suite")
    return made


def least(smallest: int) -> Callable[[str], int]:
    """A whole number from there on, for `type` of an argument.

    >>> least(0)("3")
    3
    """

    def number(word: str) -> int:
        if not word.lstrip("+").isdecimal() or int(word) < smallest:
            raise argparse.ArgumentTypeError(f"{word!r} is no whole number from {smallest} on")
        return int(word)

    return number


def opened(args: argparse.Namespace, home: Home) -> tuple[Suite, Home]:
    """The suite that was named, and where its files are. Raises SuiteError."""
    if args.rows is not None:
        home = dataclasses.replace(home, rows_file=args.rows.absolute())
    if args.runs is not None:
        home = dataclasses.replace(home, runs=args.runs.absolute())
    return read(args.suite, args.seeds, [home.cwd / folder for folder in home.suites]), home


def chosen(suite: Suite, args: argparse.Namespace, cells: Sequence[Cell] | None = None) -> list[Cell]:
    """Of these runs, or of all, those of the arms and tasks asked for: all seeds 0 first, then all seeds 1, and so on.
    Raises SuiteError for an arm or a task that the suite has not."""
    for kind, asked, known in (("arm", args.arms, suite.arms), ("task", args.tasks, suite.tasks)):
        if odd := [name for name in asked or [] if name not in known]:
            raise SuiteError(f"{suite.name} has no {kind} {odd[0]!r}; it has {', '.join(known)}")
    left = [
        cell
        for cell in (suite.cells if cells is None else cells)
        if (not args.arms or cell.arm in args.arms) and (not args.tasks or cell.task in args.tasks)
    ]
    return sorted(left, key=lambda cell: cell.seed)
