"""A page -> its rows, read anew -> the same page computed anew -> sentences about every number and every row that differs."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from wm_suite.cells import Sample, newest
from wm_suite.errors import SuiteError
from wm_suite.films import Film
from wm_suite.passport import maker, plain
from wm_suite.sources import READ, Modern, Source, modernised, rows_file, run_folders
from wm_suite.suite_page import Report, planned, render

CLOSE = 1e-9  # relative, of a number computed anew


@dataclass(frozen=True)
class Verdict:
    """problems: a sentence on each thing that differs; notes: what could not be compared; numbers, rows: how many were."""

    problems: tuple[str, ...]
    notes: tuple[str, ...]
    numbers: int
    rows: int


class Parts(HTMLParser):
    """What a page shows of its numbers: their texts and charts by key, its passport, its films."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: dict[str, str] = {}
        self.charts: dict[str, Any] = {}
        self.media: list[bytes | None] = []
        self.passport = ""
        self._open: tuple[str, str] | None = None  # tag and key of the number, or of the passport, that is being read
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attributes}
        if tag == "script" and found.get("id") == "passport":
            self._open = tag, ""
        elif "data-n" in found:
            self._open = tag, found["data-n"]
            self.texts[found["data-n"]] = ""
        elif "data-chart-of" in found:
            try:
                self.charts[found["data-chart-of"]] = json.loads(found.get("data-chart", ""))
            except ValueError:
                self.charts[found["data-chart-of"]] = None
        elif tag in ("img", "video"):
            data = found.get("src", "").partition(";base64,")[2]
            try:
                self.media.append(base64.b64decode(data, validate=True))
            except ValueError:
                self.media.append(b"")

    def handle_data(self, data: str) -> None:
        if self._open and self._open[0] == "script":
            self.passport += data
        elif self._open:
            self.texts[self._open[1]] += data

    def handle_endtag(self, tag: str) -> None:
        if self._open and self._open[0] == tag:
            self._open = None


@dataclass
class Inquiry:
    """What was found so far."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def verify(page: Path, modern: Modern | None = None) -> Verdict:
    """Recompute a page from its raw rows, and say what differs.

    Args:
        page: the HTML; its JSON and its rows lie where they lay beside it when it was made.
        modern: of a suite's name and its rows of an older making, the rows as they would be written today.

    Raises:
        SuiteError: for what is no such page.
    """
    try:
        text = page.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SuiteError(f"{page} cannot be read: {getattr(error, 'strerror', error)}") from error
    shown, found = Parts(text), Inquiry()
    passport = _parsed(shown.passport, page)
    _beside(page, passport, found)
    sources, samples = _sources(page.parent, passport, modern, found)
    if len(sources) < len(passport["sources"]):
        return Verdict(tuple(found.problems), tuple(found.notes), 0, 0)
    _rows(page.parent, passport, sources, samples, found)
    films, odd = _films(passport, shown.media)
    found.problems += odd
    report = Report(
        planned(passport["plan"]),
        tuple(sources),
        tuple(one["path"] for one in passport["sources"]),
        tuple(samples),
        films,
    )
    again, fresh = render(report, passport["by"])
    _numbers(shown, passport, fresh, found)
    if not found.problems and (at := _first_difference(text, again)) is not None:
        says, gives = (f"...{one[max(0, at - 30) : at + 30]}..." for one in (text, again))
        if passport["by"] == (here := maker()):
            found.problems.append(f"the page says {says} where its rows give {gives}")
        else:
            found.notes.append(
                f"made by {_versions(passport['by'])} and checked by {_versions(here)}, which would write {gives} where it says "
                f"{says}: its numbers are compared, its look is not"
            )
    return Verdict(tuple(found.problems), tuple(found.notes), len(fresh["numbers"]), len(samples))


def _parsed(text: str, page: Path) -> dict[str, Any]:
    try:
        passport = json.loads(text)
        whole = (
            isinstance(passport, dict)
            and {"format", "by", "plan", "sources", "samples", "numbers", "films"} <= passport.keys()
        )
    except ValueError:
        whole = False
    if not whole:
        raise SuiteError(f"{page} holds no passport: name a page that `wm-suite report` wrote")
    return dict(passport)


def _beside(page: Path, passport: Mapping[str, Any], found: Inquiry) -> None:
    """The JSON beside the page says the same as the one in it."""
    beside = page.with_suffix(".json")
    if not beside.is_file():
        found.notes.append(f"{beside.name} does not lie beside the page: the passport in the page was read")
        return
    try:
        theirs = json.loads(beside.read_bytes())
    except ValueError:
        theirs = None
    if theirs != passport:
        names = [name for name in passport if not isinstance(theirs, dict) or theirs.get(name) != passport[name]]
        found.problems.append(
            f"{beside.name} differs from the passport in the page ({', '.join(names) or 'more in it'})"
        )


def _sources(
    folder: Path, passport: Mapping[str, Any], modern: Modern | None, found: Inquiry
) -> tuple[list[Source], list[Sample]]:
    """Every source as it is now; a file that is gone, or no longer of rows, is told."""
    sources, samples = list[Source](), list[Sample]()
    runs = [folder / one["path"] for one in passport["sources"] if one["kind"] == "run"]  # all, or none
    try:
        for number, one in enumerate(passport["sources"]):
            path = folder / one["path"]
            if one["kind"] == "run" and not any((path / name).is_file() for name in READ):
                raise SuiteError(f"{one['path']} is not there: a page is moved together with what it was made from")
            if one["kind"] == "rows":
                if not path.is_file():
                    raise SuiteError(f"{one['path']} is not there: a page is moved together with its rows")
                source, rows = rows_file(path, number)
                sources.append(source)
                samples += rows if modern is None else modernised(rows, passport["plan"]["suite"], modern)
        if runs:
            sources, samples, _ = run_folders(runs)
    except SuiteError as error:
        found.problems.append(str(error))
        return [], []
    return sources, newest(samples)


def _rows(
    folder: Path, passport: Mapping[str, Any], sources: Sequence[Source], samples: Sequence[Sample], found: Inquiry
) -> None:
    """Every row that is not what it was, by the run that it is of."""
    now = {one.name: one for one in samples}
    before, problems = passport["samples"], len(found.problems)
    for name, one in before.items():
        run, path = _run(one["row"]), passport["sources"][one["source"]]["path"]
        if name not in now:
            found.problems.append(f"the row of {run} is gone from {path}")
            continue
        if odd := _unlike(one["row"], plain(now[name].row)):
            kept = passport["sources"][one["source"]]["parts"]
            source = sources[now[name].source]
            same = source.kind == "rows" and source.parts.get(str(now[name].line)) in kept.values()
            whose = "the page's passport of" if same else "the row of"
            found.problems.append(f"{whose} {run} has changed: {'; '.join(odd)}")
    for name in now.keys() - before.keys():
        found.problems.append(f"the page lacks the row of {_run(now[name].row)}, {_place(now[name], passport)}")
    if problems == len(found.problems):
        by_path = {one.path.resolve(): one for one in sources}
        for one in passport["sources"]:
            source = by_path[(folder / one["path"]).resolve()]
            if names := [
                name for name in {**one["parts"], **source.parts} if one["parts"].get(name) != source.parts.get(name)
            ]:
                which = f"line {names[0]}" if source.kind == "rows" else names[0]
                found.problems.append(
                    f"{one['path']} is not byte for byte what the page was made from (first {which}), though every row says the same"
                )


def _place(one: Sample, passport: Mapping[str, Any]) -> str:
    path = passport["sources"][one.source]["path"] if one.source < len(passport["sources"]) else "?"
    return f"line {one.line} of {path}" if one.line else f"in {path}"


def _run(row: Mapping[str, Any]) -> str:
    return f"{row['arm']} on {row['task']}, seed {row['seed']}"


def _unlike(before: Mapping[str, Any], now: Mapping[str, Any], at: str = "") -> list[str]:
    """In which fields, and how."""
    odd = []
    for name in dict.fromkeys((*before, *now)):
        theirs, ours = before.get(name), now.get(name)
        if theirs == ours and (name in before) == (name in now):
            continue
        if isinstance(theirs, Mapping) and isinstance(ours, Mapping):
            odd += _unlike(theirs, ours, f"{at}{name}.")
        elif isinstance(theirs, list) and isinstance(ours, list):
            where = next((i for i, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b), None)
            was = (
                f"{len(theirs)} values, now {len(ours)}"
                if where is None
                else f"number {where + 1} was {theirs[where]}, now {ours[where]}"
            )
            odd.append(f"{at}{name} ({was})")
        else:
            odd.append(f"{at}{name} (was {json.dumps(theirs)}, now {json.dumps(ours)})")
    return odd


def _numbers(shown: Parts, passport: Mapping[str, Any], fresh: Mapping[str, Any], found: Inquiry) -> None:
    """Every number of the page, in its text, its chart and its passport, against the same computed anew."""
    before, now = passport["numbers"], fresh["numbers"]
    for key in dict.fromkeys((*before, *now, *shown.texts, *shown.charts)):
        if key not in now:
            found.problems.append(f"the page has a number that its rows do not give: {key}")
            continue
        if key not in before:
            found.problems.append(f"the page lacks a number that its rows give: {key} is {now[key]['text']}")
            continue
        what, gives = f"{key} ({now[key]['how']})", now[key]["text"]
        if "chart" in now[key]["values"]:
            chart = shown.charts.get(key)
            if not _alike(chart, now[key]["values"]["chart"]) or not _alike(before[key]["values"], now[key]["values"]):
                found.problems.append(f"the page draws another chart than its rows give: {what}")
            continue
        stated = shown.texts.get(key)
        if stated is None:
            found.problems.append(f"the page does not show what its rows give: {what} is {gives}")
        elif stated != gives:
            found.problems.append(f"the page says {stated} where its rows give {gives}: {what}")
        elif before[key]["text"] != gives or not _alike(before[key]["values"], now[key]["values"]):
            theirs = f"{before[key]['text']} ({_listed(before[key]['values'])})"
            found.problems.append(
                f"the page's passport says {theirs} where its rows give {gives} ({_listed(now[key]['values'])}): {what}"
            )
        elif before[key]["of"] != now[key]["of"]:
            found.problems.append(f"the page's passport names other runs than those behind {what}")


def _alike(theirs: Any, ours: Any) -> bool:
    """Equal, numbers to a relative 1e-9."""
    if isinstance(theirs, Mapping) and isinstance(ours, Mapping):
        return theirs.keys() == ours.keys() and all(_alike(theirs[name], ours[name]) for name in ours)
    if isinstance(theirs, list) and isinstance(ours, list):
        return len(theirs) == len(ours) and all(map(_alike, theirs, ours))
    if isinstance(theirs, (int, float)) and isinstance(ours, (int, float)):
        return abs(theirs - ours) <= CLOSE * max(abs(theirs), abs(ours), 1e-300)
    return bool(theirs == ours)


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items() if not isinstance(value, (list, dict)))


def _films(passport: Mapping[str, Any], media: Sequence[bytes | None]) -> tuple[dict[str, tuple[Film, ...]], list[str]]:
    """Films as the page holds them: they are shown, and no number is computed from one."""
    left = iter(media)
    films, odd = dict[str, tuple[Film, ...]](), []
    for name, listed in passport["films"].items():
        mine = []
        for one in listed:
            data = next(left, b"") if one["sha256"] else None
            if data is not None and hashlib.sha256(data).hexdigest() != one["sha256"]:
                odd.append(f"{one['path']} in the page is not the film that it was made with")
            mine.append(Film(one["path"], one["size"], data))
        films[name] = tuple(mine)
    return films, odd


def _versions(by: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in by.items())


def _first_difference(one: str, other: str) -> int | None:
    if one == other:
        return None
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
