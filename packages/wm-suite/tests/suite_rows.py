"""Rows of a suite that nobody ran, for tests of its page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from wm_suite.cells import Planned
from wm_suite.sources import rows_file
from wm_suite.suite_page import Plan, Report, render

PROTOCOL = {"sticky": 0.25, "noops": 30}


def row(task: str, arm: str, seed: int, scores: list[float] | float, **more: Any) -> dict[str, Any]:
    """As a worker writes it."""
    listed = scores if isinstance(scores, list) else [scores]
    curve = [[step, float(sum(listed) / max(len(listed), 1)) * step / 1000] for step in range(100, 1001, 100)]
    return {
        "task": task,
        "arm": arm,
        "seed": seed,
        "settings": {"app": arm, "preset": "tiny", "options": {}},
        "config": f"digest-{arm}",
        "commit": "0123abcd",
        "step": 1000,
        "ended": "whole",
        "wall_s": 60,
        "curve": curve,
        "protocol": {**PROTOCOL, "task": task},
        "measure": "wm_run.measures:fresh",
        "hardware": {"cpu": "x", "cores": 2, "gpus": []},
        "command": ["python", "-m", arm, "train", "--task", task, "--seed", str(seed)],
        "trained": scores,
        **more,
    }


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


def paged(rows: Path, page: Path, **plan: Any) -> dict[str, Any]:
    """A page of these rows with its passport beside it, as `report` writes them; the passport."""
    source, samples = rows_file(rows)
    path = rows.relative_to(page.parent).as_posix() if rows.is_relative_to(page.parent) else str(rows)
    html, passport = render(Report(Plan("A suite", **plan), (source,), (path,), tuple(samples)))
    page.write_text(html, encoding="utf-8")
    page.with_suffix(".json").write_text(json.dumps(passport))
    return passport


def planned(task: str, arm: str, seeds: range, **more: Any) -> tuple[Planned, ...]:
    settings = {"app": arm, "preset": "tiny", "options": {}}
    return tuple(Planned(task, arm, seed, settings, **more) for seed in seeds)
