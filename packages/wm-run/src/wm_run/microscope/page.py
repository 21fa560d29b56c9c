"""Measures of runs, in groups of seeds -> one HTML page with tables, curves and films; it needs nothing else.

wm-suite's charts and document, from the extra `plot`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from wm_suite.chart import COLOURS, Line, svg
from wm_suite.document import document, legend, swatch
from wm_suite.statistics import Curve, over_seeds

DASHED = 10 * COLOURS  # added to a line's colour: the same hue, dashed
GREY = 7
Values = Sequence[float | None]


@dataclass(frozen=True)
class Group:
    """Runs that differ by the seed, and what was measured of each."""

    label: str
    runs: tuple[Mapping[str, Any], ...]

    def each(self, *path: str) -> list[Any]:
        """What lies under these keys, of every run that has it."""
        found: list[Any] = list(self.runs)
        for name in path:
            found = [one[name] for one in found if one.get(name) is not None]
        return found


def page(result: Mapping[str, Any], groups: Sequence[Group], films: Sequence[str]) -> str:
    """The whole page as HTML text."""
    about = result["rows"]
    body = ["<h1>Microscope</h1>", *(f'<p class="mark">{escape(note)}</p>' for note in result["notes"])]
    body.append(
        f'<p class="about">{about["rows"]} rows of {escape(str(about["source"]))}: {about["context"]} records are observed, then '
        f"{about['imagined']} steps imagined under the recorded actions. The same rows for every run. Lines are means over "
        "seeds, bands one standard error of that mean; one seed has no band. Numbers at a step ahead are of the rows whose "
        "episode still goes on there.</p>"
    )
    body.append(_runs(groups))
    body.append(legend((i, one.label, len(one.runs)) for i, one in enumerate(groups)))
    body += [f'<h2>Films</h2><div class="films">{"".join(films)}</div>'] if films else []
    body += [_openloop(groups), _probes(groups), _reward(groups), _continue(groups), _own(groups), _value(groups)]
    body += [_latents(groups), _recalled(groups), _past(groups)]
    return document("Microscope", body)


def _runs(groups: Sequence[Group]) -> str:
    head = ["run", "seeds", "task", "step", "parameters", "records seen", "marks"]
    rows = []
    for i, one in enumerate(groups):
        first = one.runs[0]
        steps = sorted({run["step"] for run in one.runs})
        marks = "; ".join(dict.fromkeys(mark for run in one.runs for mark in run["marks"]))
        cells = [
            ", ".join(str(run["seed"]) for run in one.runs),
            first["task"],
            " to ".join(f"{s:,}" for s in steps[:: max(1, len(steps) - 1)]),
        ]
        cells += [f"{first['parameters']:,}", str(first["sees"]), marks]
        rows.append([swatch(i) + escape(one.label), *map(escape, cells)])
    return _table(head, rows)


def _openloop(groups: Sequence[Group]) -> str:
    keys = dict.fromkeys(key for one in groups for run in one.runs for key in run["errors"])
    charts, rows = [], []
    for key in keys:
        lines = [
            Line(one.label, i, curve(one.each("errors", key, "model")))
            for i, one in enumerate(groups)
            if one.each("errors", key)
        ]
        base = next(run["errors"][key] for one in groups for run in one.runs if key in run["errors"])
        lines.append(Line("the last frame repeated", GREY + DASHED, curve([base["copy"]])))
        lines.append(Line("the mean frame", GREY + 2 * DASHED, curve([base["mean"]])))
        charts.append(svg(lines, title=f"error of {key}", xlabel="steps ahead"))
        for line in lines:
            at = [h for h in (1, 5, 15, 45) if h <= len(line.curve.x)]
            cells = [f"+{h}: {_spread(line.curve.mean[h - 1], line.curve.error[h - 1])}" for h in at]
            rows.append([escape(key), swatch(line.colour) + escape(line.label), *cells])
    width = max(map(len, rows), default=0)
    table = _table(["observation", "run", *[""] * (width - 2)], [row + [""] * (width - len(row)) for row in rows])
    return _section(
        "Open loop",
        "Mean squared error of pixels or entries; of discrete values the share that is wrong.",
        charts,
        table,
    )


def _probes(groups: Sequence[Group]) -> str:
    names = dict.fromkeys(name for one in groups for run in one.runs for name in run["probes"])
    charts = []
    for name in names:
        lines, kind = [], ""
        for i, one in enumerate(groups):
            found = one.each("probes", name)
            if found:
                kind = found[0]["kind"]
                lines.append(Line(one.label, i, curve([f["dream"] for f in found], 0)))
                lines.append(Line(f"{one.label}, posterior", i + DASHED, curve([f["posterior"] for f in found], 0)))
        first = next(run["probes"][name] for one in groups for run in one.runs if name in run["probes"])
        lines.append(Line("without any state", GREY + 2 * DASHED, curve([first["baseline"]], 0)))
        charts.append(svg(lines, title=f"{name}: {kind}", xlabel="steps ahead"))
    text = (
        "What the suite tells of the state and no encoder sees, read off the world model's state by a linear probe that was "
        "fitted to posterior states of half of the rows: in the dream of the other half, and (dashed) in its posterior of the same steps."
    )
    return _section("What the state holds", text, charts)


def _reward(groups: Sequence[Group]) -> str:
    ahead = [Line(one.label, i, curve(one.each("reward", "ahead"))) for i, one in enumerate(groups)]
    base = groups[0].runs[0]["reward"]["ahead_mean"]
    ahead.append(Line("the mean reward", GREY + DASHED, curve([base])))
    gaps = _gaps(groups, "reward")
    charts = [svg(ahead, title="squared error of the imagined reward", xlabel="steps ahead")]
    charts.append(svg(gaps, title="predicted - arrived, by tenths of the prediction", xlabel="tenth"))
    names = ("bias", "mae", "rmse", "paid_mae", "correlation")
    head = [
        "run",
        "bias",
        "mean absolute error",
        "root of the squared",
        "error where there was a reward",
        "correlation",
    ]
    return _section(
        "Reward", "At posterior states of every record but resets.", charts, _numbers(groups, "reward", names, head)
    )


def _continue(groups: Sequence[Group]) -> str:
    lines = []
    for i, one in enumerate(groups):
        bins = [
            [said if n else None for said, n in zip(r["continue"]["said"], r["continue"]["count"], strict=True)]
            for r in one.runs
        ]
        came = [
            [c if n else None for c, n in zip(r["continue"]["came"], r["continue"]["count"], strict=True)]
            for r in one.runs
        ]
        x, y = over_seeds(_array(bins))[0], curve(came)
        there = np.isfinite(x)
        lines.append(Line(one.label, i, Curve(x[there], y.mean[there], y.error[there], y.count[there])))
    ends = np.array([0.0, 1.0])
    lines.append(Line("calibrated", GREY + DASHED, Curve(ends, ends, ends * np.nan, np.array([1, 1]))))
    charts = [svg(lines, title="went on, where so much was said", xlabel="predicted probability of going on")]
    head = ["run", "Brier score", "calibration error", "share that went on"]
    return _section("Continue", "", charts, _numbers(groups, "continue", ("brier", "ece", "rate"), head))


def _own(groups: Sequence[Group]) -> str:
    if not any(run["own"] for one in groups for run in one.runs):
        return ""
    charts = []
    for what, title in (("reward", "reward of a step"), ("end", "how often it ends")):
        lines = []
        for i, one in enumerate(groups):
            if one.each("own"):
                lines.append(Line(f"{one.label}, own actions", i, curve(one.each("own", what, "own"))))
                lines.append(
                    Line(f"{one.label}, recorded actions", i + DASHED, curve(one.each("own", what, "recorded")))
                )
        came = next(run["own"][what]["came"] for one in groups for run in one.runs if run["own"])
        charts.append(svg([*lines, Line("what came", GREY, curve([came]))], title=title, xlabel="steps ahead"))
    text = (
        "Dreams under the policy's own actions, and (dashed) under the recorded ones, where in reality no end had come yet. If the "
        "rows are of the run's own play, own dreams that pay more or end less often than what came are errors of the model that "
        "its policy has found. Below, sums over the steps."
    )
    names = [f"{what}_{name}" for what in ("reward", "end") for name in ("own", "recorded", "came")]
    head = ["run", *(f"{what}, {name}" for what in ("reward", "ends") for name in ("own", "recorded", "came"))]
    return _section("Own dreams", text, charts, _numbers(groups, "own", names, head))


def _value(groups: Sequence[Group]) -> str:
    if not any(run["value"] for one in groups for run in one.runs):
        return ""
    text = (
        "Predicted value minus the discounted return that was recorded, up to an end within the row, as the model learns ends. "
        "Rows that are shorter than some episodes hold the ends of short ones alone. Who recorded them may have played otherwise "
        "than the run's policy: then a bias is no fault."
    )
    charts = [svg(_gaps(groups, "value"), title="value - return, by tenths of the value", xlabel="tenth")]
    head = ["run", "bias", "mean absolute error", "correlation", "steps"]
    return _section("Value", text, charts, _numbers(groups, "value", ("bias", "mae", "correlation", "steps"), head))


def _latents(groups: Sequence[Group]) -> str:
    lines = [Line(one.label, i, curve(one.each("latents", "kl"))) for i, one in enumerate(groups)]
    charts = [svg(lines, title="KL of each latent, nats", xlabel="latents, by what they tell")]
    names = ("kl_sum", "dead_latents", "latents", "dead_codes", "posterior_entropy")
    head = ["run", "KL", "latents below 0.01 nat", "of", "share of classes never used", "entropy of the posterior"]
    return _section("Latents", "", charts, _numbers(groups, "latents", names, head))


def _recalled(groups: Sequence[Group]) -> str:
    if not any(run["recalled"] for one in groups for run in one.runs):
        return ""
    lines = [
        Line(one.label, i, curve([r["share"] for r in found], 0))
        for i, one in enumerate(groups)
        if (found := one.each("recalled"))
    ]
    charts = [svg(lines, title="share of what was recalled", xlabel="age, in powers of 2 of steps")]
    head = ["run", "median age", "share of earlier episodes", "recalled at a time"]
    return _section("Recalled", "", charts, _numbers(groups, "recalled", ("median_age", "earlier", "found"), head))


def _past(groups: Sequence[Group]) -> str:
    charts = []
    lines = [Line(one.label, i, curve(one.each("past", "gradient_share"), 0)) for i, one in enumerate(groups)]
    charts.append(svg(lines, title="share of the state's gradient", xlabel="records ago"))
    for kind in ("errors", "probes"):
        for key in dict.fromkeys(key for one in groups for run in one.runs for key in run["past"][kind]):
            lines = []
            for i, one in enumerate(groups):
                found = [run for run in one.runs if key in run["past"][kind]]
                if found:
                    x = np.array(found[0]["past"]["lengths"], np.float64)
                    alike = [
                        run["past"][kind][key] for run in found if run["past"]["lengths"] == found[0]["past"]["lengths"]
                    ]
                    rough = curve(alike)
                    lines.append(Line(one.label, i, Curve(x, rough.mean, rough.error, rough.count)))
            title = f"error of {key}, first steps ahead" if kind == "errors" else f"probe of {key}"
            charts.append(svg(lines, title=title, xlabel="records of the context that are seen"))
    text = (
        "How far back a past record still matters: the gradient of the deterministic state one step into the dream by what was "
        "seen so many records ago (as a share of all, for states have units of their own), and what is foreseen and held where all "
        "that is older was never seen."
    )
    return _section("The past", text, charts)


def _gaps(groups: Sequence[Group], name: str) -> list[Line]:
    """Predicted minus arrived in each bin."""
    lines = []
    for i, one in enumerate(groups):
        found = one.each(name)
        gaps = [[a - b for a, b in zip(each["said"], each["came"], strict=True)] for each in found]
        if gaps:
            lines.append(Line(one.label, i, curve(gaps)))
    return lines


def curve(rows: Sequence[Values], begin: int = 1) -> Curve:
    """Of each run a value at begin, begin + 1, ... -> means over runs. None is no value, and so is what a shorter one lacks.

    >>> curve([[1.0, None], [3.0, 4.0]]).mean.tolist()
    [2.0, 4.0]
    """
    mean, error, count = over_seeds(_array(rows))
    return Curve(np.arange(begin, begin + len(mean), dtype=np.float64), mean, error, count)


def _array(rows: Sequence[Values]) -> Any:
    longest = max(map(len, rows))
    return np.array(
        [[np.nan if v is None else v for v in row] + [np.nan] * (longest - len(row)) for row in rows], np.float64
    )


def _numbers(groups: Sequence[Group], part: str, names: Sequence[str], head: Sequence[str]) -> str:
    rows = []
    for i, one in enumerate(groups):
        cells = []
        for name in names:
            found = one.each(part, name)
            mean, error, _ = over_seeds(np.array([[v] for v in found], np.float64)) if found else (None, None, None)
            cells.append("" if mean is None or error is None else _spread(mean[0], error[0]))
        rows.append([swatch(i) + escape(one.label), *cells])
    return _table(head, rows)


def _spread(mean: float, error: float) -> str:
    if not math.isfinite(mean):
        return ""
    return f"{mean:.4g}" + (f" &plusmn; {error:.2g}" if math.isfinite(error) else "")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells are HTML."""
    text = "".join(f"<tr>{''.join(f'<td>{cell}' for cell in row)}</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{"".join(f"<th>{escape(name)}" for name in head)}</tr>{text}</table></div>'


def _section(title: str, about: str, charts: Sequence[str], table: str = "") -> str:
    drawn = "".join(charts)
    if not drawn and not table:
        return ""
    text = f'<p class="about">{escape(about)}</p>' if about else ""
    return f'<h2>{title}</h2>{text}<div class="charts">{drawn}</div>{table}'
