"""A run folder that was measured -> its row."""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wm_suite.job import Job

SPANS = 20  # of a learning curve
TAIL = 100_000  # bytes in which the last line of a log is looked for
OTHERS = ("torch", "numpy", "env-adapters", "gymnasium", "ale-py", "mujoco", "dm-control", "jax", "jaxmarl")


def row_of(job: Job, diary: Mapping[str, Any], measured: Mapping[str, Any]) -> dict[str, Any]:
    """What the folder says, and what the measure found, whose names come last and win."""
    about = _json(job.folder / "env.json")
    commit = str(about.get("commit") or "")  # of the source that ran; with + after it where that was changed
    step = measured.get("step", _reached(job.folder))
    scores = job.folder / "scores.jsonl"
    logged = [
        row
        for row in (_rows(scores.read_bytes()) if scores.is_file() else [])
        if _is_number(row.get("episode/score")) and _is_number(row.get("step"))
    ]
    return {
        "task": job.cell.task,
        "arm": job.cell.arm,
        "seed": job.cell.seed,
        "settings": job.cell.settings,
        "config": _digest(job.folder / "config.toml"),
        "commit": commit[:8] + "+" * commit.endswith("+"),
        "step": step,
        "ended": diary["done"],
        "wall_s": round(diary["wall_s"]),
        "spent_s": round(diary["spent_s"]),
        "curve": [[round(at), round(score, 4)] for at, score in spans(logged, step)],
        "suite": job.suite,
        "measure": job.cell.measure,
        "protocol": _json(job.folder / "protocol.json"),
        "hardware": about.get("hardware", {}),
        "command": job.command(),
        "folder": job.logdir if not Path(job.logdir).is_absolute() else job.folder.name,
        "versions": _versions(about),
        **measured,
    }


def spans(rows: Sequence[Mapping[str, Any]], last: float) -> list[tuple[float, float]]:
    """A run's scores.jsonl until step `last` -> the end of each span in which an episode ended, and their mean score.

    >>> spans([{"step": 10, "episode/score": 1.0}, {"step": 12, "episode/score": 2.0}], 200)
    [(20.0, 1.5)]
    """
    step = np.array([row["step"] for row in rows])
    score = np.array([row["episode/score"] for row in rows])
    edges = np.linspace(0, last, SPANS + 1)
    which = np.clip(np.digitize(step, edges) - 1, 0, SPANS - 1)
    return [(float(edges[i + 1]), float(score[which == i].mean())) for i in range(SPANS) if (which == i).any()]


def last_line(log: Path, name: str = "step") -> dict[str, Any]:
    """The last whole line of a log that has a number of this name; {} where there is none."""
    if not log.is_file():
        return {}
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
        found = _rows(file.read())
    return next((row for row in reversed(found) if _is_number(row.get(name))), {})


def _digest(config: Path) -> str:
    """Of a run's whole configuration but its seed: seeds of one method have the same."""
    found = tomllib.loads(config.read_bytes().decode("utf-8-sig"))
    found = {name: value for name, value in found.items() if name != "run"} | {"seed": 0}
    return hashlib.sha256(json.dumps(found, sort_keys=True, default=str).encode()).hexdigest()[:12]


def _reached(logdir: Path) -> int:
    """The step of the newest checkpoint, else of the last line that was logged."""
    saved = [int(path.name) for path in (logdir / "checkpoint").glob("*") if path.name.isdecimal()]
    rows = [last_line(logdir / name) for name in ("metrics.jsonl", "scores.jsonl")]
    logged = [row["step"] for row in rows if _is_number(row.get("step"))]
    return max(saved or logged or [0])


def _versions(about: Mapping[str, Any]) -> dict[str, str]:
    """Of Python, of ours, and of what a score could hang on; env.json has all."""
    packages = about.get("packages", {})
    ours = {name: version for name, version in packages.items() if name.startswith("wm-") or name in OTHERS}
    return ({"python": about["python"]} if "python" in about else {}) | ours


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):  # a folder of another making
        return {}
    return found if isinstance(found, dict) else {}


def _rows(text: bytes) -> list[dict[str, Any]]:
    """Whole lines of a log; one that is none, as a crash leaves at most the last, is passed over."""
    found = []
    for line in text.split(b"\n"):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            found.append(row)
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
