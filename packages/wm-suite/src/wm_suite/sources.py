"""Files of rows and folders of runs -> samples, with the hash of everything that was read."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from wm_suite import foreign, gather
from wm_suite.cells import Sample
from wm_suite.errors import SuiteError
from wm_suite.groups import group
from wm_suite.statistics import binned

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


def run_folders(folders: Sequence[Path]) -> tuple[list[Source], list[Sample], list[str]]:
    """Rows of run folders of any project that writes danijar's scores.jsonl, among these or inside them, and sentences
    about what was left out. The score is that of training episodes in the last tenth of the steps.

    Task, method and seed are those of config.toml; else of config.yaml's lines `task:` and `seed:`; else of the folder's
    name TIME-TASK-METHOD-SEED, or of the last three folders TASK/METHOD/SEED, as danijar's plot.py takes them.
    Raises SuiteError where there is none.
    """
    runs, notes = gather.legible(_found(folders))
    runs = [_told(run) for run in runs]
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


def _found(folders: Sequence[Path]) -> list[Path]:
    """Folders with scores.jsonl, at most four levels down; what lies in a run is part of it."""
    found: list[Path] = []
    for folder in folders:
        inside: list[Path] = []
        for depth in ("", "*/", "*/*/", "*/*/*/", "*/*/*/*/"):
            here = sorted(path.parent for path in folder.glob(f"{depth}scores.jsonl") if path.is_file())
            inside += [path for path in here if not set(path.parents) & set(inside)]
        if not inside:
            raise SuiteError(f"there is no run in {folder} (no scores.jsonl): name folders that hold some")
        found += inside
    return list({path.resolve(): path for path in found}.values())


def _told(run: gather.Logged) -> gather.Logged:
    """The run with task, method and seed, where no config.toml says them."""
    if "task" in run.config:
        return run
    parts = run.logdir.resolve().parts
    words = parts[-1].split("-")
    if len(words) == 4 and words[3].isdecimal():
        task, method, seed = words[1], words[2], words[3]
    elif parts[-1].isdecimal() and len(parts) > 3:
        task, method, seed = parts[-3:]
    else:
        task, method, seed = "?", parts[-1], "0"
    yaml = run.logdir / "config.yaml"
    text = yaml.read_text(encoding="utf-8", errors="replace") if yaml.is_file() else ""
    said = {
        name: value for name, value in re.findall(r"^(task|seed): *['\"]?([^'\"#\n]*?)['\"]? *$", text, re.MULTILINE)
    }
    task, seed = said.get("task") or task, said.get("seed", seed)
    config = {"task": task, "seed": int(seed) if seed.isdecimal() else 0, "run": {"app": method}}
    return replace(run, config={**run.config, **config})


def _row(run: gather.Logged, arm: str) -> dict[str, Any]:
    """What a suite's row would say of it."""
    steps, scores = run.series.get(gather.SCORE, (np.zeros(0), np.zeros(0)))
    last = scores[(steps > run.reached * (1 - gather.TAIL)) & np.isfinite(scores)]
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
        "score": last.tolist(),
    }
    if run.protocol:
        row["protocol"] = dict(run.protocol)
    for name in ("commit", "hardware", "packages"):
        if value := run.environment.get(name):
            row["versions" if name == "packages" else name] = value
    return row
