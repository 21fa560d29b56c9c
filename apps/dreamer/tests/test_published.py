"""A published agent of a real app: what it says of its task is a stranger's word, and runs no module that it names."""

from __future__ import annotations

import dataclasses
import sys
from contextlib import closing
from pathlib import Path

import pytest
from dreamer.cli import APP
from wm_run import inference, published
from wm_run.app import Origin
from wm_run.cli import main
from wm_run.configs import resolve, write_run
from wm_run.loading import build, environments, runtime
from wm_run.toml import to_toml

EVIL = """
import os, gymnasium, numpy as np
os.mkdir("pwned")
class Evil(gymnasium.Env):
    observation_space, action_space = gymnasium.spaces.Box(0, 1, (1,)), gymnasium.spaces.Discrete(2)
    def reset(self, *, seed=None, options=None): return np.zeros(1, np.float32), {}
    def step(self, action): return np.zeros(1, np.float32), 0.0, True, False, {}
parallel_env = Evil
gymnasium.register("Evil-v0", Evil)
"""


@pytest.fixture
def evil(tmp_path, monkeypatch):
    """A folder to work in, with a module that leaves a mark where it is imported, and the maker of an agent of its task."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("ENV_ADAPTERS_TRUST", raising=False)
    monkeypatch.delitem(sys.modules, "evil_of_a_stranger", raising=False)
    Path("evil_of_a_stranger.py").write_text(EVIL)

    def agent(task: str, **options: object) -> Path:
        config = dataclasses.replace(resolve(APP, "tiny"), device="cpu", workers=0)
        with closing(environments(APP, config, 1)) as envs:
            files, _ = inference.files(build(APP, runtime(config), envs).state_dict())
        stated = dataclasses.replace(config, task=task, env=options)
        files["config.toml"] = to_toml(write_run(APP, stated, Origin("tiny"))).encode()
        about = {
            "app": "dreamer",
            "version": "0.1.0",
            "step": 0,
            "task": task,
            "protocol": {},
            "spaces": {},
            "environments": 0,
        }
        published.write(Path("gift"), about, files, "")
        return Path("gift")

    return agent


@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("evil_of_a_stranger:Evil", {}),
        ("gym:evil_of_a_stranger:Evil-v0", {}),
        ("zoo:evil_of_a_stranger", {}),
        ("os:mkdir", {"path": "pwned"}),
        ("os:system", {"command": "mkdir pwned"}),
        ("subprocess:getoutput", {"cmd": "mkdir pwned"}),
    ],
)
def test_a_strangers_task_imports_no_module(evil, capsys, task, options):
    evil(task, **options)
    for command in ("eval", "play", "dream"):
        with pytest.raises(SystemExit) as stop:
            main(APP, [command, "gift"])
        said = capsys.readouterr().err
        assert stop.value.code == 2 and said.count("\n") == 1 and "give --trust where you know who wrote" in said
    with pytest.raises(ValueError, match="--trust"):
        APP.load("gift")
    assert not Path("pwned").exists()


def test_who_trusts_the_stranger_says_so(evil, capsys):
    """The weights are those of another task; by then the module has run."""
    evil("evil_of_a_stranger:Evil")
    with pytest.raises(SystemExit):
        main(APP, ["eval", "gift", "--trust"])
    assert "do not fit" in capsys.readouterr().err and Path("pwned").is_dir()


def test_ones_own_task_is_ones_own_word(evil, capsys):
    evil("os:mkdir", path="pwned-too")
    with pytest.raises(SystemExit):
        main(APP, ["eval", "gift", "--task", "evil_of_a_stranger:Evil"])
    assert "do not fit" in capsys.readouterr().err and Path("pwned").is_dir() and not Path("pwned-too").exists()
