"""Learning from a recording: that its law finds what does not hold, kills, no task at all, and going on in the environment."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dreamer.cli import APP
from wm_core.agent import Agent
from wm_core.errors import UserError
from wm_run import held_out, play
from wm_run.cli import parse
from wm_run.loading import runtime
from wm_run.loop import Position
from wm_run.offline import Made
from wm_run.play import film
from wm_run.recording import About, Recording
from wm_run.stand_in import settle
from wm_run.testing import Failed, check_data, check_killed
from wm_run.testing import data as law

TINY = ["--preset", "tiny", "--device", "cpu"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return law.random_recording(APP, tmp_path_factory.mktemp("data") / "recording", TINY)


@pytest.fixture(scope="module")
def nameless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, of no task that anybody knows."""
    with pytest.MonkeyPatch.context() as patch:
        known = About.of

        def unknown(envs: Any, task: str = "", options: Any = None) -> About:
            return dataclasses.replace(known(envs, task, options), task="")

        patch.setattr(law.About, "of", unknown)
        return law.random_recording(APP, tmp_path_factory.mktemp("data") / "nameless", TINY)


def test_the_law_finds_a_run_that_forgets_how_many_updates_it_made(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(Made, "load_state", Position.load_state)
    with pytest.raises(Failed, match="killed while it learned from a recording and resumed differs"):
        check_data(APP, tmp_path)


def test_the_law_finds_a_behaviour_that_learns_beside_the_world_model_alone(tmp_path, folder, monkeypatch) -> None:
    monkeypatch.setattr(Agent, "updating", property(lambda agent: agent.update))
    begin = ["train", *TINY, "--data", folder, "--steps", 12, "--final-video", "False"]
    config = runtime(parse(APP, ["train", *TINY]).config)
    with pytest.raises(Failed, match=r"moves the weights of \['behaviour', 'world'\]"):
        law.check_alone(APP, tmp_path / "alone", config, folder, begin)


def test_the_law_finds_held_out_losses_that_draw_from_the_run(folder: Path, monkeypatch) -> None:
    @contextmanager
    def nothing(agent: Agent, source: Any) -> Iterator[None]:
        yield

    monkeypatch.setattr(held_out, "drawing_from", nothing)
    with pytest.raises(Failed, match="held-out losses"):
        law.check_held_out(APP, runtime(parse(APP, ["train", *TINY]).config), folder)


def test_killed_by_the_system_it_is_the_run_that_was_left_alone(tmp_path: Path, folder: Path) -> None:
    options = ["--preset", "tiny", "--device", "cpu", "--data", str(folder), "--save-every", "8", "--log-every", "8"]
    options += ["--final-video", "False", "--held-out-every", "8"]
    check_killed("dreamer", options, tmp_path, steps=60, kills=2, places=("annotate", "time"))


def test_bytes_that_are_not_what_was_recorded_are_not_learned_from(tmp_path: Path, folder: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    path = next((copy / "train").glob("*.chunk"))
    data = bytearray(path.read_bytes())
    data[3] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"is not what was saved .*: copy the recording again"):
        settle(APP, parse(APP, ["train", *TINY, "--data", str(copy)]))


def test_no_values_are_aligned_with_that_nobody_learns() -> None:
    with pytest.raises(UserError, match="none are learned: leave out one of them"):
        parse(APP, ["train", *TINY, "--var", "True", "--behaviour", "False"])


def test_what_it_learned_goes_on_in_the_environment(run, tmp_path: Path, folder: Path, capfd) -> None:
    run("train", *TINY, "--data", folder, "--steps", 20, "--final-video", "False", "--logdir", tmp_path / "D")
    run("eval", tmp_path / "D", "--episodes", 2)
    further = ["--init-from", tmp_path / "D", "--task", "toy:catch", "--steps", 60, "--final-video", "False"]
    run("train", *TINY, *further, "--logdir", tmp_path / "E")
    assert f"weights of {tmp_path / 'D'}" in capfd.readouterr().err
    assert (tmp_path / "E/scores.jsonl").read_text()


def test_without_a_task_it_dreams_recorded_rows_and_plays_nowhere(run, tmp_path, nameless, short_films, capfd) -> None:
    logdir = tmp_path / "D"
    run("train", *TINY, "--data", nameless, "--steps", 20, "--logdir", logdir, "--length", 4, "--eval-every", 10)
    said = capfd.readouterr()
    assert "openloop-20.mp4" in said.out and "policy-20" not in said.out and " eval " not in said.out
    assert "toy:catch" not in said.out + said.err
    run("dream", logdir, "--imagined", 10)
    assert json.loads((logdir / "dream/20.json").read_text())["rows"] > 0
    for words in (["eval"], ["play"], ["play", "--dream", "--browser"]):
        with pytest.raises(SystemExit):
            run(*words[:1], logdir, *words[1:])
        assert "name it with --task" in capfd.readouterr().err.replace("name an environment of its spaces", "name it")
    run("eval", logdir, "--task", "toy:catch", "--episodes", 2)


def test_a_dream_begins_in_recorded_steps_where_no_task_is_known(run, tmp_path, nameless, capfd, monkeypatch) -> None:
    """What is observed before it is what was recorded, with the actions that were taken; then the policy acts."""
    logdir = tmp_path / "D"
    run("train", *TINY, "--data", nameless, "--steps", 20, "--logdir", logdir, "--final-video", "False")
    seen: list[Any] = []

    def watched(moments: Iterator[Any], episodes: int, frames: int) -> Any:
        seen.extend(islice(moments, frames))
        return film(iter(seen), episodes, frames)

    monkeypatch.setattr(play, "film", watched)
    run("play", logdir, "--dream", "--observed", 12, "--frames", 16)
    assert (logdir / "video/play_dream-20.mp4").stat().st_size and "play_dream-20.mp4" in capfd.readouterr().out
    there = list(Recording.open(nameless).records("held_out"))
    observed = [moment for moment in seen if not moment.imagined][:12]
    for t, moment in enumerate(observed):
        assert np.array_equal(moment.seen, there[t]["image"][0])
        assert moment.reward == there[t]["reward"][0]
        if t < 11:  # the last of them leads into the dream
            assert moment.who == "recording"
            assert np.array_equal(moment.action, there[t + 1]["action"][0])
    assert observed[11].who == "policy" and seen[12].imagined
