"""`plot LOGDIR...`: wm-suite's report, picture and links of run folders, where that package is installed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from wm_core.errors import UserError

if TYPE_CHECKING:
    from wm_run.app import App
    from wm_run.cli import Command
    from wm_run.options import Plot


def plot(app: App, command: Command) -> int:
    """Write the report, the picture, and the links where asked; print the table.

    Raises ModuleNotFoundError without the extra, which the command line tells in a sentence.
    """
    import matplotlib  # noqa: F401 - missing before anything is written, or not at all
    import wm_suite as suite

    options: Plot = command.options
    runs, notes = suite.legible(suite.find(options.logdirs))
    notes += [note for run in runs for note in run.notes]
    if empty := [run for run in runs if not run.series]:
        runs = [run for run in runs if run.series]
        _say(f"nothing is logged yet in {', '.join(str(run.logdir) for run in empty)}")
    if not runs:
        raise UserError("none of these runs has logged anything yet: plot them later")
    groups, more = suite.group(runs, mixed=options.mixed)
    notes += more + suite.damaged(groups)
    for note in notes:
        _say(note)
    out = Path(options.out) if options.out else runs[0].logdir / "report" if len(runs) == 1 else Path("report")
    out.parent.mkdir(parents=True, exist_ok=True)
    title = runs[0].logdir.resolve().name if len(runs) == 1 else f"{len(runs)} runs"
    out.with_name(f"{out.name}.html").write_text(suite.page(groups, notes, title=title), encoding="utf-8")
    for line in suite.table(groups):
        print(line)
    print(out.with_name(f"{out.name}.html"))
    print(suite.picture(groups, out.with_name(f"{out.name}.png")))
    if options.export:
        for link in suite.export([run for one in groups for run in one.runs], groups, Path(options.export)):
            print(link)
    return 0


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
