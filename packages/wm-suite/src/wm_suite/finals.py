"""Groups -> the final table: what each method reached at the end of its runs, and in its evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from wm_suite.groups import Group
from wm_suite.results import newest_eval
from wm_suite.statistics import over_seeds


def finals(group: Group) -> dict[str, Any]:
    """The row of the final table: seeds, the least and most steps reached, mean and standard error of the final score,
    episodes behind it, and the same of the newest evaluation of each run, where there are any."""
    ends = [run.final() for run in group.runs]
    mean, error, count = over_seeds(np.array([[score] for score, _ in ends]))
    played = [(run, one) for run in group.runs if (one := newest_eval(run))]
    tested, spread, evaluated = over_seeds(np.array([[one["score"]] for _, one in played]).reshape(-1, 1))
    return {
        "task": group.task,
        "method": group.label,
        "seeds": len(group.runs),
        "steps": (min(run.reached for run in group.runs), max(run.reached for run in group.runs)),
        "score": float(mean[0]),
        "error": float(error[0]),
        "scored": int(count[0]),
        "episodes": sum(episodes for _, episodes in ends),
        "eval": float(tested[0]),
        "eval_error": float(spread[0]),
        "eval_seeds": int(evaluated[0]),
        "eval_acting": ", ".join(sorted({str(one.get("acting", "?")) for _, one in played})),
    }


def table(groups: Sequence[Group]) -> list[str]:
    """The final scores as lines of text."""
    rows = [("task", "method", "seeds", "steps", "score", "+-")]
    for one in groups:
        row = finals(one)
        error = "" if row["error"] != row["error"] else f"{row['error']:.3g}"
        rows.append(
            (row["task"], row["method"], str(row["seeds"]), f"{row['steps'][0]:,}", f"{row['score']:.4g}", error)
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
