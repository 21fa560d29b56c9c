"""Runs that are told to end, whose reader has gone, or whose task has no room for a second set of environments."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from wm_core.ranks import learning_with
from wm_run import checkpoint, dreams
from wm_run.cli import main
from wm_run.openloop import OpenLoop
from wm_run.progress import Progress
from wm_run.stop import GRACE, Stop, heeded, say

TRAIN = ["train", "--preset", "tiny", "--logdir", "D"]


@pytest.fixture(autouse=True)
def dreaming(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake app has no world model to dream with, and films take seconds."""

    def perfect(agent: Any, batch: Any, context: int, *, seed: int = 0) -> dict[str, OpenLoop]:
        true = batch.steps["image"].float().mean((2, 3)) / 255
        return {"image": OpenLoop("image", true, true, context, ~batch.steps["first"])}

    monkeypatch.setattr(dreams, "openloop", perfect)
    monkeypatch.setattr(dreams, "DREAM_STEPS", 60)
    monkeypatch.setattr("wm_run.folder.write_video", lambda path, frames, fps: path.touch())


def step_of(run: str = "D") -> int:
    path = checkpoint.latest(run)
    return 0 if path is None else int(path.name)


# ---- signals


def test_only_a_second_ctrl_c_after_the_grace_interrupts() -> None:
    now = [5.0]
    stop = Stop(lambda: now[0])
    stop.note(signal.SIGTERM)
    now[0] += GRACE * 0.99
    stop.note(signal.SIGINT), stop.note(signal.SIGINT)
    now[0] += GRACE
    stop.note(signal.SIGTERM), stop.note(signal.SIGHUP)
    assert stop and stop.first == signal.SIGTERM
    with pytest.raises(KeyboardInterrupt):
        stop.note(signal.SIGINT)


def test_what_is_ignored_or_has_a_handler_keeps_it() -> None:
    """`nohup` ignores SIGHUP, so that a run outlives its terminal."""
    mine = signal.signal(signal.SIGUSR1, lambda *_: None), signal.signal(signal.SIGHUP, signal.SIG_IGN)
    before = signal.getsignal(signal.SIGUSR1)
    try:
        with heeded() as stop:
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN and signal.getsignal(signal.SIGUSR1) == before
            assert signal.getsignal(signal.SIGTERM) == stop.note
    finally:
        signal.signal(signal.SIGUSR1, mine[0]), signal.signal(signal.SIGHUP, mine[1])


def test_a_thread_other_than_the_main_one_has_no_handlers_and_no_trouble() -> None:
    found: list[bool] = []

    def run() -> None:
        with heeded() as stop:
            found.append(bool(stop))

    thread = threading.Thread(target=run)
    thread.start(), thread.join()
    assert found == [False]


def test_who_ends_at_once_is_told_what_was_kept(fakes: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wm_run.stop.GRACE", 0.0)

    def twice() -> None:
        fakes.signals["int"](), fakes.signals["int"]()

    fakes.envs.events[17] = twice
    with pytest.raises(SystemExit) as stopped:
        main(fakes.app, TRAIN)
    assert stopped.value.code == 130
    said = capsys.readouterr().err
    assert f"without saving; kept is D/checkpoint/{step_of()}; to go on from there: fakeapp train --logdir D" in said
    fakes.envs.events[3] = fakes.envs.events.pop(17)
    with pytest.raises(SystemExit):
        main(fakes.app, [*TRAIN[:-1], "E"])
    assert "no checkpoint had been made" in capsys.readouterr().err and step_of("E") == 0


@pytest.mark.parametrize(("call", "nth"), [(50, 1), (8, 2)])
def test_a_stop_is_heard_in_the_videos_and_the_evaluation_at_the_end(
    fakes: Any, capsys: Any, call: int, nth: int
) -> None:
    """Training takes 30 calls of its environments; those of the film take more, those of the evaluation come second."""
    reached: list[int] = []
    fakes.envs.events[call] = lambda: reached.append(1) or (fakes.signals["term"]() if len(reached) == nth else None)
    with pytest.raises(SystemExit) as stopped:
        main(fakes.app, [*TRAIN, "--final-episodes", "4"])
    assert stopped.value.code == 143 and step_of() == 240
    out, said = capsys.readouterr()
    assert "finished at step 240" in out and "video  " not in out and ("evaluation  " in out) == (call == 50)
    assert ("no video at the end: the run was told to stop" in said) == (call == 50)
    assert not Path("D/video/policy-240.mp4").exists()
    assert "stopped before evaluation and videos of the end were made; the run is saved at its last step, 240" in said


@pytest.mark.parametrize(("call", "nth", "told"), [(8, 2, ""), (55, 1, "no evaluation at step 104: the run was told")])
def test_a_stop_is_heard_in_an_evaluation_on_the_way_and_in_its_open_loop(
    fakes: Any, capsys: Any, call: int, nth: int, told: str
) -> None:
    """The second to make 8 calls are the evaluation's environments, the first to make 55 those of the open loop."""
    reached: list[int] = []
    fakes.envs.events[call] = lambda: reached.append(1) or (fakes.signals["term"]() if len(reached) == nth else None)
    with pytest.raises(SystemExit) as stopped:
        main(fakes.app, [*TRAIN, "--eval-every", "100", "--eval-episodes", "4"])
    assert stopped.value.code == 143 and step_of() == 104
    assert told in capsys.readouterr().err
    assert not evaluated("D")
    main(fakes.app, ["train", "--logdir", "D"])  # it is made up for, once
    main(fakes.app, [*(word.replace("D", "E") for word in TRAIN), "--eval-every", "100", "--eval-episodes", "4"])
    assert evaluated("D") == evaluated("E") and evaluated("D")[0][0] == 104


def test_one_that_is_made_up_for_and_stopped_again_stays_owed_until_nobody_wants_it(fakes: Any) -> None:
    """The second to make 8 calls are the evaluation's environments; of a run that goes on, which makes more itself, too."""

    def train(*words: str, stop: bool) -> int:
        reached: list[int] = []
        tell = fakes.signals["term"]
        fakes.envs.events[8] = lambda: reached.append(1) or (tell() if stop and len(reached) == 2 else None)
        try:
            main(fakes.app, ["train", "--logdir", "D", *words])
        except SystemExit as ended:
            return int(ended.code or 0)
        return 0

    for _ in range(3):
        assert train(*TRAIN[1:3], "--eval-every", "100", "--eval-episodes", "4", stop=True) == 143 and step_of() == 104
        assert not evaluated("D")
    assert train("--eval-every", "0", stop=False) == 0 and step_of() == 240 and not evaluated("D")


def test_a_film_on_the_way_that_a_stop_comes_between_is_made_when_the_run_goes_on(fakes: Any) -> None:
    """Those of the film are the first environments to make 55 calls."""
    reached: list[int] = []
    fakes.envs.events[55] = lambda: reached.append(1) or (fakes.signals["term"]() if len(reached) == 1 else None)
    with pytest.raises(SystemExit):
        main(fakes.app, [*TRAIN, "--video-every", "100"])
    assert step_of() == 104 and not list(Path("D").glob("video/*-104.mp4"))
    main(fakes.app, ["train", "--logdir", "D"])
    assert list(Path("D").glob("video/*-104.mp4"))


def evaluated(folder: str) -> list[tuple[int, float]]:
    rows = [json.loads(line) for line in Path(folder, "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row["eval/score"]) for row in rows if "eval/score" in row]


# ---- nobody reads


class Broken:
    """A stream whose reader has gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")

    def flush(self) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    def isatty(self) -> bool:
        return False


@pytest.mark.parametrize("stream", [Broken(), None])
def test_a_run_whose_reader_has_gone_goes_on(fakes: Any, monkeypatch: pytest.MonkeyPatch, stream: Any) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    fakes.envs.events[20] = fakes.signals["hup"]  # as when its terminal is closed
    with pytest.raises(SystemExit) as stopped:
        main(fakes.app, TRAIN)
    assert stopped.value.code == 129 and step_of() > 100
    say("nobody reads")
    with Progress(10, every=0.0) as progress:
        progress.update(5)


# ---- one set of environments at a time


@pytest.fixture
def single(fakes: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The task has one port; how many environments each set had."""
    alive: list[Any] = []
    sets: list[int] = []
    make, close = fakes.app.environments, fakes.envs.close

    def environments(config: Any, n: int) -> Any:
        if alive:
            raise OSError(98, "Address already in use")
        sets.append(n)
        alive.append(make(config, n))
        return alive[0]

    def leave(self: Any) -> None:
        close(self)
        if self in alive:
            alive.remove(self)

    monkeypatch.setattr(fakes.envs, "close", leave)
    object.__setattr__(fakes.app, "environments", environments)
    return sets


def test_a_task_with_room_for_one_set_is_trained_to_its_end(fakes: Any, capsys: Any, single: list[int]) -> None:
    main(fakes.app, [*TRAIN, "--eval-every", "100", "--video-every", "100", "--envs", "1"])
    out, said = capsys.readouterr()
    assert step_of() == 240 and single[0] == 1
    for what in ("evaluation", "video"):
        assert f"no {what} at step 100: no environments could be made for it (OSError: [Errno 98] Address" in said
    assert said.count("(if only one set of them may live at a time, --exclusive True says so)") == 4
    assert "video       D/video/policy-240.mp4" in out  # at the end the run's own are closed


def test_a_task_that_says_so_is_not_asked_for_a_second_set(fakes: Any, capsys: Any, single: list[int]) -> None:
    more = ["--eval-every", "100", "--video-every", "100", "--envs", "1", "--exclusive", "True"]
    main(fakes.app, [*TRAIN, *more])
    out, said = capsys.readouterr()
    assert step_of() == 240 and "left out: the task has room for one set of environments (exclusive)" in said
    assert "no evaluation" not in said and set(single) == {1}  # the film's and the open loop's, too
    assert "video       D/video/policy-240.mp4" in out


class Death(BaseException):
    """A licence server that kills."""


def test_the_run_is_saved_before_it_first_makes_a_second_set(fakes: Any) -> None:
    make, sets = fakes.app.environments, []

    def environments(config: Any, n: int) -> Any:
        sets.append(n)
        if len(sets) > 1:
            raise Death
        return make(config, n)

    object.__setattr__(fakes.app, "environments", environments)
    for name, every in (("D", "60"), ("E", "20")):
        sets.clear()
        with pytest.raises(Death):
            main(fakes.app, [*TRAIN[:-1], name, "--eval-every", every])
        assert int(every) <= step_of(name) < int(every) + 8
    sets.clear()
    with contextlib.suppress(Death):
        main(fakes.app, ["train", "--logdir", "D"])  # goes on beyond it
    assert step_of() >= 120


def test_a_choice_made_for_the_user_is_measured_before_the_runs_own_environments_are_made(
    fakes: Any, single: list[int]
) -> None:
    main(fakes.app, ["train", "--device", "cpu", "--steps", "20", "--logdir", "D", "--envs", "1"])
    assert step_of() == 20


def test_the_last_videos_can_be_left_out(fakes: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    make = fakes.app.environments
    object.__setattr__(fakes.app, "environments", lambda config, n: made.append(n) or make(config, n))
    main(fakes.app, [*TRAIN, "--final-video", "False"])
    assert made == [2] and "video  " not in capsys.readouterr().out and not Path("D/video").exists()


def test_films_that_cannot_be_made_cost_a_finished_run_nothing(
    fakes: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(session: Any, step: int) -> None:
        raise fakes.refusal("there is no screen")

    monkeypatch.setattr(dreams, "videos", refuse)
    main(fakes.app, TRAIN)
    out, said = capsys.readouterr()
    assert "finished at step 240" in out and "no video at the end: there is no screen" in said


def test_a_fault_of_ours_in_a_film_is_not_hidden(fakes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(session: Any, step: int) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(dreams, "videos", wrong)
    with pytest.raises(ZeroDivisionError):
        main(fakes.app, TRAIN)
    assert step_of() == 240 and np.isfinite(step_of())


# ---- several processes


class Others:
    """Of two processes this is the first; at some question the other says that it was told to stop, or that an environment
    of its has failed."""

    index, count, asked = 0, 2, 0

    def __init__(self, *, stopped: bool = False) -> None:
        self.says = (0, 1, 0) if stopped else (0, 0, 1)  # room, stops, failures: asked before each iteration

    def total(self, *numbers: int) -> list[int]:
        if len(numbers) == 3:
            self.asked += 1
            return [mine + other * (self.asked == 20) for mine, other in zip(numbers, self.says, strict=True)]
        return list(numbers)


def test_a_failure_in_another_process_saves_this_one_at_the_same_step(fakes: Any, capsys: Any) -> None:
    with learning_with(Others()), pytest.raises(SystemExit) as stopped:
        main(fakes.app, TRAIN)
    assert stopped.value.code == 2 and 100 <= step_of() < 240
    said = capsys.readouterr().err
    assert (
        f"an environment of another process failed, and that one says why; the run is saved at step {step_of()}" in said
    )


def test_a_stop_that_another_process_heard_of_is_this_ones_too(fakes: Any, capsys: Any) -> None:
    """It may never be told itself; without this it takes itself for finished, scores and films, and ends with 0."""
    with learning_with(Others(stopped=True)), pytest.raises(SystemExit) as stopped:
        main(fakes.app, TRAIN)
    out, said = capsys.readouterr()
    at, lines = step_of(), [json.loads(line)["step"] for line in Path("D/metrics.jsonl").read_text().splitlines()]
    assert stopped.value.code == 128 + signal.SIGTERM and 100 <= at < 240
    assert f"stopped at step {at}; to go on: " in said and "finished" not in out and not Path("D/eval").exists()
    assert lines == sorted(set(lines)) and at not in lines  # its interval is told when the run goes on


def test_many_updates_at_once_are_told_and_can_be_stopped(
    fakes: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing else is asked while they are made, which may take minutes."""
    told: list[int] = []
    real = Progress.countdown

    def countdown(self: Progress, name: str, left: int) -> None:
        real(self, name, left)
        told.extend([left] if left else [])
        if told[-1:] == [20]:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Progress, "countdown", countdown)
    with pytest.raises(SystemExit) as stop:
        main(fakes.app, [*TRAIN, "--first_updates", "40", "--final_video", "False"])
    assert stop.value.code == 128 + signal.SIGTERM and told == list(range(39, 19, -1))
    monkeypatch.setattr(Progress, "countdown", real)
    main(fakes.app, ["train", "--logdir", "D", "--final_video", "False"])
    assert "updates due" not in capsys.readouterr().err.splitlines()[-1]
