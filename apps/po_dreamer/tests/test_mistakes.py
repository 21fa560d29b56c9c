"""What a user gets wrong is one sentence and exit code 2, never a traceback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

TINY = "train --preset tiny --device cpu"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refused(run: Any, capsys: pytest.CaptureFixture[str], line: str) -> str:
    """The sentence."""
    with pytest.raises(SystemExit) as stop:
        run(*line.split())
    out, err = capsys.readouterr()
    assert stop.value.code == 2 and out == ""
    assert err.startswith("po_dreamer: ") and err.count("\n") == 1 and "Traceback" not in err
    return err


@pytest.mark.parametrize(
    "line, words",
    [
        (f"{TINY} --ablation co-onyl", "there is no ablation 'co-onyl'; did you mean 'co-only'"),
        (f"{TINY} --memory_windwo 3", "did you mean '--memory-window'"),
        (f"{TINY} --memory_sight far", "--memory_sight takes one of across, episode, not 'far'"),
        (f"{TINY} --branches mg --co_bottleneck gaussian", "which branches mg does not see: leave out one of them"),
    ],
)
def test_a_mistake_is_one_sentence(run: Any, capsys: pytest.CaptureFixture[str], line: str, words: str) -> None:
    assert words in refused(run, capsys, line)
    assert not Path("runs").exists()


SMALL = """
import numpy as np
from env_adapters.team import TeamEnv
from gymnasium import spaces

class Small(TeamEnv):
    sizes_kept = ("image",)
    observation_space = spaces.Dict({"image": spaces.Box(0, 255, (44, 44, 3), np.uint8)})
    action_space = spaces.Discrete(2)

    def __init__(self, agents):
        self.agents = agents

def team():
    return Small(2)

def one():
    return Small(None)
"""


@pytest.mark.parametrize("who", ["team", "one"])
def test_a_picture_that_no_memory_can_halve_four_times(
    run: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    """As Melting Pot's: a team has dmawm, which reads it."""
    (tmp_path / "small_pictures.py").write_text(SMALL)
    monkeypatch.syspath_prepend(tmp_path)
    told = refused(run, capsys, f"{TINY} --task small_pictures:{who}")
    assert "image 'image' is 44x44; the encoder needs sides that are multiples of 16: resize it, for example to" in told
    assert ("dmawm" in told) == (who == "team")
    assert not Path("runs").exists()
