"""Files of rows and folders of runs -> samples, with the hash of everything that was read."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from wm_suite import foreign, gather
from wm_suite.cells import Sample
from wm_suite.errors import SuiteError
from wm_suite.groups import group
from wm_suite.scored import WON
from wm_suite.statistics import binned

Modern = Callable[[str, list[dict[str, Any]]], list[dict[str, Any]]]
READ = ("scores.jsonl", "config.toml", "config.yaml", "protocol.json", "env.json")  # of the folder of a run
SPANS = 20  # of a learning curve


@dataclass(frozen=True)
class Source:
    """A file of rows (its lines) or the folder of a run (its files), with a sha256 of each part by its name."""

    path: Path
    kind: str  # "rows" or "run"
    parts: Mapping[str, str]


def rows_file(path: Path, number: int = 0) -> tuple[Source, list[Sample]]:
    """The samples in a file of rows; number: of this source. Raises SuiteError for a line that is no row; what a crash
    left of the last one is passed over, as `read_rows` does."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise SuiteError(f"{path} cannot be read: {error.strerror}") from error
    parts: dict[str, str] = {}
    samples = []
    for line, text in enumerate(lines, 1):
        if not text.strip():
            continue
        try:
            row = foreign.parsed(text)
        except ValueError as error:
            if line == len(lines):
                continue  # never finished
            raise SuiteError(f"line {line} of {path} is no row ({error}): take it out") from error
        if not isinstance(row, dict):
            raise SuiteError(f"line {line} of {path} is no row: take it out")
        parts[str(line)] = hashlib.sha256(text).hexdigest()
        samples.append(Sample(row, number, line))
    return Source(path, "rows", parts), samples


def modernised(samples: Sequence[Sample], suite: str, modern: Modern) -> list[Sample]:
    """Rows of an older making as they would be written today, each still of its line. modern: of a suite's name and its
    rows."""
    return [replace(one, row=row) for one in samples for row in modern(suite, [dict(one.row)])]


def run_folders(folders: Sequence[Path]) -> tuple[list[Source], list[Sample], list[str]]:
    """Rows of run folders of any project that writes danijar's scores.jsonl, among these or inside them, and sentences
    about what was left out. The score, in the field `score`, is that of training episodes in the last tenth of the steps.
    Raises SuiteError where there is none."""
    runs, notes = gather.legible(gather.find(folders))
    for run in runs:
        notes += run.notes
    groups, more = group(runs, mixed=True)
    sources, samples = list[Source](), list[Sample]()
    for one in groups:
        for run in one.runs:
            label = one.label.partition(" [")[0]  # a page marks protocols itself
            parts = {
                name: hashlib.sha256((run.logdir / name).read_bytes()).hexdigest()
                for name in READ
                if (run.logdir / name).is_file()
            }
            samples.append(Sample(_row(run, label), len(sources)))
            sources.append(Source(run.logdir, "run", parts))
    return sources, samples, notes + [note for note in more if "have different protocols" not in note]


def _row(run: gather.Logged, arm: str) -> dict[str, Any]:
    """What a suite's row would say of it."""
    steps, scores = run.series.get(gather.SCORE, (np.zeros(0), np.zeros(0)))
    means = binned(steps, scores, float(run.reached), SPANS)
    ends = np.linspace(0, run.reached, SPANS + 1)[1:]
    origin = run.config.get("run", {})
    config = {name: value for name, value in run.config.items() if name not in run.resumable | {"run", "seed"}}
    row = {
        "task": run.task,
        "arm": arm,
        "seed": run.seed,
        "settings": {name: origin[name] for name in ("app", "preset", "size", "ablation") if origin.get(name)},
        "config": hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest()[:12],
        "step": run.reached,
        "ended": "whole",
        "curve": [
            [round(at), round(v, 6)] for at, v in zip(ends.tolist(), means.tolist(), strict=True) if math.isfinite(v)
        ],
        "folder": ".",
        "score": run.last(gather.SCORE).tolist(),
    }
    if WON in run.series:
        row["won"] = run.last(WON).tolist()
    if run.protocol:
        row["protocol"] = dict(run.protocol)
    for name in ("commit", "hardware", "packages"):
        if value := run.environment.get(name):
            row["versions" if name == "packages" else name] = value
    return row
