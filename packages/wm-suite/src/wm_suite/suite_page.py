"""Rows of a suite -> one HTML page that needs nothing else, and the passport of every number on it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from wm_suite.cells import Board, Entry, Planned, Sample, board
from wm_suite.document import document, legend, shipped, swatch
from wm_suite.errors import SuiteError
from wm_suite.films import Film, figure
from wm_suite.normalise import reference
from wm_suite.passport import Passport, maker, passport, said, script
from wm_suite.printed import Printed, printed
from wm_suite.sources import Source
from wm_suite.suite_aggregates import aggregates, improvements, normalised, profiles
from wm_suite.suite_curves import curves
from wm_suite.suite_tables import beside, capital, columns_of, framed, plural, scores, wins


@dataclass(frozen=True)
class Plan:
    """What a page is about.

    score, outcome: fields of a row. normalise: the table of random and reference scores, or "". printed: tables that stand
    beside as their papers print them. cells: planned runs; none where rows alone say what there is.
    """

    title: str
    suite: str = ""
    score: str = "trained"
    outcome: str = ""
    normalise: str = ""
    printed: tuple[str, ...] = ()
    cells: tuple[Planned, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """All that a page is made of. paths: of the sources, relative to the page; films: of runs, by a sample's name."""

    plan: Plan
    sources: tuple[Source, ...]
    paths: tuple[str, ...]
    samples: tuple[Sample, ...]
    films: Mapping[str, tuple[Film, ...]] = field(default_factory=dict)


def extremes(one: Entry, score: str) -> list[tuple[str, Sample]]:
    """The best and the worst seed of an entry, with the word for it; one of a single seed."""
    ranked = sorted(one.samples, key=lambda sample: (-sample.mean(score), sample.key[2]))
    if len(ranked) < 2:
        return [("only", sample) for sample in ranked]
    return [("best", ranked[0]), ("worst", ranked[-1])]


def render(report: Report, by: Mapping[str, str] | None = None) -> tuple[str, dict[str, Any]]:
    """The page, and its passport, which is in it. by: what it says of its making, else this package and its versions."""
    plan, book = report.plan, Passport()
    found = board(report.samples, plan.cells, score=plan.score)
    body = [f"<h1>{escape(plan.title)}</h1>", _lead(report, found), ""]
    body += [f'<p class="mark">{escape(capital(note))}.</p>' for note in (*plan.notes, *found.notes)]
    tables = [printed(name) for name in plan.printed]
    body += [
        heading("Scores"),
        scores(found, plan.score, book, tables),
        *_not_there(tables, found),
        beside(found, plan.score, plan.outcome, book),
    ]
    if plan.outcome:
        body += [heading("Win rates"), wins(found, plan.outcome, book)]
    body += _over_tasks(plan, found, book)
    body += _curves(found, book)
    body += _films(report, found, plan.score)
    body += _gaps(found)
    if found.entries:
        body += [heading("What ran"), *(_about(found, arm) for arm in found.arms)]
    whole = passport(book, described(plan), report.sources, report.paths, report.samples)
    whole["by"] = dict(by or maker())
    whole["films"] = {
        name: [{"path": one.path, "size": one.size, "sha256": one.sha256} for one in films]
        for name, films in report.films.items()
    }
    body[2] = _contents(body)
    dialog = '<dialog id="passport-of" aria-labelledby="passport-title"><div></div></dialog>'
    body += [dialog, script(whole)]
    return document(plan.title, body, style=shipped("suite.css"), script=shipped("suite.js")), whole


def described(plan: Plan) -> dict[str, Any]:
    """The plan as JSON."""
    cells = [
        {
            "task": one.task,
            "arm": one.arm,
            "seed": one.seed,
            "settings": dict(one.settings),
            "state": one.state,
            "detail": one.detail,
        }
        for one in plan.cells
    ]
    names = ("title", "suite", "score", "outcome", "normalise")
    return {name: getattr(plan, name) for name in names} | {
        "printed": list(plan.printed),
        "notes": list(plan.notes),
        "cells": cells,
    }


def planned(kept: Mapping[str, Any]) -> Plan:
    """The plan that `described` made JSON of."""
    names = ("title", "suite", "score", "outcome", "normalise")
    cells = tuple(Planned(**one) for one in kept["cells"])
    return Plan(
        **{name: str(kept[name]) for name in names},
        printed=tuple(kept["printed"]),
        cells=cells,
        notes=tuple(kept["notes"]),
    )


def heading(text: str) -> str:
    """Of a section, that a link can lead to."""
    return f'<h2 id="{text.lower().replace(", ", "-").replace(" ", "-")}">{text}</h2>'


def _contents(body: Sequence[str]) -> str:
    """Links to the sections."""
    found = [match.groups() for part in body if (match := re.fullmatch(r'<h2 id="([^"]*)">(.*)</h2>', part))]
    links = "".join(f'<a href="#{name}">{text}</a>' for name, text in found)
    return f'<nav aria-label="sections">{links}</nav>'


def _lead(report: Report, found: Board) -> str:
    runs = sum(len(one.samples) for one in found.all())
    whole = runs + sum(map(len, found.gaps.values()))
    count = plural(runs, "run") if whole == runs else f"{runs:,} of {plural(whole, 'run')}"
    parts = [f"{plural(len(found.tasks), 'task')}, {plural(len(found.arms), 'arm')}, {count}."]
    paths = [path for path, source in zip(report.paths, report.sources, strict=True) if source.kind == "rows"]
    if paths:
        parts.append(f"Rows: {', '.join(paths)}.")
    parts.append("Each number opens its passport: the raw episodes behind it, and how they came about.")
    return f'<p class="about">{escape(" ".join(parts))}</p>'


def _over_tasks(plan: Plan, found: Board, book: Passport) -> list[str]:
    """Aggregates, profiles and comparisons, where a table of reference scores is named."""
    if not plan.normalise:
        return []
    arms, tasks, notes = normalised(found, plan.score, scale_of(plan.normalise))
    parts = [heading("Over all tasks"), *(f'<p class="mark">{escape(capital(note))}.</p>' for note in notes)]
    if not arms:
        return [*parts, '<p class="about">No row has a score that these reference scores normalise.</p>']
    about = f"Scores are normalised by the table {plan.normalise}: 0 its random score, 1 its reference."
    parts += [f'<p class="about">{escape(about)}</p>', aggregates(arms, tasks, book)]
    key = legend((one.colour, one.arm, sum(map(len, one.scores.values()))) for one in arms)
    parts += ["<h3>Performance profiles</h3>", key, f'<div class="charts wider">{profiles(arms, book)}</div>']
    if len(arms) > 1:
        parts += ["<h3>Which arm is better</h3>", improvements(arms, book)]
    return parts


def _not_there(tables: Sequence[Printed], found: Board) -> list[str]:
    """Printed tables that have none of the tasks, in words."""
    odd = [one for one in tables if not any(columns_of(one, found.tasks))]
    return [
        f'<p class="about">{escape(f"{one.source} ({one.title}) prints nothing of these tasks.")}</p>' for one in odd
    ]


def scale_of(table: str) -> Callable[[str, float], float | None]:
    """The normalised score of a task, by a table's random and reference scores; None where it has none for the task."""

    def scale(task: str, score: float) -> float | None:
        try:
            least, most = reference(task, table)
        except SuiteError:
            return None
        return (score - least) / (most - least)

    return scale


def _curves(found: Board, book: Passport) -> list[str]:
    drawn = [one for task in found.tasks if (one := curves(found, task, book))]
    if not drawn:
        return []
    counts = {
        arm: max((len(one.samples) for task in found.tasks for one in found.entries.get((task, arm), ())), default=0)
        for arm in found.arms
    }
    key = legend((i, arm, counts[arm]) for i, arm in enumerate(found.arms) if counts[arm])
    about = (
        "Training score, the mean over seeds in equal spans of steps; bands are one standard error of that mean, one seed "
        "has none. A faint stretch: not every seed has come so far."
    )
    return [
        heading("Learning curves"),
        f'<p class="about">{about}</p>',
        key,
        f'<div class="charts wider">{"".join(drawn)}</div>',
    ]


def _films(report: Report, found: Board, score: str) -> list[str]:
    """Of the best and the worst seed of every entry, where their folders are there."""
    parts = []
    for one in found.all():
        for word, sample in extremes(one, score):
            if films := report.films.get(sample.name):
                about = f"{one.arm} on {one.task}, {word} seed {sample.key[2]}"
                figures = "".join(figure(film, f"{about}: {film.name}") for film in films)
                parts.append(f'<h3>{escape(about)} ({said(sample.mean(score))})</h3><div class="films">{figures}</div>')
    return [heading("Best and worst seeds"), *parts] if parts else []


def _gaps(found: Board) -> list[str]:
    """Every run that was planned and has no row."""
    gaps = [one for task in found.tasks for arm in found.arms for one in found.gaps.get((task, arm), ())]
    if not gaps:
        return []
    lines = (
        f"<tr><td>{escape(one.task)}</td><td>{escape(one.arm)}</td><td>{one.seed}</td><td>{escape(one.state)}</td>"
        f"<td>{escape(one.detail)}</td></tr>"
        for one in gaps
    )
    head = "".join(f'<th scope="col">{name}</th>' for name in ("task", "arm", "seed", "state", "last line of its log"))
    table = framed(
        "Planned, and without a row; of those that failed the last line of the log.", f"<tr>{head}</tr>", lines
    )
    opened = " open" if len(gaps) <= 20 else ""
    return [
        heading("Not run, or failed"),
        f"<details{opened}><summary>{plural(len(gaps), 'run')} without a row</summary>{table}</details>",
    ]


def _about(found: Board, arm: str) -> str:
    """How the rows of an arm came about; where they differ, every value."""
    samples = [sample for one in found.all() if one.arm == arm for sample in one.samples]
    if not samples:
        return ""
    tables = []
    for title, value in (
        ("settings", "settings"),
        ("protocol", "protocol"),
        ("hardware", "hardware"),
        ("versions", "versions"),
    ):
        recorded = [one.row.get(value) for one in samples]
        flat = [_flat(one) if isinstance(one, Mapping) else {"": "not recorded"} for one in recorded]
        names = dict.fromkeys(name for one in flat for name in one)
        rows = {name: _values([one.get(name, "none") for one in flat]) for name in names}
        tables.append(_table(title, rows))
    code = {
        "commit": _values([one.row.get("commit", "not recorded") for one in samples]),
        "configuration": _values([one.row.get("config", "not recorded") for one in samples]),
        "parameters": _values([one.row.get("parameters", "not recorded") for one in samples]),
        "steps": _values([one.row.get("step", "not recorded") for one in samples]),
        "seconds a run": _values([one.row.get("wall_s", "not recorded") for one in samples]),
        "measured by": _values([one.row.get("measure", "not recorded") for one in samples]),
    }
    command = next((one.row["command"] for one in samples if one.row.get("command")), None)
    words = f'<pre tabindex="0">{escape(" ".join(map(str, command)))}</pre>' if isinstance(command, list) else ""
    return (
        f"<details><summary>{swatch(found.arms.index(arm))}{escape(arm)}: {plural(len(samples), 'run')}</summary>{words}"
        f'<div class="tables">{_table("code", code)}{"".join(tables)}</div></details>'
    )


def _flat(found: Mapping[str, Any]) -> dict[str, Any]:
    """Nested tables as one, under names with a dot."""
    flat: dict[str, Any] = {}
    for name, value in found.items():
        flat |= (
            {f"{name}.{inner}": one for inner, one in _flat(value).items()}
            if isinstance(value, Mapping)
            else {name: value}
        )
    return flat


def _values(values: Sequence[Any]) -> str:
    distinct = list(dict.fromkeys(one if isinstance(one, str) else json.dumps(one, default=str) for one in values))
    return " | ".join(distinct[:6]) + (f" | {len(distinct) - 6} more" if len(distinct) > 6 else "")


def _table(title: str, values: Mapping[str, str]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>'
        for name, value in values.items()
        if value != ""
    )
    return f"<table><caption>{escape(title)}</caption><tbody>{rows}</tbody></table>" if rows else ""
