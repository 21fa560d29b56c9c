"""Rows of one recording -> a PNG: held-out losses over updates, one panel a loss, and open-loop errors by horizon."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from six_readings import Row, bounds, last, logged, of_arm, or_nan, value
from wm_suite.picture import COLOURS

Floats = NDArray[np.float64]
ACROSS = 4


def draw(rows: Sequence[Row], arms: Sequence[str], path: Path) -> Path:
    """One line an arm, in the suite's order and colours; the mean over seeds, its 95% interval as a band where there are several."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    panels = [*loss_panels(rows), *error_panels(rows)]
    down = -(-len(panels) // ACROSS)
    figure, axes = pyplot.subplots(down, ACROSS, figsize=(3.6 * ACROSS, 2.9 * down), squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for axis, (title, below, x, of) in zip(axes.flat, panels, strict=False):
        drawn: list[Floats] = []
        for arm in arms:
            mine = of_arm(rows, arm)
            curves = [[of(row, one) for one in x] for row in mine]
            if not curves or not np.isfinite(curves).any():
                continue
            mean, low, high = band(np.array(curves, np.float64))
            colour = COLOURS[arms.index(arm) % len(COLOURS)]
            axis.plot(x, mean, color=colour, lw=1.4, label=f"{arm} (n={len(mine)})")
            axis.fill_between(x, low, high, color=colour, alpha=0.2, lw=0)
            drawn.append(mean)
        if below == "steps ahead":
            for name, dashes in (("copy", "--"), ("mean", ":")):
                known = baseline(rows[0], title, name, len(x))
                if known is not None:
                    axis.plot(
                        x, known, color="gray", lw=1, ls=dashes, label={"copy": "last frame", "mean": "mean"}[name]
                    )
        if drawn and np.nanmin(np.concatenate(drawn)) > 0:
            axis.set_yscale("log")
        axis.set_title(title, fontsize=9)
        axis.set_xlabel(below, fontsize=8)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.25)
        axis.legend(fontsize=6, frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
    return path


Panel = tuple[str, str, list[float], Callable[[Row, float], float]]


def loss_panels(rows: Sequence[Row]) -> list[Panel]:
    """Of every held-out loss that a row has."""
    found: list[Panel] = []
    for name in dict.fromkeys(name for row in rows for _, of in row["losses"] for name in of):
        x = sorted({float(at) for row in rows for at, of in row["losses"] if of.get(name) is not None})

        def read(row: Row, updates: float, name: str = name) -> float:
            return logged(row, updates, name)

        if x:
            found.append((f"held-out loss: {name.rpartition('/')[2]}", "updates", x, read))
    return found


def error_panels(rows: Sequence[Row]) -> list[Panel]:
    """Of the first observation and of the reward, after as many updates as all have made."""
    made = float(min(map(last, rows)))
    found: list[Panel] = []
    for kind, of in (
        ("seen", next(iter(rows[0]["checkpoints"][-1][1].values()))),
        ("reward", rows[0]["checkpoints"][-1][2]),
    ):
        x = [float(h) for h in range(1, len(of) + 1)]

        def read(row: Row, horizon: float, kind: str = kind) -> float:
            return value(row, made, kind, int(horizon))

        what = "open-loop error" if kind == "seen" else "error of the imagined reward"
        found.append((f"{what}, {made:,.0f} updates", "steps ahead", x, read))
    return found


def baseline(row: Row, title: str, name: str, horizons: int) -> Any:
    """What stands beside a model's errors, by horizon: None where there is nothing."""
    known = row["microscope"]
    if title.startswith("open-loop"):
        of = next(iter(known["errors"].values()))[name]
    else:
        of = known["reward"]["ahead_mean"] if name == "mean" else None
    return None if of is None else [or_nan(of[h]) if h < len(of) else math.nan for h in range(horizons)]


def band(curves: Floats) -> tuple[Floats, Floats, Floats]:
    """(seeds, P) -> mean and the ends of its 95% interval, nan where fewer than two seeds have a value.

    >>> mean, low, high = band(np.array([[1.0, 2.0], [3.0, np.nan]]))
    >>> mean.tolist(), low.round(3).tolist(), high.round(3).tolist()
    ([2.0, 2.0], [-10.706, nan], [14.706, nan])
    """
    found = []
    for one in curves.T:
        there = [float(each) for each in one if math.isfinite(each)]
        mean = float(np.mean(there)) if there else math.nan
        found.append((mean, *(bounds(there) if len(there) > 1 else (math.nan, math.nan))))
    mean, low, high = np.array(found, np.float64).T
    return mean, low, high
