"""What a user gets wrong is one sentence and exit code 2, never a traceback: what the law of an app does not ask."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from env_adapters import tasks

TINY = "train --preset tiny --device cpu"
ODD = """
import gymnasium, numpy
from gymnasium import spaces

class Odd(gymnasium.Env):
    action_space = spaces.Discrete(2)
    def __init__(self, space):
        self.observation_space = space
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}
    def step(self, action):
        return self.observation_space.sample(), 0.0, False, False, {}

def text(): return Odd(spaces.Text(5))
number = 3
def nothing(): return None
"""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd_spaces.py").write_text(ODD)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "odd_spaces", raising=False)


def refused(run: Any, capsys: pytest.CaptureFixture[str], line: str) -> str:
    """The sentence."""
    with pytest.raises(SystemExit) as stop:
        run(*line.split())
    out, err = capsys.readouterr()
    assert stop.value.code == 2 and out == ""
    assert err.startswith("dreamer: ") and err.count("\n") == 1 and "Traceback" not in err
    return err


@pytest.mark.parametrize(
    "line, words",
    [
        (f"{TINY} --dream_last 1", "dream_last must be 0, for every step of a row, or at least 2, not 1"),
        (f"{TINY} --size 13m", "there is no size '13m'"),
        (f"{TINY} --memory_window 3", "no option '--memory_window'"),
        (f"{TINY} --lam 2", "lam is a share and must lie in [0, 1], not 2.0"),
        (f"{TINY} --lr nan", "lr must be at least 0, not nan"),
        (f"{TINY} --entropy inf", "entropy must be a finite number, not inf"),
        (f"{TINY} --deter 0", "deter must be at least 1, not 0"),
        (f"{TINY} --deter 30 --task toy:doors", "these numbers make no agent: 4 blocks divide neither 30"),
        (f"{TINY} --devices 0", "devices must be at least 1, not 0"),
        (f"{TINY} --unimix some", "--unimix takes a number, not 'some'"),
        (f"{TINY} --protocol atari", "--protocol takes one of dreamerv3, storm, not 'atari'"),
        (f"{TINY} --task toy:ctch", "there is no task 'toy:ctch'; close: toy:catch"),
        (f"{TINY} --task boxing", "close: atari100k_boxing"),
        (f"{TINY} --task atari100k_boxng", "boxng"),
        (f"{TINY} --task gym:CartPole-v77", "CartPole"),
        (f"{TINY} --task odd_spaces:missing", "has no callable 'missing'"),
        (f"{TINY} --task odd_spaces:number", "has no callable 'number'"),
        (f"{TINY} --task odd_spaces:nothing", "returned a NoneType, not a gymnasium.Env"),
        (f"{TINY} --task odd_spaces:text", "which is no array of fixed shape"),
    ],
)
def test_a_mistake_is_one_sentence(run: Any, capsys: pytest.CaptureFixture[str], line: str, words: str) -> None:
    assert words in refused(run, capsys, line)
    assert not Path("runs").exists()


@pytest.mark.parametrize("command", ["train --device cuda --preset tiny", "info --device cuda --preset tiny"])
def test_a_gpu_that_is_absent(
    run: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "torch sees no GPU: use --device cpu or auto" in refused(run, capsys, command)


@pytest.mark.parametrize("command", ["train --preset tiny", "info --preset tiny", "train --preset cpu"])
def test_a_missing_extra(
    run: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setitem(sys.modules, "ale_py", None)
    line = f"{command} --device cpu --task atari100k_boxing --workers 0"
    assert "install `env-adapters[atari]`" in refused(run, capsys, line)


def test_the_help_of_task_names_every_suite(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("train", "--help")
    said = re.sub(r"[\s│]+", " ", capsys.readouterr().out)
    told = said[said.index("--task") : said.index("--seed")]
    shapes = set(re.findall(r"[a-z0-9_]+(?=[_:/]<)|<module>:<factory>", told))
    assert {"atari100k", "dmc", "dmc_vision", "memory_maze", "bsuite", "popgym", "toy", "gym"} < shapes
    assert "<module>:<factory>" in shapes and "uv run -m env_adapters tasks" in told
    suites = {re.split(r"[_:/]", name)[0] for name in tasks()}
    assert all(any(shape.startswith(suite) for shape in shapes) for suite in suites)
