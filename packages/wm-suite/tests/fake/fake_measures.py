"""Measures of the fake app's runs."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any


def total(logdir: Path, cell: dict[str, Any]) -> dict[str, Any]:
    """The sum that it has come to. Every call is noted in the folder."""
    with (logdir / "measured").open("a") as file:
        file.write(f"{cell['arm']}\n")
    state = json.loads((logdir / "state.json").read_text())
    return {"trained": [state["sum"]], "parameters": 1}


def other(logdir: Path, cell: dict[str, Any]) -> dict[str, Any]:
    """Without the score of a suite."""
    return {"speed": 3}


def crash(logdir: Path, cell: dict[str, Any]) -> dict[str, Any]:
    """A fault."""
    raise RuntimeError("no such measure")


def dies_once(logdir: Path, cell: dict[str, Any]) -> dict[str, Any]:
    """Killed the first time."""
    if not (logdir / "died").exists():
        (logdir / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return total(logdir, cell)


def slow(logdir: Path, cell: dict[str, Any]) -> dict[str, Any]:
    """Until it is ended."""
    (logdir / "measuring").touch()
    time.sleep(600)
    return {}
