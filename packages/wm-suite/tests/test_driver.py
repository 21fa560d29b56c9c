"""A suite from its file to its rows by the command line, whatever is killed on the way."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from wm_suite import rows as rows_file
from wm_suite.command import main
from wm_suite.home import Home
from wm_suite.job import Job, Outcome

FAKE = Path(__file__).parent / "fake"
SUITE = """
title = "Sums"
minutes = 5
measure = "fake_measures:total"
[options]
steps = 20
[[run]]
app = "fake_app"
arm = "plain"
tasks = ["one", "two"]
seeds = [0, 1]
[[run]]
app = "fake_app"
arm = "other"
ablation = "no-kl"
tasks = ["one"]
seeds = [0]
"""
Total = Callable[..., int]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a suite in it; the fake app is on the path."""
    (tmp_path / "sums.toml").write_text(SUITE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(FAKE))
    return tmp_path


@pytest.fixture
def slow(place: Path) -> Path:
    """A suite whose runs take a second or two, saved when they are asked to end."""
    text = SUITE.replace("steps = 20", "steps = 40\npace = 0.03\nsave-every = 1000")
    (place / "sums.toml").write_text(text)
    return place


def rows() -> list[dict[str, Any]]:
    return rows_file.read_rows(Path("runs/suites/sums/rows.jsonl"))


def started(*words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "wm_suite.command", *words], start_new_session=True)


def until(true: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


def hashes(*folders: Path) -> dict[str, str]:
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def folders() -> list[Path]:
    return sorted(path for path in Path("runs/suites/sums").glob("*") if path.is_dir())


def processes() -> list[int]:
    """That have trained any run, of which some may be there still."""
    return [int(line) for folder in folders() for line in (folder / "begun").read_text().split()]


def alive(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_suite_is_run_and_its_rows_are_written_once(comes_to: Total, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "sums.toml", "--no-trial", "--arms", "plain"]) == 0
    assert "4 of 4 runs are missing" in capsys.readouterr().err
    assert main(["run", "sums.toml", "--no-trial"]) == 0
    assert "1 of 5 runs are missing" in capsys.readouterr().err
    before = Path("runs/suites/sums/rows.jsonl").read_bytes()
    assert main(["run", "sums.toml"]) == 0 and "0 of 5 runs are missing" in capsys.readouterr().err
    assert Path("runs/suites/sums/rows.jsonl").read_bytes() == before
    assert {(row["task"], row["arm"], row["seed"]): row["trained"][0] for row in rows()} == {
        **{(task, "plain", seed): comes_to(20, seed) for task in ("one", "two") for seed in (0, 1)},
        ("one", "other", 0): comes_to(20),
    }
    assert len(rows()) == 5 == len(processes())
    assert "--ablation no-kl" in " ".join(rows()[-1]["command"]) and rows()[-1]["settings"]["ablation"] == "no-kl"


def test_a_failed_run_is_said_and_the_others_are_made(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = SUITE.replace('ablation = "no-kl"', 'options = { refuse = "not on a Sunday" }')
    (place / "sums.toml").write_text(text)
    assert main(["run", "sums.toml", "--no-trial"]) == 1 and len(rows()) == 4
    assert "other on one, seed 0 failed: fake_app: not on a Sunday (see " in capsys.readouterr().err
    assert main(["status", "sums.toml"]) == 0
    told = capsys.readouterr().out
    assert "fake_app: not on a Sunday" in told and told.endswith("5 runs: 4 done, 1 failed\n")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_driver_that_ends_in_the_middle_loses_nothing(
    slow: Path, comes_to: Total, how: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    driver = started("run", "sums.toml", "--no-trial", "--slots", "2")
    file = slow / "runs/suites/sums/rows.jsonl"
    until(lambda: file.exists() and file.read_bytes().count(b"\n") >= 2 and len(folders()) == 4)
    until(lambda: all((folder / "config.toml").exists() for folder in folders()))
    driver.send_signal(how)
    assert driver.wait() == (-9 if how == signal.SIGKILL else 130)
    finished = rows()
    kept = [Path(row["folder"]) for row in finished]
    before, lines = hashes(*kept), file.read_bytes()
    assert 2 <= len(finished) < 5
    assert main(["run", "sums.toml", "--no-trial", "--slots", "2"]) == 0
    assert hashes(*kept) == before and file.read_bytes().startswith(lines)
    assert sorted((row["task"], row["arm"], row["seed"], row["trained"][0]) for row in rows()) == sorted(
        [(task, "plain", seed, comes_to(40, seed)) for task in ("one", "two") for seed in (0, 1)]
        + [("one", "other", 0, comes_to(40))]
    )
    until(lambda: not any(map(alive, processes())))
    for folder in folders():  # no step was counted twice, and none is lacking
        steps = [json.loads(line)["step"] for line in (folder / "scores.jsonl").read_text().splitlines()]
        assert steps == list(range(1, 41))
        assert len((folder / "begun").read_text().split()) <= 2


def test_the_second_driver_of_a_suite_is_refused(slow: Path, capsys: pytest.CaptureFixture[str]) -> None:
    driver = started("run", "sums.toml", "--no-trial")
    until(lambda: len(folders()) >= 1)
    assert main(["run", "sums.toml", "--no-trial"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("wm-suite: another `run` of this suite is under way") and told.count("\n") == 1
    until((folders()[0] / "config.toml").exists)
    assert main(["status", "sums.toml", "--json"]) == 0
    states = [one["state"] for one in json.loads(capsys.readouterr().out)]
    assert "running" in states and "missing" in states
    driver.send_signal(signal.SIGTERM)
    assert driver.wait() == 130
    assert main(["status", "sums.toml"]) == 0 and "stopped" in capsys.readouterr().out
    assert main(["run", "sums.toml", "--slots", "0"]) == 1  # gathers, and begins nothing


def test_a_row_that_lies_beside_its_run_joins_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    """As where a driver was killed after a run had ended and before its row was written, or while it was."""
    main(["run", "sums.toml", "--no-trial"])
    file = Path("runs/suites/sums/rows.jsonl")
    lines = file.read_bytes().splitlines(keepends=True)
    for left in (b"".join(lines[:-1]), b"".join(lines[:-1]) + lines[-1][:30]):
        file.write_bytes(left)
        assert main(["status", "sums.toml"]) == 0 and "gathered by the next `run`" in capsys.readouterr().out
        assert main(["run", "sums.toml", "--slots", "0"]) == 0
        assert file.read_bytes().splitlines(keepends=True) == lines
        assert "1 rows gathered" in capsys.readouterr().err
    assert len(processes()) == 5


def test_a_file_that_takes_no_row_stops_the_suite_and_loses_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write, count = os.write, [0]

    def full(descriptor: int, line: bytes) -> int:
        count[0] += 1
        return write(descriptor, line if count[0] <= 2 else line[:7])

    monkeypatch.setattr(rows_file, "_write", full)
    assert main(["run", "sums.toml", "--no-trial", "--slots", "1"]) == 2
    assert "the row lies beside its run" in capsys.readouterr().err and len(rows()) == 2
    monkeypatch.undo()
    monkeypatch.chdir(place)
    monkeypatch.setenv("PYTHONPATH", str(FAKE))
    assert main(["run", "sums.toml", "--no-trial"]) == 0 and len(rows()) == 5
    assert all(row["trained"] for row in rows())


def test_settings_that_changed_under_a_row_or_a_run_are_refused(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["run", "sums.toml", "--no-trial", "--arms", "plain"])
    (place / "sums.toml").write_text(SUITE.replace("steps = 20", "steps = 20\npace = 0.001"))
    assert main(["run", "sums.toml", "--no-trial"]) == 2
    assert "the suite says" in (told := capsys.readouterr().err) and "give the arm another name" in told
    Path("runs/suites/sums/rows.jsonl").unlink()
    assert main(["run", "sums.toml", "--no-trial"]) == 1
    assert "was begun with pace: None, the suite says 0.001" in capsys.readouterr().err and len(rows()) == 1


def test_a_line_a_run_is_all_that_a_queue_needs(
    place: Path, comes_to: Total, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = Home(cwd=place, path=(FAKE,))
    monkeypatch.delenv("PYTHONPATH")
    assert main(["plan", "sums.toml", "--lines", "jobs", "--tasks", "one"], home) == 0
    lines = (place / "jobs").read_text().splitlines()
    assert len(lines) == 3
    for line in [*lines, lines[0]]:  # the first is started again
        ended = subprocess.run(["sh", "-c", line], cwd="/", env={}, check=False, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
    assert rows() == [] and len(processes()) == 3
    assert main(["run", "sums.toml", "--slots", "0"], home) == 1 and len(rows()) == 3
    capsys.readouterr()
    assert main(["plan", "sums.toml"], home) == 0
    assert capsys.readouterr().out.splitlines() == ["plain two 0", "plain two 1"]
    assert main(["run", "sums.toml", "--no-trial"], home) == 0 and len(rows()) == 5 == len(processes())


def test_what_is_counted_has_hours_of_a_card_that_measured_it_alone(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "sums.toml", "--count"]) == 0
    out, err = capsys.readouterr()
    assert err.count("counting") == 2 and out.count("hours not measured") == 6  # five runs and their sum
    assert "plain one 0: 20 updates, 2.00e+13 FLOPs" in out and "5 runs, 1.00e+14 FLOPs of updates" in out
    row = {"part": "update plain", "parameters": 7, "flops": 10**12, "graph_ms": 3.6e5}
    for other, hours in (
        ({}, "2.00 hours of updates"),
        ({"parameters": 8}, "not"),
        ({"flops": 2 * 10**12}, "not"),
        ({"rehearsal": True}, "not"),
    ):
        (place / "card.jsonl").write_text(json.dumps(row | other) + "\n")
        assert main(["plan", "sums.toml", "--count", "--card", "card.jsonl"]) == 0
        out, err = capsys.readouterr()
        assert "counting" not in err and out.count(hours if hours != "not" else "hours not measured") == (
            5 if hours != "not" else 6
        )
    assert main(["plan", "sums.toml", "--costs"]) == 0 and "0.42 hours one by one here" in capsys.readouterr().out


def test_what_it_takes_is_said_before_it_begins(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "sums.toml", "--costs"]) == 0
    out, err = capsys.readouterr()
    assert err.count("trying") == 2 and "plain one 0: 20 updates" in out and "5.00 GB of disk, 0.42 hours" in out
    assert main(["run", "sums.toml", "--slots", "2"]) == 0
    told = capsys.readouterr().err
    assert "trying" not in told and "training takes about 12 minutes with 2 at a time, 6.0 GB of memory" in told
    (place / "sums.toml").write_text(SUITE.replace('ablation = "no-kl"', 'options = { refuse = "no" }\narm = "no"'))
    assert main(["plan", "sums.toml", "--costs"]) == 2  # a name twice
    text = SUITE.replace('ablation = "no-kl"', 'options = { refuse = "no" }').replace('"other"', '"third"')
    (place / "sums.toml").write_text(text)
    capsys.readouterr()
    assert main(["run", "sums.toml"]) == 1
    assert "what 1 of 1 runs take could not be tried: fake_app: no" in capsys.readouterr().err


def test_rows_may_lie_elsewhere(place: Path) -> None:
    assert (
        main(["run", "sums.toml", "--no-trial", "--tasks", "two", "--seeds", "7", "--rows", "a/b.jsonl", "--runs", "r"])
        == 0
    )
    assert [row["seed"] for row in rows_file.read_rows(place / "a/b.jsonl")] == [7]
    assert (place / "r/sums/two-plain-7").is_dir() and not (place / "runs").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["train"], "there is no 'train'; there is plan, run"),
        (["run", "nope"], "there is no suite 'nope'"),
        (["run", "sums.toml", "--arms", "nope"], "sums has no arm 'nope'; it has plain, other"),
        (["plan", "sums.toml", "--tasks", "nope"], "sums has no task 'nope'"),
        (["run", "sums.toml", "--no-trial", "--on", "mars"], "--on mars is unknown: it is local, ray, or ray://host:port"),
        (["run", "sums.toml", "--no-trial", "--on", "ray"], "--on ray needs the package ray: install wm-suite[ray]"),
        (["table", "sums.toml"], "holds no row of sums"),
        (["plan", "sums.toml", "--lines", "no/where"], "no/where cannot be written"),
    ],
)  # fmt: skip
def test_a_mistake_is_a_sentence(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # as where it is not installed
    assert main(words) == 2
    err = capsys.readouterr().err
    assert f"wm-suite: {told}" in err or told in err.splitlines()[-1]
    assert "Traceback" not in err and err.splitlines()[-1].startswith("wm-suite: ")


def test_damaged_rows_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    main(["run", "sums.toml", "--no-trial"])
    file = Path("runs/suites/sums/rows.jsonl")
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([lines[0], b"{x\n", *lines[1:]]))
    assert main(["status", "sums.toml"]) == 2 and "line 2 of " in capsys.readouterr().err
    file.write_bytes(b"".join([lines[0], *lines[2:]]))  # taken out
    assert main(["run", "sums.toml", "--no-trial"]) == 0 and len(rows()) == 5 and len(processes()) == 5


class Backwards:
    """An engine of another making: one after the other, the last first."""

    slots = 1

    def carry_out(self, jobs: Any, halt: Any) -> Iterator[Outcome]:
        for job in reversed(jobs):
            assert Job.from_json(job.to_json()) == job
            yield (
                Outcome(job.cell, "stopped", "no")
                if halt
                else Outcome(job.cell, "done", "yes", {"seed": job.cell.seed})
            )


def test_an_engine_is_what_keeps_the_protocol(place: Path) -> None:
    from wm_suite.driver import drive
    from wm_suite.engines import Engine
    from wm_suite.suites import read
    from wm_suite.worker import Halt

    engine: Engine = Backwards()
    suite, said = read(place / "sums.toml"), list[str]()
    assert drive(Home().jobs(suite, suite.cells), place / "rows", engine, Halt(), said.append) == 0
    assert [row["seed"] for row in rows_file.read_rows(place / "rows")] == [0, 1, 1, 0, 0] and said == ["yes"] * 5


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("run sums.toml --retries -1", "'-1' is no whole number from 0 on"),
        ("run sums.toml --slots -1", "'-1' is no whole number from 0 on"),
        ("plan sums.toml --threads 0", "'0' is no whole number from 1 on"),
        ("plan sums.toml --threads 1.5", "'1.5' is no whole number"),
        ("plan sums.toml --lines .", ". cannot be written: Is a directory"),
        ("plan sums.toml --count --card nowhere.jsonl", "--card nowhere.jsonl is no file"),
        ("report sums.toml --out page.html", "page.html: Is a directory"),
    ],
)
def test_what_cannot_be_is_one_sentence(place: Path, capsys: pytest.CaptureFixture[str], words: str, told: str) -> None:
    (place / "page.html").mkdir(exist_ok=True)
    try:
        code = main(words.split())
    except SystemExit as stop:  # argparse's way
        code = int(str(stop.code))
    last = capsys.readouterr().err.splitlines()[-1]
    assert code == 2 and told in last and last.startswith("wm-suite")
