"""Rows of the suite six -> docs/results/six.md: six world models at equal updates and at equal FLOPs, and a picture a recording."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import six_picture
import six_recall
from six_readings import (
    Asked,
    At,
    Row,
    asked_of,
    cell,
    first,
    headed,
    last,
    line,
    logged,
    number,
    of_arm,
    or_nan,
    ratio,
    there,
    value,
)
from wm_suite.rows import of_suite, read_rows
from wm_suite.suites import read

HORIZONS = (1, 5, 15)
FULL, PLAIN = "po_dreamer", "dreamer"  # the verdict's two arms
ABOUT = """Made by `uv run tools/six_models.py table six`. The world model alone, learned from the same recording; errors on
the same held-out rows, after 48 records of context; mean over seeds and 95% interval of Student's t, one seed without. Open-loop errors
are mean squared errors of the first observation (pixels in [0, 1]), those of the reward squared too. Between two checkpoints numbers are
read linearly, and nowhere beyond them: where an arm has no checkpoint yet its cell is empty and said so."""
EQUAL_FLOPS = """An arm is read where it has computed as much as the cheapest at its end. Who has no checkpoint by then
is compared once more where the last of these has its first; arms that ended before that stand there with their end, and with the
share of these FLOPs that they used."""


def write(suite: str, folder: Path) -> Path:
    """docs/results/SUITE.md, and its pictures, from SUITE.jsonl, SUITE-cost.json and SUITE-controls.json, as far as they are there."""
    made = read(Path(__file__).parent / "suites" / f"{suite}.toml")
    rows = of_suite(made, read_rows(folder / f"{suite}.jsonl"))
    costs, controls = (_read(folder / f"{suite}-{name}.json") for name in ("cost", "controls"))
    path, asked = folder / f"{suite}.md", asked_of(made.cells)
    text = six(rows, costs, asked, folder) if suite == "six" else six_recall.page(rows, costs, controls, asked)
    path.write_text("\n".join([*text, ""]), encoding="utf-8")
    return path


def _read(path: Path) -> list[Row]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def six(rows: Sequence[Row], costs: Sequence[Row], asked: Asked, folder: Path | None = None) -> list[str]:
    """Both tables of every recording, and what they say of the full model; folder: where pictures go, None for no pictures."""
    text = ["# Six world models, the same recordings", "", ABOUT, ""]
    for task, arms in asked.items():
        mine = [row for row in rows if row["task"] == task]
        text += [f"## {task}", "", there(mine, arms), ""]
        flops = {one["arm"]: one["flops"] for one in costs if one["task"] == task}
        parts = {one["arm"]: one["parameters"] for one in costs if one["task"] == task}
        text += [*sizes(parts, flops), ""]
        if not mine:
            continue
        if folder is not None:
            picture = folder / f"six-{task.partition('_')[2] or task}.png"
            six_picture.draw(mine, list(arms), picture)
            text += [f"![Held-out losses over updates, and open-loop errors by horizon]({picture.name})", ""]
        made = min(map(last, mine))
        text += [f"### Equal updates: {made:,}", "", *reading(mine, arms, after(made)), ""]
        if any(row["arm"] not in flops for row in mine):
            text += ["### Equal FLOPs", "", "FLOPs are not counted: `uv run tools/six_models.py cost six`.", ""]
            continue
        for at_budget, budget in enumerate(budgets(mine, flops)):
            text += [f"### Equal FLOPs: {budget:.3g}", ""] + ([EQUAL_FLOPS, ""] if not at_budget else [])
            wanted = {arm: budget / of for arm, of in flops.items()}
            text += [*reading(mine, arms, ended(wanted) if at_budget else computed(wanted), wanted), ""]
    return text


def budgets(rows: Sequence[Row], flops: Mapping[str, float]) -> list[float]:
    """FLOPs at which arms are compared: those of the cheapest run at its end and, where arms have no checkpoint by then,
    those of the last of their first checkpoints.

    >>> runs = [{"arm": arm, "checkpoints": [[100], [200]]} for arm in "ab"]
    >>> budgets(runs, {"a": 1.0, "b": 1.5}), budgets(runs, {"a": 1.0, "b": 9.0})
    ([200.0], [200.0, 900.0])
    """
    end = min(flops[row["arm"]] * last(row) for row in rows)
    begun = max(flops[row["arm"]] * first(row) for row in rows)
    return [end] if begun <= end else [end, begun]


def after(made: float) -> At:
    """Every run after as many updates."""
    return lambda row: made


def computed(wanted: Mapping[str, float]) -> At:
    """Every run after the updates of its arm."""
    return lambda row: wanted[row["arm"]]


def ended(wanted: Mapping[str, float]) -> At:
    """The same, or at its end where it has not made so many."""
    return lambda row: min(wanted[row["arm"]], last(row))


def reading(
    rows: Sequence[Row], arms: Mapping[str, int], at: At, wanted: Mapping[str, float] | None = None
) -> list[str]:
    """The tables and verdicts of one reading. wanted: updates of every arm at equal FLOPs."""
    text = [*foresight(rows, arms, at, wanted), "", *notes(rows, at), *verdicts(rows, arms, at), ""]
    return [*text, *held_out(rows, arms, at)]


def sizes(parts: Mapping[str, Mapping[str, int]], flops: Mapping[str, float]) -> list[str]:
    """Parameters by part in thousands, FLOPs of an update."""
    if not parts:
        return ["Parameters and FLOPs are not counted: `uv run tools/six_models.py cost six`."]
    lines = headed(["arm", "encoder", "decoder", "heads", "dynamics", "all", "GFLOP an update"])
    for arm, of in parts.items():
        heads = sum(of.get(name, 0) for name in ("reward", "cont"))
        each = [of["encoder"], of["decoder"], heads, of["dynamics"], of["total"]]
        lines.append(line([arm, *(f"{one / 1e3:,.0f}k" for one in each), f"{flops[arm] / 1e9:,.1f}"]))
    return lines


def foresight(
    rows: Sequence[Row], arms: Mapping[str, int], at: At, wanted: Mapping[str, float] | None = None
) -> list[str]:
    """Errors by horizon, of the first observation and of the reward."""
    names = [f"+{h}" for h in HORIZONS] + [f"reward +{h}" for h in HORIZONS]
    lines = headed(["arm", *names, *([] if wanted is None else ["updates", "of the FLOPs"]), "seeds"])
    for arm, count in arms.items():
        mine = of_arm(rows, arm)
        if not mine:
            lines.append(line([arm, *["not run"] * len(names), *([] if wanted is None else ["", ""]), f"0 of {count}"]))
            continue
        cells = [cell([value(row, at(row), kind, h) for row in mine]) for kind in ("seen", "reward") for h in HORIZONS]
        if wanted is not None:
            used = min(at(row) for row in mine)
            cells += [f"{used:,.0f}", f"{used / wanted[arm]:.0%}"]
        lines.append(line([arm, *cells, f"{len(mine)} of {count}"]))
    base = rows[0]["microscope"]["errors"]
    known, mean = base[next(iter(base))], rows[0]["microscope"]["reward"]["ahead_mean"]
    rest = [""] * (1 if wanted is None else 3)
    lines.append(
        line(["the last frame repeated", *(_at(known["copy"], h) for h in HORIZONS), *[""] * len(HORIZONS), *rest])
    )
    means = [_at(of, h) for of in (known["mean"], mean) for h in HORIZONS]
    return [*lines, line(["the mean frame, the mean reward", *means, *rest])]


def _at(values: Sequence[float | None], horizon: int) -> str:
    return number(or_nan(values[horizon - 1])) if horizon <= len(values) else ""


def notes(rows: Sequence[Row], at: At) -> list[str]:
    """Why cells are empty."""
    late = {row["arm"]: (first(row), at(row)) for row in rows if at(row) < first(row) * (1 - 1e-9)}
    each = [
        f"{arm} has made {made:,.0f} updates here, and its first checkpoint is after {begun:,}"
        for arm, (begun, made) in late.items()
    ]
    return [f"No number: {'; '.join(each)}. Its held-out losses reach, below.", ""] if each else []


def held_out(rows: Sequence[Row], arms: Mapping[str, int], at: At) -> list[str]:
    """Losses on held-out episodes, as the runs logged them: finer in updates than the checkpoints. Those of observations are
    in every method's own units."""
    names = list(dict.fromkeys(name for row in rows for _, of in row["losses"] for name in of))
    if not names:
        return ["No held-out losses were logged."]
    lines = headed(["held-out loss", *(name.rpartition("/")[2] for name in names)])
    for arm in arms:
        if mine := of_arm(rows, arm):
            lines.append(line([arm, *(cell([logged(row, at(row), name) for row in mine]) for name in names)]))
    return lines


def verdicts(rows: Sequence[Row], arms: Mapping[str, int], at: At) -> list[str]:
    """Whether the full PO-Dreamer foresees better than Dreamer, in open loop and by the held-out losses that both have; then
    its errors over those of every other arm."""
    names = list(dict.fromkeys(name for row in of_arm(rows, PLAIN) for _, of in row["losses"] for name in of))
    lines = [verdict(rows, at)]
    pair = (FULL, PLAIN)
    losses = [(name.rpartition("/")[2], ratio(rows, pair, _losses(at, name))) for name in names]
    ratios = [f"{name} {_ratio(found)}" for name, found in losses if found]
    if ratios:
        lines += ["", f"Its held-out losses over Dreamer's: {', '.join(ratios)}."]
    others = [arm for arm in arms if arm != FULL and of_arm(rows, arm)]
    table = headed(["PO-Dreamer's errors over those of", "open loop", "reward"])
    for arm in others:
        found = [ratio(rows, (FULL, arm), _errors(at, kind)) for kind in ("seen", "reward")]
        if any(found):
            table.append(line([arm, *(_ratio(one) if one else "" for one in found)]))
    return lines if len(table) == 2 else [*lines, "", *table]


def verdict(rows: Sequence[Row], at: At) -> str:
    """Whether the full PO-Dreamer foresees better than Dreamer, over the horizons of each: seeds paired."""
    found = ratio(rows, (FULL, PLAIN), _errors(at, "seen"))
    if found is None:
        return "No verdict on PO-Dreamer against Dreamer: no seed has a number of both here."
    mean, low, high, pairs = found
    if pairs < 2:
        return f"One seed, no verdict: PO-Dreamer errs {mean:.3f} times as much as Dreamer."
    word = "less" if high < 1 else "more" if low > 1 else "neither less nor more, as far as these seeds tell,"
    return f"PO-Dreamer errs {word} than Dreamer: {mean:.3f} times as much [{low:.3f}, {high:.3f}], n={pairs}."


def _errors(at: At, kind: str) -> Callable[[Row], list[float]]:
    return lambda row: [value(row, at(row), kind, h) for h in HORIZONS]


def _losses(at: At, name: str) -> Callable[[Row], list[float]]:
    return lambda row: [logged(row, at(row), name)]


def _ratio(found: tuple[float, float, float, int]) -> str:
    mean, low, high, pairs = found
    return f"{mean:.3f}" + (f" [{low:.3f}, {high:.3f}]" if pairs > 1 else "")
