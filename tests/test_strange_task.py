"""A received run folder, or recording, names code as its task: that is run where this account asked for it before, or says so."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from dreamer.cli import APP
from wm_core.errors import UserError
from wm_run import as_env
from wm_run.cli import main
from wm_run.command import main as wm_run
from wm_run.trust import asked_for

QUICK = ("--preset", "tiny", "--device", "cpu", "--workers", "0", "--final-video", "False", "--envs", "1")
WALK = """
import gymnasium, numpy as np
from pathlib import Path
Path("ran").touch()
class Walk(gymnasium.Env):
    def __init__(self, note: str = ""):
        self.observation_space, self.action_space = gymnasium.spaces.Box(0, 1, (3,)), gymnasium.spaces.Discrete(2)
        if note:
            Path(note).touch()
    def reset(self, *, seed=None, options=None): self.t = 0; return np.zeros(3, np.float32), {}
    def step(self, action): self.t += 1; return np.zeros(3, np.float32), 0.0, self.t > 3, False, {}
"""
TASK = 'task = "toy:catch"'


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a module `walks_here`, of an account that has asked for nothing yet."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("ENV_ADAPTERS_TRUST", "0")  # so that it is put back
    monkeypatch.delenv("ENV_ADAPTERS_TRUST")
    work = tmp_path / "work"
    work.mkdir()
    (work / "walks_here.py").write_text(WALK)
    monkeypatch.chdir(work)
    monkeypatch.syspath_prepend(str(work))
    monkeypatch.delitem(sys.modules, "walks_here", raising=False)
    return work


@pytest.fixture(scope="module")
def catch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "D"
    main(APP, ["train", *QUICK, "--task", "toy:catch", "--steps", "4", "--logdir", str(folder)])
    return folder


def received(source: Path, task: str, options: str = "") -> Path:
    """The run folder as somebody sends it, with another task."""
    folder = Path(shutil.copytree(source, "received"))
    text = (folder / "config.toml").read_text()
    assert TASK in text and "[env]\n" in text
    text = text.replace(TASK, f'task = "{task}"').replace("[env]\n", f"[env]\n{options}\n")
    (folder / "config.toml").write_text(text)
    return folder


def refused(words: list[str], capsys: Any) -> str:
    """What is said of it, in one sentence. The words are of the app, or begin with `wm-run`."""
    capsys.readouterr()
    if words[0] == "wm-run":
        assert wm_run(words[1:]) == 2
    else:
        with pytest.raises(SystemExit) as stop:
            main(APP, words)
        assert stop.value.code == 2
    said: str = capsys.readouterr().err
    assert said.count("\n") == 1, said
    return said


@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("subprocess:getoutput", 'cmd = "touch ran"'),
        ("os:system", 'command = "touch ran"'),
        ("walks_here:Walk", ""),
        ("gym:walks_here:Walk-v0", ""),
        ("zoo:walks_here", ""),
    ],
)
def test_a_received_run_folder_runs_no_code_that_it_names(
    place: Path, catch: Path, capsys: Any, task: str, options: str
) -> None:
    received(catch, task, options)
    wanted = "is not run on the word of a folder that you did not begin here"
    every = ("play", "dream", "export", "publish", "info --logdir") if task.startswith("subprocess") else ()
    for words in ("eval", "train --logdir", *every):
        assert wanted in refused([*words.split(), "received"], capsys), words
    with pytest.raises(ValueError, match=wanted):
        APP.load("received")
    with pytest.raises(ValueError, match=wanted):
        as_env("received")
    for line in ("wm-run collect toy:catch --to R --steps 8 --who received", "wm-run microscope received"):
        assert wanted in refused(line.split(), capsys), line
    assert not Path("ran").exists() and not asked_for().exists()
    with pytest.raises(SystemExit):  # as says who trusts it: the task is no environment, or another one
        main(APP, ["eval", "received", "--trust"])
    assert "on the word of" not in capsys.readouterr().err and Path("ran").exists()
    assert not asked_for().exists()


def test_the_options_are_the_files_word_too(place: Path, catch: Path, capsys: Any) -> None:
    """Though the task is typed, and is the user's own."""
    received(catch, "walks_here:Walk", 'note = "noted"')
    assert "on the word of a folder" in refused(["eval", "received", "--task", "walks_here:Walk"], capsys)
    assert not Path("noted").exists()
    refused(["eval", "received", "--task", "walks_here:Walk", "--env.note", "mine"], capsys)  # weights do not fit
    assert Path("mine").exists() and not Path("noted").exists()


def test_what_one_has_trained_oneself_asks_for_nothing(place: Path, capsys: Any) -> None:
    main(APP, ["train", *QUICK, "--task", "walks_here:Walk", "--env.note", "mine", "--steps", "6", "--logdir", "D"])
    [line] = map(json.loads, asked_for().read_text().splitlines())
    assert line == {"task": "walks_here:Walk", "env": {"note": "mine"}, "code": f"walks_here {place / 'walks_here.py'}"}
    main(APP, ["train", "--logdir", "D", "--steps", "8"])
    main(APP, ["eval", "D", "--episodes", "1"])
    assert APP.load("D").step == 8
    main(APP, ["publish", "D", "--to", "gift"])
    main(APP, ["eval", "gift", "--episodes", "1"])
    assert len(asked_for().read_text().splitlines()) == 1
    text = Path("D/config.toml").read_text()
    Path("D/config.toml").write_text(text.replace('note = "mine"', 'note = "other"'))
    assert "on the word of a folder" in refused(["eval", "D"], capsys)
    Path("D/config.toml").write_text(text)


def test_a_module_of_the_same_name_in_another_folder_is_another(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    main(APP, ["train", *QUICK, "--task", "walks_here:Walk", "--steps", "6", "--logdir", "D"])
    shutil.copytree(place, tmp_path / "sent")
    monkeypatch.setattr(sys, "path", [one for one in sys.path if one != str(place)])
    monkeypatch.delitem(sys.modules, "walks_here")
    monkeypatch.chdir(tmp_path / "sent")
    Path("ran").unlink()
    assert "on the word of a folder" in refused(["eval", "D"], capsys)
    assert not Path("ran").exists()
    main(APP, ["eval", "D", "--episodes", "1", "--task", "walks_here:Walk"])


def test_where_nothing_can_be_noted_it_is_said_and_the_task_is_typed(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (tmp_path / "state").write_text("no folder")
    agent = APP.train("walks_here:Walk", preset="tiny", device="cpu", workers=0, final_video=False, steps=6, logdir="D")
    assert agent.step == 6 and "give them --task walks_here:Walk, or --trust" in capsys.readouterr().err
    assert "on the word of a folder" in refused(["eval", "D"], capsys)
    main(APP, ["eval", "D", "--episodes", "1", "--task", "walks_here:Walk"])
    with pytest.raises(UserError, match="on the word of a folder"):
        APP.train(preset="tiny", logdir="D", steps=8)


def test_an_account_without_a_home_is_told_the_same(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setattr(Path, "home", staticmethod(nowhere))
    APP.train("walks_here:Walk", preset="tiny", device="cpu", workers=0, final_video=False, steps=6, logdir="D")
    assert "the list of tasks asked for cannot be written" in capsys.readouterr().err
    assert "on the word of a folder" in refused(["eval", "D"], capsys)


def test_a_received_recording_runs_no_code_that_it_names(place: Path, capsys: Any, monkeypatch: Any) -> None:
    wm_run(["collect", "walks_here:Walk", "--to", "R", "--steps", "60", "--envs", "1", "--workers", "0"])
    learn = ["train", *QUICK, "--data", "R", "--steps", "6", "--length", "4"]
    learn += ["--eval_every", "2", "--final_episodes", "1"]
    main(APP, [*learn, "--logdir", "D"])  # who collected it plays it
    asked_for().unlink()
    monkeypatch.delitem(sys.modules, "walks_here")
    Path("ran").unlink()
    capsys.readouterr()
    main(APP, [*learn, "--logdir", "E"])  # it learns, and plays nowhere
    assert capsys.readouterr().err.count("on the word of a folder") == 4
    assert not Path("ran").exists() and not asked_for().exists()


def test_no_module_is_imported_as_an_app_but_an_installed_one(place: Path, catch: Path, capsys: Any) -> None:
    received(catch, "toy:catch")
    text = Path("received/config.toml").read_text()
    Path("received/config.toml").write_text(text.replace('app = "dreamer"', 'app = "walks_here"'))
    for line in ("wm-run microscope received", "wm-run collect toy:catch --to R --steps 8 --who received"):
        said = refused(line.split(), capsys)
        assert "wm-app-walks-here" in said and "--trust" in said
    assert not Path("ran").exists()
