"""Rows of the suite recall -> its page: where a hidden fact is found by a probe, beside controls of that probe, and what it says of recall."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from six_readings import Asked, Row, bounds, cell, headed, last, line, number, of_arm, or_nan, there, value

FULL = "po_dreamer"
IGNORANT = 0.25 * 0.75  # the squared error of an expected reward of 1/4: both tasks have four answers, played at random
ABOUT = """Made by `uv run tools/six_models.py table recall`. A linear probe of the hidden fact, fitted to posterior states of one half of the held-out
rows, share right on the other: at the end of the context (+0), after steps of the dream, at the posterior of the last of
these steps ("seen", where `toy:doors` shows the door), and with the last records of the context alone. Mean over seeds and
95% interval of Student's t, one seed without. Beside the arms what the same probe finds in states that are known
(`uv run tools/six_models.py controls recall`): it must find the fact in itself; the context's perfect memory is the most that recall can be worth; one
record alone, and this episode alone, are what is to be had without it. A score that is not above those is no sign of memory. (On `toy:doors` one record alone does
better than the most frequent door, for rows to fit and rows to test share rules: the probe itself learns which door a cue means.) The reward
that is imagined needs no probe, since the fact decides it: who knows it errs 0, who knows only that one of four pays errs about
0.19 = p (1 - p), and more where what was learned is the recording's own and no rule of these rows. PO-Dreamer's memory is as long as
the context, 48 records. With the 400 of its preset `doors` it was trained on windows in which all 24 records that it recalls have the cue
that is asked for, learned to average over them, and read nothing of a context in which three have it: 0.30 of probes right on
`toy:doors` after 1,500 and after 2,250 updates (seed 0), where 48 give what stands below."""
MEANING = {
    "fact": "the fact itself",
    "context": "a perfect memory of the context",
    "episode": "a perfect memory of this episode",
    "record": "the newest record alone",
}


def page(rows: Sequence[Row], costs: Sequence[Row], controls: Sequence[Row], asked: Asked) -> list[str]:
    """For every task the probe by arm and horizon, its controls, what was recalled, and the verdict."""
    text = ["# Does recall help where it must?", "", ABOUT, ""]
    for task, arms in asked.items():
        mine = [row for row in rows if row["task"] == task]
        checks: Row = next((one for one in controls if one["task"] == task), {"scores": {}})
        name = str(next(iter(mine[0]["microscope"]["probes"])) if mine else checks.get("name", ""))
        text += [f"## {task}" + (f": {name}" if name else ""), "", there(mine, arms), ""]
        flops = {one["arm"]: one["flops"] for one in costs if one["task"] == task}
        lines = table(mine, arms, name, flops, checks)
        text += [*lines, ""] if lines else []
        text += [*dreamt(mine, arms, name), "", *verdict(mine, arms, name, checks["scores"]), ""] if mine else []
    return text


def table(
    rows: Sequence[Row], arms: Mapping[str, int], name: str, flops: Mapping[str, float], checks: Row
) -> list[str]:
    """Of one task: arms, then the most frequent class, then the controls. Nothing where neither runs nor controls are there."""
    scores: Mapping[str, list[float | None]] = checks["scores"]
    if rows:
        dream = rows[0]["microscope"]["probes"][name]["dream"]
        lengths = list(rows[0]["microscope"]["past"]["lengths"])
    elif scores:
        dream, lengths = next(iter(scores.values())), []
    else:
        return []
    reached = [h for h, one in enumerate(dream) if one is not None]
    end = reached[-1]
    head = [*(f"+{h}" for h in reached), f"seen +{end}", *(f"last {n}" for n in lengths)]
    head += ["age", "earlier episodes", "GFLOP", "seeds"]
    lines, blank = headed(["arm", *head]), [""] * (len(lengths) + 5)
    for arm, count in arms.items():
        of = [row["microscope"] for row in of_arm(rows, arm)]
        cost = f"{flops[arm] / 1e9:,.2f}" if arm in flops else "not counted"
        if not of:
            lines.append(line([arm, *["not run"] * len(reached), *[""] * (len(lengths) + 3), cost, f"0 of {count}"]))
            continue
        cells = [cell([or_nan(one["probes"][name]["dream"][h]) for one in of]) for h in reached]
        cells.append(cell([or_nan(one["probes"][name]["posterior"][end]) for one in of]))
        cells += [cell([or_nan(one["past"]["probes"][name][k]) for one in of]) for k in range(len(lengths))]
        cells += [
            cell([or_nan(one["recalled"][key]) for one in of if one["recalled"]]) for key in ("median_age", "earlier")
        ]
        lines.append(line([arm, *cells, cost, f"{len(of)} of {count}"]))
    if rows:
        frequent = rows[0]["microscope"]["probes"][name]["baseline"]
        lines.append(line(["the most frequent", *(number(or_nan(frequent[h])) for h in reached), *blank]))
    for kind, score in scores.items():
        lines.append(line([MEANING.get(kind, kind), *(number(or_nan(score[h])) for h in reached), *blank]))
    return lines


def dreamt(rows: Sequence[Row], arms: Mapping[str, int], name: str) -> list[str]:
    """Squared error of the reward that is imagined for the last step of the dream that lies in the episode, over updates: what
    the fact decides, and no probe's. IGNORANT is who knows when a reward is due, and not for which of four."""
    dream = rows[0]["microscope"]["probes"][name]["dream"]
    end = max(h for h, one in enumerate(dream) if one is not None)
    shared = set.intersection(*({int(one[0]) for one in row["checkpoints"]} for row in rows))
    lines = headed([f"reward at +{end} after updates", *(f"{at:,}" for at in sorted(shared)), "at the end"])
    for arm in arms:
        if mine := of_arm(rows, arm):
            cells = [cell([value(row, at, "reward", end) for row in mine]) for at in sorted(shared)]
            lines.append(line([arm, *cells, cell([value(row, last(row), "reward", end) for row in mine])]))
    mean = number(or_nan(rows[0]["microscope"]["reward"]["ahead_mean"][end - 1]))
    lines.append(line(["one of four", *[number(IGNORANT)] * (len(shared) + 1)]))
    return [*lines, line(["the mean reward", *[mean] * (len(shared) + 1)])]


def verdict(
    rows: Sequence[Row], arms: Mapping[str, int], name: str, scores: Mapping[str, list[float | None]]
) -> list[str]:
    """PO-Dreamer's share right less that of every other arm, seeds paired, by horizon, and its error of the imagined reward;
    and whether they are better than what is to be had without recall."""
    dream = rows[0]["microscope"]["probes"][name]["dream"]
    reached = [h for h, one in enumerate(dream) if one is not None]
    full = {row["seed"]: row["microscope"]["probes"][name]["dream"] for row in of_arm(rows, FULL)}
    if not full:
        return ["No verdict: PO-Dreamer has not been run."]
    end = reached[-1]
    lines = headed([f"{FULL} less", *(f"+{h}" for h in reached), "knows", f"reward's error at +{end}", "errs"])
    for other in arms:
        theirs = {row["seed"]: row["microscope"]["probes"][name]["dream"] for row in of_arm(rows, other)}
        paired = sorted(full.keys() & theirs.keys())
        if other == FULL or not theirs:
            continue
        apart = [[or_nan(full[s][h]) - or_nan(theirs[s][h]) for s in paired] for h in reached]
        wrong = [_reward(rows, FULL, s, end) - _reward(rows, other, s, end) for s in paired]
        lines.append(line([other, *map(cell, apart), says(apart[0]), cell(wrong), says(wrong)]))
    for kind in ("record", "episode"):
        if kind in scores:
            apart = [[or_nan(one[h]) - or_nan(scores[kind][h]) for one in full.values()] for h in reached]
            lines.append(line([MEANING[kind], *map(cell, apart), says(apart[0]), "", ""]))
    wrong = [_reward(rows, FULL, s, end) - IGNORANT for s in full]
    return [*lines, line(["one of four", *[""] * (len(reached) + 1), cell(wrong), says(wrong)])]


def _reward(rows: Sequence[Row], arm: str, seed: int, horizon: int) -> float:
    """Of an arm's last checkpoint."""
    one = next(row for row in of_arm(rows, arm) if row["seed"] == seed)
    return value(one, last(one), "reward", horizon)


def says(apart: Sequence[float]) -> str:
    """What differences between paired seeds allow to be said, at the end of the context.

    >>> says([0.5, 0.52, 0.48]), says([0.5, -0.5]), says([0.5]), says([-0.3, -0.3])
    ('more', 'not decided', 'one seed, no verdict', 'less')
    """
    known = [one for one in apart if math.isfinite(one)]
    if len(known) < 2:
        return "one seed, no verdict" if known else "no seed of both"
    low, high = bounds(known) if np.ptp(known) else (known[0], known[0])
    return "more" if low > 0 else "less" if high < 0 else "not decided"
