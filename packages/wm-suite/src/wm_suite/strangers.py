"""A run folder of another project -> its task, method and seed, as far as it says them.

DreamerV3, and those who took its logger, write scores.jsonl (`{"step": ..., "episode/score": ...}`) beside a config.yaml.
What that leaves open stands in the folder's name, <time>-<task>-<method>-<seed>, or in its path, <task>/<method>/<seed>, as
DreamerV3's plot.py takes it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

FIELDS = {"task": "task", "seed": "seed", "method": "app"}  # of a config.yaml: ours


def config(logdir: Path) -> dict[str, Any]:
    """The config that a report needs, {} where nothing tells whose scores these are.

    >>> config(Path("logs/20250101T000000-atari_pong-dreamerv3-3")) == config(Path("atari_pong/dreamerv3/3"))
    True
    >>> config(Path("atari_pong/dreamerv3/3"))
    {'task': 'atari_pong', 'seed': 3, 'run': {'app': 'dreamerv3'}}
    """
    found = _of_path(logdir) | _of_yaml(logdir / "config.yaml")
    if "task" not in found:
        return {}
    seed = str(found.get("seed", 0))
    return {
        "task": found["task"],
        "seed": int(seed) if re.fullmatch(r"-?\d{1,18}", seed) else 0,
        "run": {"app": found.get("app", logdir.resolve().parent.name)},
    }


def _of_path(logdir: Path) -> dict[str, str]:
    parts = logdir.name.split("-")
    if len(parts) != 4:
        parts = ["", *logdir.parts[-3:]]
    if len(parts) != 4 or not re.fullmatch(r"\d+", parts[3]):
        return {}
    return {"task": parts[1], "app": parts[2], "seed": parts[3]}


def _of_yaml(path: Path) -> dict[str, str]:
    """Plain values at the left margin; no more of YAML is read, for no more is needed."""
    try:
        text = path.read_text("utf-8") if path.is_file() else ""
    except (OSError, UnicodeDecodeError):
        return {}
    pairs = re.findall(r"^(\w+):[ \t]*['\"]?([^'\"#\n]+?)['\"]?[ \t]*(?:#.*)?$", text, re.MULTILINE)
    return {FIELDS[name]: value for name, value in pairs if name in FIELDS}
