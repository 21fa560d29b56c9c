"""Normalised scores of a board -> what every arm reached over all tasks, profiles, and how likely one arm beats another.

Of every arm the tasks on which it has scores count, and a table says where these are not all. Entries whose conditions
differ are of no aggregate: what they mean is not one thing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape

import numpy as np

from wm_suite import aggregate
from wm_suite.aggregate import Estimate, estimate
from wm_suite.cells import Board, Sample
from wm_suite.chart import COLOURS, Line, chart_numbers, svg
from wm_suite.document import swatch
from wm_suite.passport import Passport, said
from wm_suite.statistics import Curve
from wm_suite.suite_curves import alt, numbers, plural_rows
from wm_suite.suite_tables import STRIP, Footnotes, framed, plural

STATISTICS = {
    "interquartile mean": aggregate.interquartile_mean,
    "mean": aggregate.mean,
    "median": aggregate.median,
    "optimality gap": aggregate.optimality_gap,
}
THRESHOLDS = 41  # of a profile
HOW = "{} of normalised scores over {}, {}; 95% stratified bootstrap interval over seeds"


@dataclass(frozen=True)
class Scored:
    """An arm's normalised scores by task, and the rows that they are of."""

    arm: str
    colour: int
    scores: Mapping[str, tuple[float, ...]]
    samples: tuple[Sample, ...]

    def rows(self, tasks: list[str] | None = None) -> list[tuple[float, ...]]:
        return [self.scores[task] for task in (self.scores if tasks is None else tasks)]


def normalised(
    board: Board, score: str, scale: Callable[[str, float], float | None]
) -> tuple[list[Scored], int, list[str]]:
    """Arms with their normalised scores, the number of tasks that count, and sentences about what is left out. scale: of
    a task's score; None where there is no reference for that task."""
    notes, found = [], []
    without = [task for task in board.tasks if scale(task, 0.0) is None]
    if without:
        notes.append(f"no reference scores, hence in no aggregate: {', '.join(without)}")
    unlike = [
        task
        for task in board.tasks
        if any(one.mark for arm in board.arms for one in board.entries.get((task, arm), ()))
    ]
    if unlike:
        notes.append(f"its conditions differ between entries, hence in no aggregate: {', '.join(unlike)}")
    for colour, arm in enumerate(board.arms):
        scores: dict[str, tuple[float, ...]] = {}
        samples: list[Sample] = []
        for task in board.tasks:
            for one in board.entries.get((task, arm), ()) if task not in without + unlike else ():
                values = [scale(task, sample.mean(score)) for sample in one.samples]
                scores[task] = tuple(value for value in values if value is not None and math.isfinite(value))
                samples += one.samples
        scores = {task: values for task, values in scores.items() if values}
        if scores:
            found.append(Scored(arm, colour, scores, tuple(samples)))
    return found, len(set(board.tasks) - {*without, *unlike}), notes


def aggregates(arms: list[Scored], tasks: int, book: Passport) -> str:
    """The table of statistics over tasks. tasks: that count."""
    footnotes = Footnotes("aggregate-note-")
    found = {(one.arm, name): estimate(statistic, one.rows()) for one in arms for name, statistic in STATISTICS.items()}
    scales = {name: _ends([found[one.arm, name] for one in arms]) for name in STATISTICS}
    lines = []
    for one in arms:
        runs = sum(map(len, one.scores.values()))
        doubts = []
        if len(one.scores) < tasks:
            doubts.append(
                f"{one.arm} has scores on {len(one.scores)} of {tasks} tasks: it does not compare with arms on all"
            )
        if any(len(values) < 2 for values in one.scores.values()):
            doubts.append("a task with one seed says nothing about seeds: no interval")
        cells = []
        for name in STATISTICS:
            value = found[one.arm, name]
            how = HOW.format(name, plural(len(one.scores), "task"), plural(runs, "run"))
            key = f"{name} over tasks: {one.arm}"
            number = book.number(
                key,
                interval(value),
                how,
                one.samples,
                value=float(value.value),
                low=float(value.low),
                high=float(value.high),
            )
            cells.append(f"<td>{number}{footnotes(doubts)}{_whisker(value, scales[name], one.colour)}</td>")
        lines.append(
            f'<tr><th scope="row">{swatch(one.colour)}{escape(one.arm)}</th>{"".join(cells)}<td>{len(one.scores)}</td><td>{runs}</td></tr>'
        )
    head = "".join(f'<th scope="col">{name}</th>' for name in ("arm", *STATISTICS, "tasks", "runs"))
    caption = (
        "Of normalised scores, with 95% stratified bootstrap intervals: what other seeds on these tasks could change."
    )
    return framed(caption, f"<tr>{head}</tr>", lines) + footnotes.list()


def improvements(arms: list[Scored], book: Passport) -> str:
    """The probability that a run of one arm scores above one of another, on the tasks that both have."""
    lines = []
    for ours in arms:
        cells = []
        for theirs in arms:
            tasks = [task for task in ours.scores if task in theirs.scores]
            if ours is theirs or not tasks:
                cells.append("<td>-</td>" if ours is theirs else '<td><span class="gap">no task in common</span></td>')
                continue
            value = estimate(aggregate.probability_of_improvement, ours.rows(tasks), theirs.rows(tasks))
            how = (
                f"probability that a run of {ours.arm} scores above one of {theirs.arm}, over {plural(len(tasks), 'task')}; "
                "95% stratified bootstrap interval over seeds"
            )
            key = f"improvement: {ours.arm} over {theirs.arm}"
            samples = [one for one in (*ours.samples, *theirs.samples) if one.key[0] in tasks]
            number = book.number(
                key,
                interval(value, "{:.2f}".format),
                how,
                samples,
                value=float(value.value),
                low=float(value.low),
                high=float(value.high),
            )
            cells.append(f"<td>{number}</td>")
        lines.append(f'<tr><th scope="row">{swatch(ours.colour)}{escape(ours.arm)}</th>{"".join(cells)}</tr>')
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in ("row above column", *(one.arm for one in arms)))
    return framed(
        "Probability that a run of the row's arm scores above one of the column's; equal scores count half.",
        f"<tr>{head}</tr>",
        lines,
    )


def profiles(arms: list[Scored], book: Passport) -> str:
    """The share of runs above every threshold of normalised score."""
    highest = max(max(map(max, one.rows())) for one in arms)
    thresholds = np.linspace(0, max(highest, 1e-9), THRESHOLDS)
    lines, samples = list[Line](), list[Sample]()
    for one in arms:
        value = estimate(lambda scores: aggregate.profile(scores, thresholds), one.rows())
        runs = sum(map(len, one.scores.values()))
        curve = Curve(
            thresholds, np.asarray(value.value), np.full(THRESHOLDS, np.nan), np.full(THRESHOLDS, runs, np.int64)
        )
        lines.append(Line(one.arm, one.colour, curve, (np.asarray(value.low), np.asarray(value.high))))
        samples += one.samples
    how = "share of runs whose normalised score is above the threshold; bands are 95% stratified bootstrap intervals over seeds"
    key, title = "profile", "share of runs above a normalised score"
    chart = book.keep(f"{key}, chart", "", how, samples, chart=chart_numbers(lines, float(thresholds[-1])))
    along = "normalised score"
    drawn = svg(lines, title=title, xlabel=along, alt=alt(title, along, lines), attributes=f' data-chart-of="{chart}"')
    behind = book.number(key, plural_rows(len(samples)), how, samples)
    return (
        f'<div class="curve">{drawn}<details><summary>numbers</summary>{numbers(lines, along)}</details>{behind}</div>'
    )


def interval(value: Estimate, say: Callable[[float], str] = said) -> str:
    """A number and its interval as text."""
    if not math.isfinite(value.low):
        return say(float(value.value))
    return f"{say(float(value.value))} [{say(float(value.low))}, {say(float(value.high))}]"


def _ends(values: list[Estimate]) -> tuple[float, float]:
    found = [float(end) for one in values for end in (one.value, one.low, one.high) if math.isfinite(end)]
    return min(found), max(found)


def _whisker(value: Estimate, scale: tuple[float, float], colour: int) -> str:
    """A dot and its interval; the numbers stand beside it."""
    width, height = STRIP
    span = (scale[1] - scale[0]) or 1.0
    low, middle, high = (
        4 + (float(one) - scale[0]) / span * (width - 8) for one in (value.low, value.value, value.high)
    )
    line = (
        f'<line class="whisker" x1="{low:.1f}" x2="{high:.1f}" y1="{height / 2}" y2="{height / 2}"/>'
        if math.isfinite(low)
        else ""
    )
    return (
        f'<svg class="strip" style="--c:var(--c{colour % COLOURS})" viewBox="0 0 {width} {height}" aria-hidden="true">'
        f'<line class="grid" x1="0" x2="{width}" y1="{height / 2}" y2="{height / 2}"/>{line}'
        f'<circle class="dot" r="3" cx="{middle:.1f}" cy="{height / 2}"/></svg>'
    )
