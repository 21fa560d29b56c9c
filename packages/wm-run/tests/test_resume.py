"""A run that is stopped, killed or fails, and goes on: it is the run that was left alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from wm_core.testing import assert_same
from wm_run import checkpoint
from wm_run.cli import main
from wm_run.loop import PRIVATE
from wm_run.stop import ASKING


def numbers(logdir: Path, name: str) -> list[dict[str, Any]]:
    """A log without what no run shares with another."""
    rows = [json.loads(line) for line in (logdir / name).read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith(PRIVATE)} for row in rows]


def assert_same_run(one: Path, other: Path) -> None:
    """Weights, every state, replay and every metric but time, fps and memory."""
    a, b = (checkpoint.load(checkpoint.latest(path)) for path in (one, other))
    assert a.step == b.step
    assert_same(a.weights, b.weights)
    for state in (a.state, b.state):
        del state["run"]  # byte offsets: digits of fps differ
    assert_same(a.state, b.state)
    for name in ("metrics.jsonl", "scores.jsonl"):
        assert numbers(one, name) == numbers(other, name)
    chunks = sorted(path.name for path in (one / "replay").glob("*.chunk"))
    assert chunks == sorted(path.name for path in (other / "replay").glob("*.chunk"))
    assert all((one / "replay" / c).read_bytes() == (other / "replay" / c).read_bytes() for c in chunks)


@pytest.fixture
def quiet(monkeypatch):
    monkeypatch.setattr("wm_run.dreams.videos", lambda session, step: [])
    for module in ("dreams", "watching"):
        monkeypatch.setattr(f"wm_run.{module}.key_shown", lambda envs: None)  # no world model, no open loop


@pytest.mark.parametrize("stop", [60, 116, 120, 200])
def test_stopped_and_resumed_equals_one_run(fakes, quiet, stop):
    main(fakes.app, ["train", "--preset", "tiny", "--logdir", "whole"])
    main(fakes.app, ["train", "--preset", "tiny", "--logdir", "parts", "--steps", str(stop)])
    torch.rand(3)  # another process would begin with other global generators
    main(fakes.app, ["train", "--logdir", "parts", "--steps", "240"])
    assert len(numbers(Path("whole"), "scores.jsonl")) > 5
    assert int(checkpoint.load(checkpoint.latest("whole")).state["agent"]["clock"]["updates"]) > 10
    assert_same_run(Path("whole"), Path("parts"))


def test_a_metric_interval_survives_the_stop(fakes, quiet):
    """The stop at 60 lies in the middle of the interval 40..80; its line must hold the updates of both halves."""
    main(fakes.app, ["train", "--preset", "tiny", "--logdir", "parts", "--steps", "60"])
    assert [row["step"] // 40 for row in numbers(Path("parts"), "metrics.jsonl")] == [1, 1]
    held = checkpoint.load(checkpoint.latest("parts")).state["loop"]
    assert held["counts"]["loss/reward"] > 0
    assert torch.is_tensor(held["sums"]["loss/reward"])


def test_the_last_part_of_an_interval_is_logged_at_a_runs_end(fakes, quiet):
    """As the line that a run which logs there writes: 104 lies in the middle of 80..120, and log_every of 26 ends there."""
    main(fakes.app, ["train", "--preset", "tiny", "--steps", "104", "--logdir", "D"])
    rows = numbers(Path("D"), "metrics.jsonl")
    end = checkpoint.load(checkpoint.latest("D"))
    assert [row["step"] for row in rows[:-1]] == [40, 80] and rows[-1]["step"] == end.step >= 104
    assert rows[-1]["train/updates"] == int(end.state["agent"]["clock"]["updates"]) > rows[-2]["train/updates"]
    loop = end.state["loop"]
    mean = float(loop["sums"]["loss/reward"]) / loop["counts"]["loss/reward"]
    assert loop["counts"]["loss/reward"] == rows[-1]["train/updates"] - rows[-2]["train/updates"]
    assert rows[-1]["train/loss/reward"] == pytest.approx(mean) and rows[-1].keys() == rows[-2].keys()
    main(fakes.app, ["train", "--logdir", "D"])  # a finished run started again
    assert numbers(Path("D"), "metrics.jsonl") == rows


def test_a_stop_logs_no_part_of_an_interval(fakes, quiet):
    fakes.envs.events[17] = fakes.signals["term"]
    with pytest.raises(SystemExit):
        main(fakes.app, ["train", "--preset", "tiny", "--logdir", "D"])
    assert all(row["step"] % 40 < 8 for row in numbers(Path("D"), "metrics.jsonl"))


def test_evaluations_and_checkpoints_leave_no_trace(fakes, quiet):
    main(fakes.app, ["train", "--preset", "tiny", "--logdir", "plain"])
    main(fakes.app, ["train", "--preset", "tiny", "--logdir", "busy", "--save-every", "20", "--eval-every", "60"])
    rows = numbers(Path("busy"), "metrics.jsonl")
    assert sum("eval/score" in row for row in rows) == 4
    assert [row for row in rows if "eval/score" not in row] == numbers(Path("plain"), "metrics.jsonl")
    one, other = (checkpoint.load(checkpoint.latest(path)) for path in ("plain", "busy"))
    assert_same(one.weights, other.weights)


@pytest.mark.parametrize("name, code", [("term", 143), ("int", 130), ("hup", 129), ("usr1", 138), ("usr2", 140)])
def test_a_signal_saves_and_the_run_goes_on_as_if_nothing_had_been(fakes, quiet, capsys, name, code):
    main(fakes.app, ["train", "--preset", "tiny", "--logdir", "whole"])
    fakes.envs.events[17] = fakes.signals[name]
    with pytest.raises(SystemExit) as stopped:
        main(fakes.app, ["train", "--preset", "tiny", "--logdir", "parts"])
    assert stopped.value.code == code
    step = checkpoint.load(checkpoint.latest("parts")).step
    assert 0 < step < 240
    said = capsys.readouterr().err
    assert f"stopped at step {step}; to go on: fakeapp train --logdir parts" in said
    assert f"(kept: parts/checkpoint/{step})" in said
    fakes.envs.events.clear()
    main(fakes.app, ["train", "--logdir", "parts"])
    assert_same_run(Path("whole"), Path("parts"))


def test_two_signals_in_one_instant_are_one(fakes, quiet, capsys):
    """As `uv run` and `timeout` deliver a Ctrl-C: the terminal has sent it to all of them already."""
    main(fakes.app, ["train", "--preset", "tiny", "--logdir", "whole"])
    fakes.envs.events[17] = lambda: [fakes.signals[name]() for name in ("int", "int", "term")] and None
    with pytest.raises(SystemExit) as stopped:
        main(fakes.app, ["train", "--preset", "tiny", "--logdir", "parts"])
    step = checkpoint.load(checkpoint.latest("parts")).step
    assert stopped.value.code == 130 and f"stopped at step {step}; to go on" in capsys.readouterr().err
    fakes.envs.events.clear()
    main(fakes.app, ["train", "--logdir", "parts"])
    assert_same_run(Path("whole"), Path("parts"))


@pytest.mark.parametrize("update", [14, 30, 31])
def test_a_stop_is_heard_between_two_of_many_updates(fakes, quiet, monkeypatch, update):
    """Ten are due an iteration; what is left of them is made up for before anybody acts again."""
    options = ["--preset", "tiny", "--train-ratio", "40", "--steps", "80", "--save-every", "10"]
    main(fakes.app, ["train", *options, "--logdir", "whole"])
    real, made = fakes.agent.learn, []

    def learn(self, replay):
        made.append(len(made))
        if len(made) == update:
            fakes.signals["term"]()
        return real(self, replay)

    with monkeypatch.context() as patch:
        patch.setattr(fakes.agent, "learn", learn)
        with pytest.raises(SystemExit):
            main(fakes.app, ["train", *options, "--logdir", "parts"])
    assert len(made) == update
    saved = checkpoint.load(checkpoint.latest("parts")).state
    assert int(saved["agent"]["clock"]["updates"]) == update
    assert (saved["loop"]["due"] > 0) == (saved["loop"]["arrived"] is not None) == (update % 10 != 1)
    main(fakes.app, ["train", "--logdir", "parts"])
    assert_same_run(Path("whole"), Path("parts"))


def test_a_failure_of_the_environments_saves_the_run_which_goes_on_when_they_are_well(fakes, quiet, capsys):
    main(fakes.app, ["train", "--preset", "tiny", "--logdir", "whole"])
    fakes.envs.events[17] = lambda: setattr(fakes.envs, "failure", "nobody listens on port 5")
    try:
        with pytest.raises(SystemExit) as stopped:
            main(fakes.app, ["train", "--preset", "tiny", "--logdir", "parts"])
    finally:
        fakes.envs.failure = ""
    step = checkpoint.load(checkpoint.latest("parts")).step
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and 100 < step < 240
    assert f"fakeapp: nobody listens on port 5; the run is saved at step {step}" in said
    assert "go on: fakeapp train --logdir parts" in said
    fakes.envs.events.clear()
    main(fakes.app, ["train", "--logdir", "parts"])
    assert_same_run(Path("whole"), Path("parts"))


def test_records_that_had_failed_to_come_are_those_to_go_on_from(fakes, quiet, monkeypatch):
    main(fakes.app, ["train", "--preset", "tiny", "--steps", "60", "--logdir", "D"])
    seen, load, act = [], fakes.envs.load_state, fakes.agent.act
    monkeypatch.setattr(fakes.envs, "load_state", lambda self, state: load(self, state) or self.reset(99))
    monkeypatch.setattr(fakes.agent, "act", lambda self, c, step, **how: seen.append(step) or act(self, c, step, **how))
    main(fakes.app, ["train", "--logdir", "D", "--steps", "80"])
    assert all(step["first"].all() for step in seen[:2])  # also what the room for the run is measured with


def test_signal_handlers_are_put_back(fakes, quiet):
    import signal

    before = [signal.getsignal(number) for number in ASKING]
    main(fakes.app, ["train", "--preset", "tiny", "--logdir", "D", "--steps", "20"])
    assert [signal.getsignal(number) for number in ASKING] == before and len(before) == 5


@pytest.mark.parametrize("limit", ["10000000", "20000"])
def test_a_crash_goes_back_to_the_last_checkpoint_and_equals_the_unbroken_run(fakes, quiet, limit):
    """Steps, write-backs, evictions (with the small limit) and rows of logs since then are undone."""

    def crash():
        raise RuntimeError("power cut")

    options = ["--preset", "tiny", "--chunk", "4", "--replay-bytes", limit]
    main(fakes.app, ["train", *options, "--logdir", "whole"])
    fakes.envs.events[25] = crash
    with pytest.raises(RuntimeError, match="power cut"):
        main(fakes.app, ["train", *options, "--logdir", "D"])
    assert list(Path("D/replay").glob("*.undo"))
    saved = checkpoint.load(checkpoint.latest("D")).step
    assert 100 <= saved < 180
    fakes.envs.events.clear()
    main(fakes.app, ["train", "--logdir", "D"])
    assert_same_run(Path("whole"), Path("D"))
    chunks = len(list(Path("D/replay").glob("*.chunk")))
    assert chunks == (9 if limit == "10000000" else 2)


def test_a_replay_that_needs_the_room_makes_the_run_save(fakes, quiet):
    options = ["--preset", "tiny", "--chunk", "4", "--save-every", "100", "--keep", "9"]
    main(fakes.app, ["train", *options, "--logdir", "roomy"])
    main(fakes.app, ["train", *options, "--logdir", "tight", "--replay-bytes", "20000"])
    saved = {name: len(list(Path(name, "checkpoint").glob("[0-9]*"))) for name in ("roomy", "tight")}
    assert saved["roomy"] == 3 < saved["tight"]


def test_a_crash_before_the_first_checkpoint_begins_anew(fakes, quiet):
    def crash():
        raise RuntimeError("power cut")

    fakes.envs.events[12] = crash
    with pytest.raises(RuntimeError):
        main(fakes.app, ["train", "--preset", "tiny", "--logdir", "D"])
    fakes.envs.events.clear()
    main(fakes.app, ["train", "--logdir", "D"])
    main(fakes.app, ["train", "--preset", "tiny", "--logdir", "whole"])
    assert_same_run(Path("whole"), Path("D"))
