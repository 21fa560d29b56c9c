"""Groups -> a PNG of their scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wm_suite.gather import SCORE
from wm_suite.groups import Group

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8c6d00", "#56759c", "#7b3fa0", "#5b5b5b")


def picture(groups: Sequence[Group], path: Path) -> Path:
    """A PNG with one panel a task: mean score over seeds, one standard error of it shaded. Raises ModuleNotFoundError
    without matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    tasks = list(dict.fromkeys(one.task for one in groups))
    across = min(3, len(tasks))
    down = -(-len(tasks) // across)
    figure, axes = pyplot.subplots(down, across, figsize=(4.6 * across, 3.4 * down), squeeze=False)
    for axis in axes.flat[len(tasks) :]:
        axis.set_visible(False)
    for axis, task in zip(axes.flat, tasks, strict=False):
        here = [one for one in groups if one.task == task and SCORE in one.names()]
        end = float(max((run.reached for one in here for run in one.runs), default=1))
        for i, one in enumerate(here):
            curve, colour = one.curve(SCORE, end), COLOURS[i % len(COLOURS)]
            axis.plot(curve.x, curve.mean, color=colour, lw=1.5, label=f"{one.label} (n={len(one.runs)})")
            axis.fill_between(
                curve.x, curve.mean - curve.error, curve.mean + curve.error, color=colour, alpha=0.2, lw=0
            )
        axis.set(xlabel="environment steps", ylabel="training score")
        axis.set_title(task, parse_math=False)  # a $ in a name is a $
        axis.grid(alpha=0.25)
        if here:
            for text in axis.legend(fontsize=7, frameon=False).get_texts():
                text.set_parse_math(False)
    figure.text(0.995, 0.005, "mean over seeds, +- one standard error", ha="right", fontsize=6, color="gray")
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
    return path
