"""Rows of the suites six and recall -> their tables, in Markdown: at equal updates, at equal FLOPs, and what was recalled."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats  # type: ignore[import-untyped]
from wm_suite.rows import read_rows
from wm_suite.statistics import over_seeds

HORIZONS = (1, 5, 15)
FULL, PLAIN = "po_dreamer", "dreamer"  # the verdict's two arms
Row = Mapping[str, Any]


def write(suite: str, folder: Path) -> Path:
    """docs/results/SUITE.md from SUITE.jsonl and SUITE-cost.json."""
    rows = read_rows(folder / f"{suite}.jsonl")
    costs = json.loads((folder / f"{suite}-cost.json").read_text(encoding="utf-8"))
    path = folder / f"{suite}.md"
    path.write_text("\n".join([*(six if suite == "six" else recall)(rows, costs), ""]), encoding="utf-8")
    return path


def six(rows: Sequence[Row], costs: Sequence[Row]) -> list[str]:
    """Both tables of every recording, and what they say of the full model against Dreamer."""
    text = ["# Six world models, the same recordings", ""]
    text += [
        "Made by `uv run tools/six_models.py table six`. Errors on the same held-out rows; mean over seeds and 95% interval.",
        "",
    ]
    for task in dict.fromkeys(row["task"] for row in rows):
        mine = [row for row in rows if row["task"] == task]
        flops = {one["arm"]: one["flops"] for one in costs if one["task"] == task}
        parts = {one["arm"]: one["parameters"] for one in costs if one["task"] == task}
        budget = min(flops[row["arm"]] * row["checkpoints"][-1][0] for row in mine)
        made = min(row["checkpoints"][-1][0] for row in mine)
        text += [f"## {task}", "", *sizes(parts, flops), ""]
        for name, at in (
            (f"Equal updates: {made:,}", lambda row, made=made: made),
            (f"Equal FLOPs: {budget:.3g}", lambda row, flops=flops, budget=budget: budget / flops[row["arm"]]),
        ):
            text += [f"### {name}", "", *foresight(mine, at), "", verdict(mine, at), "", *held_out(mine, at), ""]
    return text


def sizes(parts: Mapping[str, Mapping[str, int]], flops: Mapping[str, float]) -> list[str]:
    """Parameters by part in thousands, FLOPs of an update."""
    heads = ("reward", "cont")
    lines = ["| arm | encoder | decoder | heads | dynamics | all | GFLOP an update |", "|---|---|---|---|---|---|---|"]
    for arm, of in parts.items():
        each = [of["encoder"], of["decoder"], sum(of.get(name, 0) for name in heads), of["dynamics"], of["total"]]
        lines.append(f"| {arm} | " + " | ".join(f"{one / 1e3:,.0f}k" for one in each) + f" | {flops[arm] / 1e9:,.1f} |")
    return lines


def foresight(rows: Sequence[Row], at: Callable[[Row], float]) -> list[str]:
    """Errors by horizon, of the first observation and of the reward."""
    lines = ["| arm | " + " | ".join([f"+{h}" for h in HORIZONS] + [f"reward +{h}" for h in HORIZONS]) + " | seeds |"]
    lines.append("|---" * (2 * len(HORIZONS) + 2) + "|")
    for arm in dict.fromkeys(row["arm"] for row in rows):
        mine = [row for row in rows if row["arm"] == arm]
        cells = [
            interval([value(row, at(row), kind, h) for row in mine]) for kind in ("seen", "reward") for h in HORIZONS
        ]
        lines.append(f"| {arm} | " + " | ".join(cells) + f" | {len(mine)} |")
    base = rows[0]["microscope"]["errors"]
    first = base[next(iter(base))]
    mean = rows[0]["microscope"]["reward"]["ahead_mean"]
    for name, of in (("the last frame repeated", first["copy"]), ("the mean frame, the mean reward", first["mean"])):
        cells = [_number(of[h - 1]) for h in HORIZONS]
        cells += [_number(mean[h - 1]) if name.startswith("the mean") else "" for h in HORIZONS]
        lines.append(f"| {name} | " + " | ".join(cells) + " | |")
    return lines


def held_out(rows: Sequence[Row], at: Callable[[Row], float]) -> list[str]:
    """Losses on held-out episodes, as the runs logged them: finer in updates than the checkpoints. Those of observations are
    in every method's own units."""
    names = list(dict.fromkeys(name for row in rows for _, of in row["losses"] for name in of))
    lines = [
        "| held-out loss | " + " | ".join(name.rpartition("/")[2] for name in names) + " |",
        "|---" * (len(names) + 1) + "|",
    ]
    for arm in dict.fromkeys(row["arm"] for row in rows):
        mine = [row for row in rows if row["arm"] == arm]
        cells = [interval([logged(row, at(row), name) for row in mine]) for name in names]
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return lines


def logged(row: Row, updates: float, name: str) -> float:
    """A held-out loss after so many updates: linearly between the lines of the log, nan before the first.

    >>> logged({"losses": [[10, {"dyn": 4.0}], [20, {"dyn": 2.0}]]}, 15, "dyn")
    3.0
    """
    made = [(at, of[name]) for at, of in row["losses"] if of.get(name) is not None]
    if not made or updates < made[0][0]:
        return math.nan
    return float(np.interp(updates, [at for at, _ in made], [loss for _, loss in made]))


def value(row: Row, updates: float, kind: str, horizon: int) -> float:
    """An error of a run after so many updates: linearly between its checkpoints, nan before the first or where there is none.

    >>> row = {"checkpoints": [[100, {"image": [4.0]}, [1.0]], [200, {"image": [2.0]}, [0.0]]]}
    >>> value(row, 150, "seen", 1), value(row, math.inf, "reward", 1), value(row, 50, "seen", 1)
    (3.0, 0.0, nan)
    """
    found = []
    for _, seen, reward in row["checkpoints"]:
        of = next(iter(seen.values())) if kind == "seen" else reward
        found.append(of[horizon - 1] if horizon <= len(of) and of[horizon - 1] is not None else np.nan)
    made = [one[0] for one in row["checkpoints"]]
    if updates < made[0]:
        return math.nan
    return float(np.interp(updates, made, found))


def verdict(rows: Sequence[Row], at: Callable[[Row], float]) -> str:
    """Whether the full PO-Dreamer foresees better than Dreamer, over the horizons of each: seeds paired."""
    pairs = []
    for row in rows:
        if row["arm"] != FULL:
            continue
        for other in rows:
            if (other["arm"], other["seed"]) == (PLAIN, row["seed"]):
                mine, theirs = ([value(one, at(one), "seen", h) for h in HORIZONS] for one in (row, other))
                pairs.append(float(np.nanmean(np.array(mine) / np.array(theirs))))
    if len(pairs) < 2:
        return "Too few seeds for a verdict."
    low, high = bounds(pairs)
    word = "less" if high < 1 else "more" if low > 1 else "neither less nor more, as far as these seeds tell,"
    return f"PO-Dreamer errs {word} than Dreamer: {np.mean(pairs):.3f} times as much [{low:.3f}, {high:.3f}], n={len(pairs)}."


def recall(rows: Sequence[Row], costs: Sequence[Row]) -> list[str]:
    """The probe of the hidden fact by horizon, and what was recalled."""
    text = ["# Does recall help where it must?", ""]
    about = (
        "Made by `uv run tools/six_models.py table recall`. A linear probe of the hidden fact, share right on held-out rows: at the end "
        "of the context (0), after steps of the dream, and with the last records of the context alone; 95% intervals over seeds."
    )
    text += [about, ""]
    for task in dict.fromkeys(row["task"] for row in rows):
        mine = [row for row in rows if row["task"] == task]
        flops = {one["arm"]: one["flops"] for one in costs if one["task"] == task}
        name = next(iter(mine[0]["microscope"]["probes"]))
        reached = [h for h, one in enumerate(mine[0]["microscope"]["probes"][name]["dream"]) if one is not None]
        lengths = mine[0]["microscope"]["past"]["lengths"]
        head = [
            *(f"+{h}" for h in reached),
            *(f"last {n}" for n in lengths),
            "age",
            "earlier episodes",
            "GFLOP",
            "seeds",
        ]
        text += [f"## {task}: {name}", "", "| arm | " + " | ".join(head) + " |", "|---" * (len(head) + 1) + "|"]
        for arm in dict.fromkeys(row["arm"] for row in mine):
            of = [row["microscope"] for row in mine if row["arm"] == arm]
            cells = [interval([_or_nan(one["probes"][name]["dream"][h]) for one in of]) for h in reached]
            cells += [interval([_or_nan(one["past"]["probes"][name][k]) for one in of]) for k in range(len(lengths))]
            for key in ("median_age", "earlier"):
                cells.append(interval([_or_nan(one["recalled"][key]) for one in of if one["recalled"]]))
            text.append(f"| {arm} | " + " | ".join([*cells, f"{flops[arm] / 1e9:,.2f}", str(len(of))]) + " |")
        baseline = mine[0]["microscope"]["probes"][name]["baseline"]
        text += [
            f"| the most frequent | {' | '.join(_number(baseline[h]) for h in reached)} |"
            + " |" * (len(head) - len(reached)),
            "",
        ]
    return text


def interval(values: Sequence[float]) -> str:
    """Mean and 95% interval of Student's t; one value stands alone.

    >>> interval([1.0, 1.0]), interval([2.0]), interval([])
    ('1 [1, 1]', '2', '')
    """
    there = [one for one in values if math.isfinite(one)]
    if not there:
        return ""
    if len(there) == 1:
        return _number(there[0])
    low, high = bounds(there)
    return f"{_number(float(np.mean(there)))} [{_number(low)}, {_number(high)}]"


def bounds(values: Sequence[float]) -> tuple[float, float]:
    """Of the mean's 95% interval."""
    mean, error, _ = over_seeds(np.array(values, np.float64)[:, None])
    reach = float(stats.t.ppf(0.975, len(values) - 1)) * float(error[0])
    return float(mean[0]) - reach, float(mean[0]) + reach


def _number(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:.4g}"


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
