"""Rows of a suite -> a table in Markdown, and learning curves as a PNG.

Two lines for each task, a column for each arm: the mean over its seeds, then each seed's own, of the score and of the end
of training. wm-suite table SUITE prints it; --out FOLDER writes NAME.md and NAME.png.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wm_suite import asked
from wm_suite.errors import SuiteError
from wm_suite.home import Home
from wm_suite.rows import of_suite
from wm_suite.suites import Suite


def table(suite: Suite, found: Sequence[Mapping[str, Any]]) -> str:
    """Markdown. found: the suite's rows, in its order. Random play and the untrained agent have columns where the rows'
    measure plays them."""
    tasks = [task for task in suite.tasks if any(row["task"] == task for row in found)]
    random, untrained = (any(name in row for row in found) for name in ("random", "untrained"))
    titles = ["task", "steps"] + ["random"] * random
    titles += [title for arm in suite.arms for title in [f"{arm}, untrained"] * untrained + [arm]]
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    late = mixed = False
    for task in tasks:
        here = [row for row in found if row["task"] == task]
        steps = sorted({row["step"] for row in here if row["ended"] == "whole"})
        cells = [task, " or ".join(f"{step:,}" for step in steps) or "-"] + [_mean(here, "random")] * random
        ends = ["in training, last fifth", ""] + [""] * random
        for arm in suite.arms:
            mine = [row for row in here if row["arm"] == arm]
            cells += [_mean(mine, "untrained")] * untrained
            each = [f"{np.mean(row[suite.score]):.2f}{reached(row)}" for row in mine]
            late |= any(row["ended"] != "whole" for row in mine)
            differ = len({row["config"] for row in mine}) > 1
            mixed |= differ
            mean = np.mean([np.mean(row[suite.score]) for row in mine]) if mine else 0.0
            cell = f"{each[0]} (one seed)" if len(mine) == 1 else f"{mean:.2f} ({', '.join(each)})" if mine else ""
            cells.append(cell + "†" * differ)
            last = [end for row in mine if (end := training(row)) is not None]
            single = f"{last[0]:.2f}" if len(last) == 1 else ""
            ends += [""] * untrained
            ends.append(f"{np.mean(last):.2f} ({', '.join(f'{end:.2f}' for end in last)})" if len(last) > 1 else single)
        lines += ["| " + " | ".join(cells) + " |", "| " + " | ".join(ends) + " |"]
    about = _about(suite, found)
    about += " * ended there by its limit of wall time." if late else ""
    about += " † seeds of different configurations." if mixed else ""
    return "\n".join([*lines, "", about])


def _about(suite: Suite, found: Sequence[Mapping[str, Any]]) -> str:
    """What a number of the table is."""
    counts = sorted({len(row[suite.score]) if isinstance(row[suite.score], list) else 1 for row in found})
    fresh = all("random" in row for row in found) and suite.score == "trained"
    number = " or ".join(map(str, counts)) or "no"
    what = f"{number} fresh episodes, sampled actions" if fresh else f"{number} values of {suite.score!r}"
    return f"Mean of {what}; in brackets each seed's."


def _mean(found: Sequence[Mapping[str, Any]], name: str) -> str:
    values = [np.mean(row[name]) for row in found if name in row]
    return f"{np.mean(values):.2f}" if values else ""


def training(row: Mapping[str, Any]) -> float | None:
    """Of the last fifth of a run's steps, which hold more episodes than its evaluation; None where none ended there.

    >>> training({"curve": [[100, -1.0], [200, -0.5], [980, 0.5], [1000, 1.0]], "step": 1000})
    0.75
    """
    last = [score for step, score in row["curve"] if step > 0.8 * row["step"]]
    return float(np.mean(last)) if last else None


def reached(row: Mapping[str, Any]) -> str:
    """Of a run that did not come to its end.

    >>> reached({"ended": "time", "step": 1200}), reached({"ended": "whole"})
    (' at 1,200*', '')
    """
    return "" if row["ended"] == "whole" else f" at {row['step']:,}*"


def plot(suite: Suite, found: Sequence[Mapping[str, Any]], path: Path) -> None:
    """A panel for each task, in a PNG: every arm's mean over seeds, and each seed thin."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    tasks = [task for task in suite.tasks if any(row["task"] == task for row in found)]
    arms = suite.arms
    if not tasks:
        return
    columns = min(3, len(tasks))
    lines = -(-len(tasks) // columns)
    figure, grid = pyplot.subplots(lines, columns, figsize=(4.2 * columns, 3.2 * lines), squeeze=False)
    for panel in grid.flat[len(tasks) :]:
        panel.set_axis_off()
    for panel, task in zip(grid.flat, tasks, strict=False):
        here = [row for row in found if row["task"] == task]
        for i, arm in enumerate(arms):
            mine = [row for row in here if row["arm"] == arm and row["curve"]]
            if not mine:
                continue
            for row in mine:
                panel.plot(*zip(*row["curve"], strict=True), color=f"C{i}", linewidth=0.6, alpha=0.6)
            seeds = f"{len(mine)} seed{'s' * (len(mine) > 1)}"
            panel.plot(*zip(*mean_curve(mine), strict=True), color=f"C{i}", linewidth=2, label=f"{arm}, {seeds}")
        if random := [row["random"] for row in here if "random" in row]:
            panel.axhline(float(np.mean(random)), color="grey", linestyle=":", label="random")
        panel.set(title=task, xlabel="environment steps", ylabel="training score")
        panel.locator_params(axis="x", nbins=5)  # more labels would run into each other
        panel.legend(fontsize=7)
    figure.suptitle(suite.title)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def mean_curve(found: Sequence[Mapping[str, Any]]) -> Iterator[tuple[float, float]]:
    """The mean over seeds at the steps of the longest curve, as far as all of them reach.

    >>> list(mean_curve([{"curve": [[1, 0.0], [2, 1.0]]}, {"curve": [[1, 1.0], [2, 2.0]]}]))
    [(1.0, 0.5), (2.0, 1.5)]
    """
    longest = max((row["curve"] for row in found), key=len)
    reach = min(row["curve"][-1][0] for row in found)
    for step, _ in longest:
        if step <= reach:
            values = [np.interp(step, *np.array(row["curve"]).T) for row in found]
            yield float(step), float(np.mean(values))


def write(suite: Suite, found: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """NAME.md and NAME.png. Raises SuiteError where the folder takes no file."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{suite.name}.md").write_text(f"{table(suite, found)}\n\n![learning curves]({suite.name}.png)\n")
        plot(suite, found, folder / f"{suite.name}.png")
    except OSError as error:
        raise SuiteError(f"{error.filename or folder} cannot be written: {error.strerror}") from error


def main(words: Sequence[str], home: Home) -> int:
    """0."""
    parser = asked.parser("table", __doc__ or "")
    parser.add_argument("--out", type=Path, help="a folder for NAME.md and NAME.png")
    args = parser.parse_args(words)
    suite, home = asked.opened(args, home)
    found = [row for row in of_suite(suite, home.rows(suite)) if suite.score in row]
    if not found:
        raise SuiteError(f"{home.rows_of(suite)} holds no row of {suite.name}: `run` makes them")
    if args.out is not None:
        write(suite, found, args.out)
    print(table(suite, found))
    return 0
