"""What a run is doing, by its row, its diary, its lock and its logs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from wm_suite.job import Job
from wm_suite.status import status
from wm_suite.worker import Halt, carry_out, held

Make = Callable[..., Job]


def begin(job: Job, *metrics: dict[str, Any]) -> None:
    job.folder.mkdir(parents=True)
    (job.folder / "config.toml").write_text('task = "toy"\nsteps = 1000\n[run]\napp = "fake_app"\n')
    (job.folder / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in metrics) + '{"step": 9')
    job.beside("json").write_text(json.dumps({"settings": job.cell.settings, "wall_s": 9.0, "attempts": 1}))


def test_a_running_run_says_how_far_it_is_and_how_long_it_takes(job: Make) -> None:
    one = job()
    begin(one, {"step": 100, "fps/policy": 5.0}, {"step": 250, "fps/policy": 10.0}, {"step": 260, "eval/score": 1.0})
    with held(one, Halt()):
        found = status(one, None)
        assert (found.state, found.step, found.share, found.left_s) == ("running", 260, 0.26, 74.0)
        (one.folder / "scores.jsonl").write_text('{"step": 1000, "episode/score": 1.0}\n')
        assert status(one, None).sentence == "it is evaluated and measured"
    assert status(one, None).state == "stopped"


@pytest.mark.parametrize("damage", ["", "nonsense", "[1]\n", '{"step": null}\n', "\0\0"])
def test_damaged_logs_are_no_obstacle(job: Make, damage: str) -> None:
    one = job()
    begin(one)
    (one.folder / "metrics.jsonl").write_text(damage)
    assert status(one, None).state == "stopped" and status(one, None).step == 0
    (one.folder / "config.toml").write_text(damage)
    assert status(one, None).state in ("stopped", "failed") and status(one, None).share is None


def test_each_state_is_told(job: Make) -> None:
    one = job()
    assert status(one, None).state == "missing"
    carry_out(one)
    beside = status(one, None)
    assert beside.state == "done" and "gathered" in beside.sentence
    row = json.loads(one.beside("row.json").read_text())
    assert status(one, row).state == "done" and status(one, row).sentence == ""
    assert status(job(steps=9), row).state == "failed" and "made with" in status(job(steps=9), row).sentence
    other = status(job(pace=0.5), None)
    assert other.state == "failed" and "was begun with pace: None" in other.sentence
    refused = job(1, refuse="no")
    carry_out(refused)
    assert (status(refused, None).state, status(refused, None).sentence) == ("failed", "fake_app: no")
