"""Runs that are killed, and environments that are, in processes of their own."""

from __future__ import annotations

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from wm_run.testing import Failed, check_killed

ROOT = pathlib.Path(__file__).resolve().parents[1]
PLACES = ("checkpoint", "annotate", "evict", "raise")


def check(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "tools/resume_check.py", "--app", "po_dreamer", "--preset", "tiny", *options]
    return subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)


def test_four_kills_leave_no_trace() -> None:
    """In a half-written checkpoint, in a write-back, in an eviction, right after --steps was raised. More of them, and the
    other places, by hand."""
    options = ("--steps", "160", "--save-every", "20", "--chunk", "8", "--replay-bytes", "80000")
    done = check("--kill", "4", "--at", *PLACES, "--seed", "3", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "killed 4 times equals unbroken" in done.stdout
    assert f"kills: {', '.join(f'1 {place}' for place in PLACES)}" in done.stdout
    assert " differ" not in done.stdout and "left out" not in done.stdout


def test_a_run_that_lost_its_journal_is_found_out(tmp_path: pathlib.Path) -> None:
    """The check itself can fail: without rolling back, a killed run is no longer the unbroken one."""
    forgetful = "import wm_run.journal; wm_run.journal.Journal.record = lambda self, pieces: None"
    options = ["--preset", "tiny", "--save-every", "40"]
    with pytest.raises(Failed, match=r"is not what was saved|differs from unbroken"):
        check_killed("po_dreamer", options, tmp_path, steps=120, kills=1, places=["annotate"], setup=forgetful)


@pytest.fixture
def training(tmp_path: pathlib.Path) -> Iterator[subprocess.Popen[str]]:
    """A run with a worker process, under way."""
    command = [sys.executable, "-m", "dreamer", "train", "--preset", "tiny", "--task", "gym:CartPole-v1"]
    options = ["--workers", "1", "--envs", "2", "--steps", "1000000", "--logdir", str(tmp_path / "D")]
    process = subprocess.Popen([*command, *options], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.wait()


def children(pid: int) -> list[int]:
    """Processes whose parent it is."""
    found = []
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            command = (stat.parent / "cmdline").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == pid and "spawn_main" in command:
            found.append(int(stat.parent.name))
    return found


def test_a_killed_worker_is_replaced_and_the_run_says_so(
    training: subprocess.Popen[str], tmp_path: pathlib.Path
) -> None:
    metrics = tmp_path / "D" / "metrics.jsonl"
    end = time.monotonic() + 300
    while time.monotonic() < end and not (metrics.is_file() and metrics.read_text()):
        assert training.poll() is None
        time.sleep(0.1)
    (worker,) = children(training.pid)
    os.kill(worker, signal.SIGKILL)
    while time.monotonic() < end and "env/faults" not in metrics.read_text():
        time.sleep(0.1)
    training.send_signal(signal.SIGTERM)
    assert training.stderr is not None
    said = training.stderr.read()
    assert training.wait(120) == 128 + signal.SIGTERM
    assert "worker 0 (environments 0 to 1) died (exit code -9) and was replaced" in said
    # either's episode may just have ended as the worker died, and then is not cut
    assert re.search("the episode of environment [01] was cut short as a truncation", said)
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    at = next(row["step"] for row in rows if "env/faults" in row)
    stopped = re.search(r"stopped at step ([\d,]+)", said)
    assert stopped and int(stopped[1].replace(",", "")) >= at
