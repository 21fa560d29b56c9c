"""Runs -> links whose names danijar's plot.py takes apart."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from wm_suite.errors import SuiteError
from wm_suite.gather import Logged
from wm_suite.groups import Group


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
            raise SuiteError(f"{link} is there already and no link: choose another folder for --export")
        link.symlink_to(run.logdir.resolve(), target_is_directory=True)
        links.append(link)
    return links
