"""wm-suite report SUITE | ROWS.jsonl | FOLDER...: one HTML page of what there is, and the passport of its numbers beside it."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from wm_suite import films, status
from wm_suite.cells import Planned, board, newest
from wm_suite.errors import SuiteError
from wm_suite.films import Film
from wm_suite.home import Home
from wm_suite.sources import modernised, rows_file, run_folders
from wm_suite.suite_page import Plan, Report, extremes, render
from wm_suite.suites import Suite, read

STATES = {
    "missing": "not run",
    "stopped": "begun and stopped",
    "running": "running",
    "done": "done, its row not gathered yet",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What this verb is asked."""
    parser.add_argument(
        "what", nargs="+", help="a suite (a file that ends in .toml, or a name), a file of rows, or folders of runs"
    )
    parser.add_argument("--rows", type=Path, help="the file of a suite's rows")
    parser.add_argument("--runs", type=Path, help="the folder that holds a folder for each suite")
    parser.add_argument("--out", type=Path, help="the page; its passport lies beside it, as .json")
    parser.add_argument("--score", default="", help="the field of a row that is the score, where no suite says it")
    parser.add_argument("--outcome", default="", help="a field of 0 and 1 of the same episodes, where no suite says it")
    parser.add_argument(
        "--normalise", default="", metavar="TABLE", help="random and reference scores, where no suite says them"
    )


def run(args: argparse.Namespace, home: Home | None = None) -> int:
    """Write the page and its passport. Raises SuiteError."""
    home = Home() if home is None else home
    if args.rows is not None:
        home = replace(home, rows_file=args.rows.absolute())
    if args.runs is not None:
        home = replace(home, runs=args.runs.absolute())
    if all(Path(one).is_dir() for one in args.what):
        report, out = of_folders([Path(one) for one in args.what], args), Path("report.html")
    elif len(args.what) > 1:
        odd = next(one for one in args.what if not Path(one).is_dir())
        raise SuiteError(f"{odd} is no folder: name folders of runs, or one suite, or one file of rows")
    elif args.what[0].endswith(".jsonl"):
        report, out = of_rows(Path(args.what[0]), args, home), Path(args.what[0]).with_suffix(".html")
    else:
        suite = read(args.what[0], None, [home.cwd / folder for folder in home.suites])
        report, out = of_suite(suite, home), home.folder(suite) / "report.html"
    out = args.out or out
    if out.suffix != ".html":
        raise SuiteError(
            f"--out {out} ends in {out.suffix or 'nothing'}: name a file that ends in .html, the passport lies beside it"
        )
    paths = tuple(
        Path(os.path.relpath(one.path.absolute(), out.parent.absolute())).as_posix() for one in report.sources
    )
    html, passport = render(replace(report, paths=paths))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps(passport, indent=1) + "\n", encoding="utf-8")
    out.write_text(html, encoding="utf-8")
    print(out)
    print(out.with_suffix(".json"))
    return 0


def main(words: Sequence[str], home: Home | None = None) -> int:
    """The verb. Raises SuiteError."""
    parser = argparse.ArgumentParser(prog="wm-suite report", description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args(words), home)


def of_suite(suite: Suite, home: Home) -> Report:
    """Of the newest rows of a suite, and of the state of those that it has not. Raises SuiteError."""
    path = home.rows_of(suite)
    source, samples = rows_file(path) if path.is_file() else (None, [])
    samples = newest(modernised(samples, suite.name, home.modern))
    have = {one.key for one in samples}
    jobs = home.jobs(suite, suite.cells)
    cells = []
    for cell, job in zip(suite.cells, jobs, strict=True):
        planned = Planned(cell.task, cell.arm, cell.seed, cell.settings)
        if cell.key not in have:
            found = status.status(job, None)
            planned = replace(planned, state=STATES.get(found.state, found.state), detail=found.sentence)
        cells.append(planned)
    plan = Plan(suite.title, suite.name, suite.score, suite.outcome, suite.normalise, suite.printed, tuple(cells))
    folders = {cell.key: Path(job.cwd) / job.logdir for cell, job in zip(suite.cells, jobs, strict=True)}
    report = Report(plan, (source,) if source else (), (), tuple(samples))
    return replace(report, films=shown(report, folders))


def of_rows(path: Path, args: argparse.Namespace, home: Home) -> Report:
    """Of all rows in a file. Raises SuiteError."""
    source, samples = rows_file(path)
    score = args.score or "trained"
    plan = Plan(path.stem, "", score, args.outcome, args.normalise)
    report = Report(plan, (source,), (), tuple(newest(samples)))
    recorded = {one.key: Path(str(one.row.get("folder", "..."))) for one in samples}
    folders = {key: home.cwd / one for key, one in recorded.items() if not one.is_absolute() and ".." not in one.parts}
    return replace(report, films=shown(report, folders))


def of_folders(folders: Iterable[Path], args: argparse.Namespace) -> Report:
    """Of run folders of any project that writes scores.jsonl. Raises SuiteError."""
    sources, samples, notes = run_folders(list(folders))
    title = f"{len(samples)} run{'s' * (len(samples) != 1)}"
    plan = Plan(title, "", args.score or "score", args.outcome, args.normalise, notes=tuple(notes))
    report = Report(plan, tuple(sources), (), tuple(samples))
    return replace(report, films=shown(report, {one.key: sources[one.source].path for one in samples}))


def shown(report: Report, folders: Mapping[tuple[str, str, int], Path]) -> dict[str, tuple[Film, ...]]:
    """Films of the best and the worst seed of every entry, in the order of the page. No link is followed."""
    found: dict[str, tuple[Film, ...]] = {}
    for entry in board(report.samples, report.plan.cells, score=report.plan.score).all():
        for _, one in extremes(entry, report.plan.score):
            folder = folders.get(one.key)
            if folder is None or folder.is_symlink() or not folder.is_dir():
                continue
            paths = films.newest(folder)
            if paths:
                found[one.name] = tuple(
                    replace(films.film(path), path=f"{folder.name}/video/{path.name}") for path in paths
                )
    return found
