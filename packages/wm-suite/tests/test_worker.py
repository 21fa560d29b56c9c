"""A worker takes a run to its row, whatever happened to it before, and says in a sentence why where it cannot."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from wm_suite import durable, worker
from wm_suite.job import Job
from wm_suite.process_time import cpu_of
from wm_suite.worker import Halt, carry_out

Make = Callable[..., Job]
Total = Callable[..., int]


def begun(job: Job) -> list[int]:
    """The processes that have trained a run."""
    return [int(line) for line in (job.folder / "begun").read_text().split()]


def diary(job: Job) -> dict[str, Any]:
    return dict(json.loads(job.beside("json").read_text()))


def until(true: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


def hashes(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() + str(path.stat().st_mtime_ns) for path in files}


def test_a_run_becomes_a_row_and_is_not_made_again(job: Make, comes_to: Total) -> None:
    one = job(3)
    done = carry_out(one)
    assert done.state == "done" and done.row is not None
    row = done.row
    assert row["trained"] == [comes_to(20, 3)] and row["parameters"] == 1
    assert (row["task"], row["arm"], row["seed"], row["settings"]) == ("toy", "a.b", 3, one.cell.settings)
    assert (row["step"], row["ended"], row["commit"], row["suite"]) == (20, "whole", "01234567", "mine")
    assert row["protocol"] == {"task": "toy", "repeat": 1} and row["hardware"] == {"cpu": "any", "cores": 1}
    assert row["measure"] == "fake_measures:total" and row["versions"] == {"python": "3", "wm-run": "0"}
    assert len(row["curve"]) == 19  # the last of 20 spans holds both of its ends
    assert row["curve"][-1] == [20, (comes_to(19, 3) + comes_to(20, 3)) / 2]
    assert row["folder"] == "runs/suites/mine/toy-a.b-3"
    assert " ".join(row["command"]).startswith("python -m fake_app train --task toy --seed 3 --steps 20 --logdir runs/")
    assert json.loads(one.beside("row.json").read_text()) == row
    before = hashes(one.folder)
    assert carry_out(one).row == row and hashes(one.folder) == before


def test_seeds_have_one_digest_and_other_settings_another(job: Make) -> None:
    rows = [carry_out(one).row for one in (job(0), job(1), dataclasses.replace(job(2, pace=0.001)))]
    digests = [row["config"] for row in rows if row]
    assert digests[0] == digests[1] != digests[2] and len(digests[0]) == 12


def test_a_killed_run_is_tried_again_and_comes_to_the_same(job: Make, comes_to: Total) -> None:
    one = job(die=2)
    done = carry_out(one)
    assert done.row is not None and done.row["trained"] == [comes_to(20)] and len(begun(one)) == 3
    assert diary(one)["attempts"] == 3 and diary(one)["error"] == ""


def test_a_run_that_is_killed_again_and_again_is_given_up(job: Make) -> None:
    one = job(steps=100, die=99)
    failed = carry_out(one)
    assert failed.state == "failed" and failed.row is None and len(begun(one)) == 3
    assert "it was killed (SIGKILL, as the system does where memory runs out), 3 times" in failed.sentence
    assert diary(one)["error"] in failed.sentence
    assert carry_out(one).state == "failed" and diary(one)["attempts"] == 6  # the next command tries again


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"refuse": "--pace must be at least 0"}, "fake_app: --pace must be at least 0"),
        ({"crash": "a fault"}, "RuntimeError: a fault"),
    ],
)
def test_what_a_run_refuses_is_not_tried_again(job: Make, options: dict[str, Any], told: str) -> None:
    one = job(**options)
    failed = carry_out(one)
    assert failed.state == "failed" and f"failed: {told} (see " in failed.sentence
    assert diary(one)["attempts"] == 1 and diary(one)["error"] == told and not one.beside("row.json").exists()


def test_a_refused_run_may_be_begun_with_other_settings(job: Make) -> None:
    assert carry_out(job(refuse="not so")).state == "failed"
    assert carry_out(job()).state == "done"


def test_a_limit_of_time_under_which_nothing_begins_is_said(job: Make) -> None:
    short = job(minutes=1 / 60, steps=6, dawdle=30.0)
    found = carry_out(short)
    assert (found.state, found.row) == ("failed", None) and "before it had begun: give it more" in found.sentence
    quick = dataclasses.replace(short.cell, options={"steps": 6})
    assert carry_out(dataclasses.replace(short, minutes=5, cell=quick)).state == "done"


def test_the_limit_of_time_ends_a_run_and_more_time_goes_on(job: Make, comes_to: Total) -> None:
    short = job(minutes=1 / 60, steps=60, pace=0.1)  # it sleeps between steps, and four seconds by the clock end it
    row = carry_out(short).row
    assert row is not None and row["ended"] == "time" and 0 < row["step"] < 60
    assert row["trained"] == [comes_to(row["step"])]
    assert carry_out(short).row == row and len(begun(short)) == 1
    more = carry_out(dataclasses.replace(short, minutes=5)).row
    assert more is not None and more["ended"] == "whole" and more["trained"] == [comes_to(60)]
    assert more["wall_s"] >= 2 and len(begun(short)) == 2


def test_a_run_that_waits_for_the_machine_is_not_cut_short(job: Make) -> None:
    """By the clock it takes more than its minutes, and it computes for less."""
    row = carry_out(job(minutes=2 / 60, steps=40, pace=0.1)).row
    assert row is not None and row["ended"] == "whole" and row["wall_s"] >= 4 > row["spent_s"]


def test_what_a_process_and_its_children_compute_counts_and_their_sleep_does_not() -> None:
    """Two children at once, one of which has ended; nobody else's children count."""
    work = "import time; end = time.process_time() + 0.4\nwhile time.process_time() < end: pass"
    both = f"import subprocess, sys, time; subprocess.run([sys.executable, '-c', {work!r}]); {work}\nprint(1, flush=True)\ntime.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", both], start_new_session=True, stdout=subprocess.PIPE) as one:
        try:
            assert one.stdout is not None and one.stdout.readline()
            first = cpu_of(one.pid)
            time.sleep(0.3)
            assert first is not None and 0.75 < first < 3 and cpu_of(one.pid) == pytest.approx(first, abs=0.05)
        finally:
            one.kill()
    assert cpu_of(one.pid) is None


@pytest.mark.parametrize("old", [False, True], ids=["settings in the diary", "none, for it was lost"])
def test_a_run_is_not_taken_for_one_with_other_settings(job: Make, old: bool) -> None:
    one = job(pace=0.001)
    carry_out(one)
    if old:
        one.beside("json").write_text('{"wall_s": 2.0, "done": "whole"}')
    for other, told in [
        (job(pace=0.002), "pace: 0.001, the suite says 0.002"),
        (job(pace=0.002, steps=40), "pace: 0.001"),
        (job(pace=0.001, steps=10), "steps: 20"),
    ]:
        said = carry_out(other).sentence
        assert told in said and f"move {one.folder} away" in said
    assert len(begun(one)) == 1
    one.folder.rename(one.folder.with_name("away"))
    assert carry_out(job(pace=0.002)).state == "done"


@pytest.mark.parametrize("old", [False, True], ids=["settings in the diary", "none, for it was lost"])
def test_a_run_of_which_more_steps_are_asked_goes_on(job: Make, comes_to: Total, old: bool) -> None:
    one = job()
    carry_out(one)
    if old:
        one.beside("json").unlink()
    row = carry_out(job(steps=40)).row
    assert row is not None and row["trained"] == [comes_to(40)] and row["step"] == 40 and len(begun(one)) == 2
    assert diary(one)["settings"]["options"] == {"steps": 40}


def test_a_damaged_diary_is_said_and_a_damaged_row_made_again(job: Make, comes_to: Total) -> None:
    one = job()
    row = carry_out(one).row
    for damage in (b"", b"{", b'{"task": "toy"}', b"[1]", b"\0\0"):
        one.beside("row.json").write_bytes(damage)
        again = carry_out(one).row
        assert again == row
    assert len(begun(one)) == 1 and len((one.folder / "measured").read_text().splitlines()) == 6
    one.beside("row.json").unlink()
    for damage in (b"{", b"[]", b'{"wall_s": "long"}', b'{"settings": 3}', b""):
        one.beside("json").write_bytes(damage)
        said = carry_out(one).sentence
        assert f"{one.beside('json')} is damaged: remove it" in said
    one.beside("json").unlink()
    assert carry_out(one).state == "done"


def test_another_measure_measures_and_does_not_train(job: Make) -> None:
    carry_out(job())
    other = job(measure="fake_measures:dies_once")  # the first process of it is killed
    done = carry_out(other)
    assert done.row is not None and done.row["measure"] == "fake_measures:dies_once" and len(begun(other)) == 1


@pytest.mark.parametrize(
    ("measure", "told"),
    [
        ("fake_measures:other", "finds speed, and the score of the suite is 'trained'"),
        ("fake_measures:crash", "could not be measured by fake_measures:crash: RuntimeError: no such measure"),
        ("fake_measures:nope", "has no attribute 'nope'"),
        ("nowhere:nope", "No module named 'nowhere'"),
    ],
)
def test_a_measure_that_fails_is_a_sentence(job: Make, measure: str, told: str) -> None:
    one = job(measure=measure)
    assert told in carry_out(one).sentence and told in diary(one)["error"] and diary(one)["done"] == "whole"
    assert carry_out(job()).state == "done" and len(begun(one)) == 1


def test_a_halted_run_saves_and_goes_on(job: Make, comes_to: Total) -> None:
    one, halt = job(steps=100, pace=0.02), Halt()
    said: list[str] = []
    thread = threading.Thread(target=lambda: said.append(carry_out(one, halt).sentence))
    thread.start()
    until((one.folder / "state.json").exists)
    halt.set()
    thread.join()
    assert said == ["a.b on toy, seed 0: stopped, and goes on from there"] and diary(one)["done"] == ""
    assert json.loads((one.folder / "state.json").read_text())["step"] < 100
    fast = dataclasses.replace(one, cell=dataclasses.replace(one.cell, options=one.cell.options | {"steps": 101}))
    row = carry_out(fast).row
    assert row is not None and row["trained"] == [comes_to(101)] and len(begun(one)) == 2
    assert carry_out(job(7), halt).state == "stopped" and not job(7).folder.exists()


def test_halting_ends_a_measure_too(job: Make) -> None:
    one, halt = job(measure="fake_measures:slow"), Halt()
    thread = threading.Thread(target=lambda: (until((one.folder / "measuring").exists), halt.set()))
    thread.start()
    assert carry_out(one, halt).state == "stopped" and diary(one)["done"] == "whole"
    thread.join()
    assert carry_out(job()).state == "done" and len(begun(one)) == 1


def test_a_run_whose_worker_is_killed_saves_and_the_next_worker_waits_for_it(job: Make, comes_to: Total) -> None:
    one = job(steps=60, pace=0.03, linger=1.0, **{"save-every": 1000})  # saved when it is asked to end, and not before
    first = subprocess.Popen([sys.executable, "-m", "wm_suite.worker", one.to_json()])
    until((one.folder / "begun").exists)
    until(lambda: "[run]" in (one.folder / "config.toml").read_text())
    time.sleep(0.3)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert worker.busy(one)  # it saves
    done = carry_out(one)
    assert done.row is not None and done.row["trained"] == [comes_to(60)] and len(begun(one)) == 2
    logged = [json.loads(line)["step"] for line in (one.folder / "scores.jsonl").read_text().splitlines()]
    assert logged == list(range(1, 61))  # it went on from what the first had saved, after that one had ended


def test_a_run_whose_worker_is_killed_does_not_go_on_alone(job: Make) -> None:
    one = job(steps=1000, pace=0.02)
    first = subprocess.Popen([sys.executable, "-m", "wm_suite.worker", one.to_json()])
    until((one.folder / "state.json").exists)
    first.send_signal(signal.SIGKILL)
    first.wait()
    until(lambda: not worker.busy(one), 10)
    assert json.loads((one.folder / "state.json").read_text())["step"] < 1000


def test_two_workers_of_a_run_do_not_meet(job: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    one, halt = job(steps=1000, pace=0.01), Halt()
    thread = threading.Thread(target=carry_out, args=(one, halt))
    thread.start()
    until((one.folder / "begun").exists)
    assert worker.busy(one)
    monkeypatch.setattr(worker, "WAIT", 0.3)
    assert "another process is at it" in carry_out(one).sentence
    halt.set()
    thread.join()
    assert len(begun(one)) == 1 and not worker.busy(one)


@pytest.mark.parametrize("failing", range(4))
def test_a_full_disk_loses_nothing(job: Make, comes_to: Total, monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
    one, count, write = job(), [0], os.fsync

    def full(descriptor: int) -> None:
        count[0] += 1
        if count[0] > failing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(descriptor)

    monkeypatch.setattr(durable.os, "fsync", full)
    failed = carry_out(one)
    assert (failed.state == "failed") == (failing < 3)  # the diary twice, and the row
    assert failed.state == "done" or "No space left on device: make room" in failed.sentence
    assert not list(one.folder.parent.glob(".*.draft"))
    monkeypatch.undo()
    done = carry_out(one)
    assert done.row is not None and done.row["trained"] == [comes_to(20)]
    assert json.loads((one.folder / "state.json").read_text())["step"] == 20


def test_an_app_that_leaves_no_run_folder_is_said(job: Make) -> None:
    one = job()
    other = dataclasses.replace(one, cell=dataclasses.replace(one.cell, app="nothing_here"))
    assert "No module named nothing_here" in carry_out(other).sentence
    assert "No such file" in carry_out(dataclasses.replace(one, python="/nowhere/python")).sentence


def test_a_run_whose_folder_is_moved_away_begins_anew(job: Make) -> None:
    one = job()
    carry_out(one)
    one.folder.rename(one.folder.with_name("away"))
    done = carry_out(one)
    assert done.sentence.endswith("measured, 0.0 minutes") and len(begun(one)) == 1
