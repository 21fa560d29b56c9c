"""`plot LOGDIR...`: run folders -> one HTML report and a PNG of the scores; links for danijar's plot.py."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from wm_core.errors import UserError

from wm_run.gather import SCORE, Group, Logged, find, group, read
from wm_run.report import damaged, finals, page

if TYPE_CHECKING:
    from wm_run.cli import App, Command, Plot

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8c6d00", "#56759c", "#7b3fa0", "#5b5b5b")


def plot(app: App, command: Command) -> int:
    """Write the report, the picture where matplotlib is installed, and the links where asked; print the table."""
    options: Plot = command.options
    runs = [read(logdir) for logdir in find(options.logdirs)]
    if empty := [run for run in runs if not run.series]:
        runs = [run for run in runs if run.series]
        _say(f"nothing is logged yet in {', '.join(str(run.logdir) for run in empty)}")
    if not runs:
        raise UserError("none of these runs has logged anything yet: plot them later")
    groups, notes = group(runs, mixed=options.mixed)
    notes += damaged(groups)
    for note in notes:
        _say(note)
    out = Path(options.out) if options.out else runs[0].logdir / "report" if len(runs) == 1 else Path("report")
    out.parent.mkdir(parents=True, exist_ok=True)
    title = runs[0].logdir.resolve().name if len(runs) == 1 else f"{len(runs)} runs"
    out.with_name(f"{out.name}.html").write_text(page(groups, notes, title=title), encoding="utf-8")
    for line in table(groups):
        print(line)
    print(out.with_name(f"{out.name}.html"))
    try:
        print(picture(groups, out.with_name(f"{out.name}.png")))
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        _say("the PNG needs matplotlib: install wm-run[plot]; the HTML does without")
    if options.export:
        for link in export([run for one in groups for run in one.runs], groups, Path(options.export)):
            print(link)
    return 0


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


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
        axis.set(title=task, xlabel="environment steps", ylabel="training score")
        axis.grid(alpha=0.25)
        if here:
            axis.legend(fontsize=7, frameon=False)
    figure.text(0.995, 0.005, "mean over seeds, +- one standard error", ha="right", fontsize=6, color="gray")
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
    return path


def export(runs: Sequence[Logged], groups: Sequence[Group], folder: Path) -> list[Path]:
    """Links <folder>/<n>-<task>-<method>-<seed> -> run folder: four parts without a "-" inside, as danijar's plot.py
    (`--newstyle True`, its default) takes a name apart. The method is the group's label.
    """
    folder.mkdir(parents=True, exist_ok=True)
    labels = {run.logdir: one.label for one in groups for run in one.runs}
    links = []
    for number, run in enumerate(runs):
        words = [re.sub(r"[^A-Za-z0-9.]+", "_", word).strip("_") for word in (run.task, labels[run.logdir])]
        link = folder / "-".join([f"{number:03}", *words, str(run.seed)])
        if link.is_symlink():
            link.unlink()
        elif link.exists():
            raise UserError(f"{link} is there already and no link: choose another folder for --export")
        link.symlink_to(run.logdir.resolve(), target_is_directory=True)
        links.append(link)
    return links
