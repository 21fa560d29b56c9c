"""A suite of a real app, with a worker and the driver killed in the middle, and the driver stopped: what was finished is
untouched, the rest is done."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

ENGINES = [["--on", "local"], *([["--on", "ray"]] if importlib.util.find_spec("ray") else [])]


def driver(folder: pathlib.Path, words: list[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "wm_suite.command", "run", "toy", "--no-trial", "--slots", "2", *words]
    with (folder / "driver.log").open("ab") as log:
        return subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)


def until(true: Callable[[], Any], seconds: float = 1200) -> Any:
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.1)
    return found


def trainers(folder: pathlib.Path) -> list[int]:
    """Processes that train a run in the folder."""
    found = []
    for one in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            words = (one / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"child.py" in b" ".join(words[:2]) and b"app" in words and any(bytes(folder) in word for word in words):
            found.append(int(one.name))
    return found


def hashes(runs: list[pathlib.Path]) -> dict[str, str]:
    files = [path for run in runs for path in run.rglob("*") if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("words", ENGINES, ids=[words[1] for words in ENGINES])
def test_what_was_finished_is_untouched_and_the_rest_is_done(tmp_path: pathlib.Path, words: list[str]) -> None:
    runs = tmp_path / "runs" / "suites" / "toy"
    rows = runs / "rows.jsonl"

    def lines() -> list[bytes]:
        return rows.read_bytes().splitlines() if rows.exists() else []

    first = driver(tmp_path, words)
    until(lambda: len(lines()) >= 2)
    os.kill(until(lambda: trainers(tmp_path))[0], signal.SIGKILL)  # a worker
    until(lambda: len(lines()) >= 6 and trainers(tmp_path))
    first.send_signal(signal.SIGKILL)
    first.wait()
    before = lines()
    kept = [tmp_path / json.loads(line)["folder"] for line in before]
    state = hashes(kept)
    assert 6 <= len(before) < 24
    second = driver(tmp_path, words)
    until(lambda: len(lines()) > len(before) and trainers(tmp_path))
    second.terminate()
    assert second.wait() == 130, (tmp_path / "driver.log").read_text()[-2000:]
    assert until(lambda: not trainers(tmp_path), 60) and len(lines()) < 24
    assert driver(tmp_path, words).wait() == 0, (tmp_path / "driver.log").read_text()[-2000:]
    assert hashes(kept) == state and lines()[: len(before)] == before
    found = [json.loads(line) for line in lines()]
    assert len(found) == 24 == len({(row["task"], row["arm"], row["seed"]) for row in found})
    assert {len({row[name] for row in found}) for name in ("task", "arm", "seed")} == {4, 3, 2}
    assert all(row["step"] >= 120 and row["ended"] == "whole" and len(row["trained"]) == 4 for row in found)
    attempts = [
        json.loads(file.read_text())["attempts"] for file in runs.glob("*.json") if "attempts" in file.read_text()
    ]
    assert len(attempts) == 24 and 2 <= max(attempts) <= 3 and sum(attempts) <= 24 + 1 + 2 + 2
    assert until(lambda: not trainers(tmp_path), 60)
