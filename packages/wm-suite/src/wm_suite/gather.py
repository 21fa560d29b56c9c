"""Run folders -> runs: config, protocol, environment, and every number that was logged."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wm_suite.errors import SuiteError
from wm_suite.statistics import Floats

TAIL = 0.1  # the share of a run, at its end, that its final score is the mean of
SCORE = "episode/score"
# Of runs whose config.toml does not name them itself, as wm-run wrote it before wm-suite was there: fields that a resumed
# run may change, and fields in which an evaluation may differ from its run and still be one of the agent as trained.
RESUMABLE = (
    "steps",
    "device",
    "capture",
    "threads",
    "workers",
    "timeout",
    "attempts",
    "restore",
    "exclusive",
    "replay_bytes",
    "log_every",
    "save_every",
    "keep",
    "milestone_every",
    "eval_every",
    "eval_episodes",
    "eval_envs",
    "final_episodes",
    "video_every",
    "final_video",
    "tensorboard",
    "log",
)
INCIDENTAL = ("device", "capture", "threads", "workers", "timeout", "attempts", "seed", "envs", "eval_envs")


@dataclass(frozen=True)
class Logged:
    """One run as its folder tells it; series holds (step, value) of every number logged, in the order of steps."""

    logdir: Path
    config: Mapping[str, Any]
    protocol: Mapping[str, Any]
    environment: Mapping[str, Any]
    series: Mapping[str, tuple[Floats, Floats]]

    @property
    def app(self) -> str:
        return str(self.config.get("run", {}).get("app", "?"))

    @property
    def task(self) -> str:
        return str(self.config.get("task", "?"))

    @property
    def seed(self) -> int:
        return int(self.config.get("seed", 0))

    @property
    def resumable(self) -> frozenset[str]:
        """Fields that make no method, for a resumed run may change them."""
        return frozenset(self.config.get("run", {}).get("resumable", RESUMABLE))

    @property
    def incidental(self) -> frozenset[str]:
        """Fields in which an evaluation may differ from its run and still be one of the agent as trained."""
        return frozenset(self.config.get("run", {}).get("incidental", INCIDENTAL))

    @property
    def reached(self) -> int:
        """The last step of any line."""
        return int(max((steps[-1] for steps, _ in self.series.values()), default=0))

    def final(self) -> tuple[float, int]:
        """Mean score of the episodes that ended in the last tenth of the run, and how many; nan, 0 without any."""
        steps, scores = self.series.get(SCORE, (np.zeros(0), np.zeros(0)))
        last = scores[(steps > self.reached * (1 - TAIL)) & np.isfinite(scores)]
        return (float(last.mean()), len(last)) if len(last) else (math.nan, 0)


def find(folders: Iterable[str | Path]) -> list[Path]:
    """Run folders among these or inside them, at most three levels down; what lies in a run, as the folders of its
    other processes do, is part of it. Raises SuiteError where there is none."""
    found: list[Path] = []
    for folder in map(Path, folders):
        inside: list[Path] = []
        for depth in ("", "*/", "*/*/", "*/*/*/"):
            configs = {path.parent for path in folder.glob(f"{depth}config.toml") if path.is_file()}
            lost = {path.parents[2] for path in folder.glob(f"{depth}checkpoint/*/manifest.json")}  # it is without
            inside += [path for path in sorted(configs | lost) if not set(path.parents) & set(inside)]
        if not inside:
            raise SuiteError(f"there is no run in {folder} (no config.toml): name folders that `train` printed")
        found += inside
    unique = {path.resolve(): path for path in found}
    return list(unique.values())


def read(logdir: Path) -> Logged:
    """The run in a folder; a half-written last line is left out. Raises SuiteError for a file that is none of ours."""
    series: dict[str, tuple[list[float], list[float]]] = {}
    for name in ("scores.jsonl", "metrics.jsonl"):
        for row in _lines(logdir / name):
            step = float(row.get("step", 0))
            for key, value in row.items():
                if key != "step" and (value is None or isinstance(value, (int, float))):
                    steps, values = series.setdefault(key, ([], []))
                    steps.append(step)
                    values.append(math.nan if value is None else float(value))
    arrays = {key: (np.array(steps), np.array(values)) for key, (steps, values) in series.items()}
    return Logged(logdir, _config(logdir), _json(logdir / "protocol.json"), _json(logdir / "env.json"), arrays)


def _config(logdir: Path) -> dict[str, Any]:
    """config.toml, or where that is missing or a power cut left nothing in it, what the newest checkpoint kept of it; {}
    where none did."""
    path = logdir / "config.toml"
    text = path.read_bytes().strip(b"\0\r\n\t ") if path.is_file() else b""
    if text:
        try:
            return tomllib.loads(text.decode("utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SuiteError(f"{path} is not TOML: {error}") from error
    manifests = [path for path in logdir.glob("checkpoint/*/manifest.json") if path.parent.name.isdecimal()]
    for manifest in sorted(manifests, key=lambda path: int(path.parent.name), reverse=True):
        try:
            return dict(json.loads(manifest.read_text())["meta"]["config"])
        except (OSError, ValueError, KeyError, TypeError):  # being written, or damaged, or of before it was kept
            continue
    return {}


def _lines(path: Path) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1] if path.is_file() else [], 1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise SuiteError(f"line {number} of {path} is not JSON: take it out") from error
        if isinstance(row, dict):
            rows.append(row)
    return rows


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text())
    except ValueError as error:
        raise SuiteError(f"{path} is not JSON: {error}") from error
    return value if isinstance(value, dict) else {}
