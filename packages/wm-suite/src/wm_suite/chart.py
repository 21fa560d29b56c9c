"""Curves -> one SVG line chart, for a page that takes its colours from CSS variables and needs nothing from outside."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from wm_suite.statistics import Curve, Floats

WIDTH, HEIGHT = 380, 230
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 10, 34
COLOURS = 8  # --c0 .. --c7 of the page; further lines take them again, dashed


@dataclass(frozen=True)
class Line:
    """A curve with its name and its colour's number, the same in all charts of a page."""

    label: str
    colour: int
    curve: Curve
    band: tuple[Floats, Floats] | None = None  # low and high, where the interval is not the mean +- its error

    @property
    def bounds(self) -> tuple[Floats, Floats]:
        """Low and high ends of the interval, nan where there is none."""
        return self.band or (self.curve.mean - self.curve.error, self.curve.mean + self.curve.error)


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers within low .. high, about as many as asked.

    >>> ticks(0, 97), ticks(-0.012, 0.03)
    ([0.0, 25.0, 50.0, 75.0], [-0.01, 0.0, 0.01, 0.02, 0.03])
    """
    span = high - low
    if not (math.isfinite(span) and span > 0):
        return [low]
    rough = span / about
    unit = 10.0 ** math.floor(math.log10(rough))
    step = min((unit * m for m in (1, 2, 2.5, 5, 10)), key=lambda one: abs(one - rough))
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 12) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def short(value: float) -> str:
    """A number in a few characters.

    >>> [short(v) for v in (0, 16000, 2500000, 0.25, -0.00123, 1234.5, float("nan"))]
    ['0', '16k', '2.5M', '0.25', '-0.00123', '1.23k', '?']
    """
    if not math.isfinite(value):
        return "?"
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def svg(
    lines: Sequence[Line], *, title: str, xlabel: str = "environment steps", alt: str = "", attributes: str = ""
) -> str:
    """The chart as SVG text with its numbers in `data-chart`. Where not every seed of a curve has a value, its line is
    faint.

    Args:
        lines: in the order in which they are drawn.
        title: above it.
        xlabel: under it.
        alt: what it shows, for those who do not see it; else its title.
        attributes: more of the figure, as HTML.
    """
    x = np.concatenate([line.curve.x for line in lines])
    means = np.concatenate([line.curve.mean for line in lines])
    bottoms, tops = (np.concatenate([line.bounds[end] for line in lines]) for end in (0, 1))
    bottoms, tops = np.where(np.isnan(bottoms), means, bottoms), np.where(np.isnan(tops), means, tops)
    if not np.isfinite(tops).any():
        return ""
    low, high = float(np.nanmin(bottoms)), float(np.nanmax(tops))
    margin = (high - low) * 0.05 or abs(high) * 0.05 or 0.5
    low, high, end = low - margin, high + margin, float(x.max()) or 1.0  # all at step 0
    inner_w, inner_h = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def at(px: float, py: float) -> str:
        return f"{LEFT + px / end * inner_w:.1f},{TOP + (high - py) / (high - low) * inner_h:.1f}"

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(alt or title, quote=True)}">']
    for tick in ticks(low, high):
        y = at(0, tick).split(",")[1]
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{float(y) + 3.5:.1f}" text-anchor="end">{short(tick)}</text>')
    for tick in ticks(0, end):
        px = at(tick, 0).split(",")[0]
        anchor = "end" if tick > 0.97 * end else "middle"
        parts.append(f'<text x="{px}" y="{HEIGHT - BOTTOM + 14}" text-anchor="{anchor}">{short(tick)}</text>')
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM}"/>')
    parts.append(f'<text x="{LEFT + inner_w / 2}" y="{HEIGHT - 4}" text-anchor="middle">{escape(xlabel)}</text>')
    for line in lines:
        parts += _drawn(line, at)
    parts.append(f'<line class="cursor" y1="{TOP}" y2="{HEIGHT - BOTTOM}" x1="-9" x2="-9"/></svg>')
    numbers = escape(json.dumps(chart_numbers(lines, end)), quote=True)
    return f'<figure class="chart"{attributes} data-chart="{numbers}"><figcaption>{escape(title)}</figcaption>{"".join(parts)}</figure>'


def _drawn(line: Line, at: object) -> list[str]:
    """Bands and strokes of one line."""
    assert callable(at)
    curve, parts = line.curve, []
    style = f'style="--c:var(--c{line.colour % COLOURS})" data-line="{line.colour}"'
    dash = ' stroke-dasharray="5 3"' if line.colour >= COLOURS else ""
    low, high = line.bounds
    for run in _runs(np.isfinite(low) & np.isfinite(high)):
        upper = [at(curve.x[i], high[i]) for i in run]
        lower = [at(curve.x[i], low[i]) for i in reversed(run)]
        parts.append(f'<polygon class="band" {style} points="{" ".join(upper + lower)}"/>')
    there = np.isfinite(curve.mean)
    whole = there & (curve.count == curve.count.max())
    for run in _runs(there):
        points = [at(curve.x[i], curve.mean[i]) for i in run]
        if len(run) == 1:
            parts.append(
                f'<circle class="dot" {style} r="2" cx="{points[0].split(",")[0]}" cy="{points[0].split(",")[1]}"/>'
            )
            continue
        if not whole[run].all():
            parts.append(f'<polyline class="faint" {style} points="{" ".join(points)}"/>')
    for run in _runs(whole):
        if len(run) > 1:
            points = [at(curve.x[i], curve.mean[i]) for i in run]
            parts.append(f'<polyline class="line" {style}{dash} points="{" ".join(points)}"/>')
    return parts


def _runs(mask: np.ndarray) -> list[list[int]]:
    """Unbroken stretches of True, as indices."""
    stretches: list[list[int]] = []
    for i in np.flatnonzero(mask).tolist():
        if stretches and stretches[-1][-1] == i - 1:
            stretches[-1].append(i)
        else:
            stretches.append([i])
    return stretches


def chart_numbers(lines: Sequence[Line], end: float) -> dict[str, Any]:
    """What the tooltip says; null for nan."""

    def plain(values: np.ndarray) -> list[float | None]:
        return [float(f"{v:.4g}") if math.isfinite(v) else None for v in values.tolist()]

    return {
        "box": [LEFT, WIDTH - RIGHT, WIDTH],
        "end": end,
        "lines": [
            {
                "label": line.label,
                "colour": line.colour % COLOURS,
                "id": line.colour,
                "x": plain(line.curve.x),
                "mean": plain(line.curve.mean),
                "error": plain(line.curve.error),
                "count": line.curve.count.tolist(),
                **({} if line.band is None else {"band": [plain(one) for one in line.band]}),
            }
            for line in lines
        ],
    }
