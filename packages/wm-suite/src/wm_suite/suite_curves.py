"""A board -> learning curves of every task with intervals over seeds, and the same numbers as a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import numpy as np

from wm_suite.cells import Board, Entry, Sample
from wm_suite.chart import COLOURS, Line, chart_numbers, short, svg
from wm_suite.groups import POINTS
from wm_suite.passport import Passport, said
from wm_suite.statistics import Curve, binned, over_seeds


def curve(entry: Entry, end: float) -> Curve | None:
    """Training scores over steps 0 .. end, at no more points than the longest of the seeds' own curves has."""
    kept = [np.array(found, np.float64).T for one in entry.samples if (found := one.row.get("curve"))]
    if not kept:
        return None
    points = min(POINTS, max(steps.shape[-1] for steps in kept))
    rows = np.stack([binned(steps, values, end, points) for steps, values in kept])
    return Curve(np.linspace(0, end, points + 1)[1:], *over_seeds(rows))


def curves(board: Board, task: str, book: Passport) -> str:
    """The chart of a task, what is behind it, and its numbers; "" where no row kept a curve."""
    entries = [
        (i, n, one) for i, arm in enumerate(board.arms) for n, one in enumerate(board.entries.get((task, arm), ()))
    ]
    reached = [sample.row["curve"][-1][0] for _, _, one in entries for sample in one.samples if sample.row.get("curve")]
    end = float(max(reached, default=0))
    lines, samples = list[Line](), list[Sample]()
    for colour, variant, one in entries:
        if (found := curve(one, end)) is not None:
            label = one.arm + (f" [{one.mark}]" if one.mark else "")
            lines.append(Line(label, colour + variant * 10 * COLOURS, found))
            samples += one.samples
    if not lines or not any(np.isfinite(line.curve.mean).any() for line in lines):
        return ""
    key = f"curves: {task}"
    how = "mean training score over seeds in equal spans of steps; bands plus or minus one standard error over seeds"
    chart = book.keep(f"{key}, chart", "", how, samples, chart=chart_numbers(lines, end))
    marked = f' data-chart-of="{escape(chart, quote=True)}"'
    drawn = svg(lines, title=task, alt=alt(task, "environment steps", lines), attributes=marked)
    text = plural_rows(len(samples))
    behind = book.number(key, text, how, samples, steps=end)
    return f'<div class="curve">{drawn}<details><summary>numbers</summary>{numbers(lines, "steps")}</details>{behind}</div>'


def plural_rows(count: int) -> str:
    return f"{count:,} row{'s' * (count != 1)} behind it"


def alt(what: str, along: str, lines: Sequence[Line]) -> str:
    """What a chart shows, in words."""
    ends = []
    for line in lines:
        there = np.flatnonzero(np.isfinite(line.curve.mean))
        if len(there):
            ends.append(f"{line.label} ends at {said(float(line.curve.mean[there[-1]]))}")
    return f"{what}, over {along}: {'; '.join(ends)}"


def numbers(lines: Sequence[Line], along: str) -> str:
    """The values of a chart as a table."""
    at = list(
        dict.fromkeys(x for line in sorted(lines, key=lambda one: -len(one.curve.x)) for x in line.curve.x.tolist())
    )
    head = "".join(f'<th scope="col">{escape(line.label)}</th>' for line in lines)
    body = []
    for x in sorted(at):
        cells = []
        for line in lines:
            found = np.flatnonzero(line.curve.x == x)
            mean = float(line.curve.mean[found[0]]) if len(found) else math.nan
            low, high = (float(end[found[0]]) if len(found) else math.nan for end in line.bounds)
            spread = f" [{said(low)}, {said(high)}]" if math.isfinite(low) else ""
            cells.append(f"<td>{said(mean)}{spread}</td>" if math.isfinite(mean) else "<td></td>")
        body.append(f'<tr><th scope="row">{short(x)}</th>{"".join(cells)}</tr>')
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="numbers of the chart"><table><thead><tr>'
        f'<th scope="col">{along}</th>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'
    )
