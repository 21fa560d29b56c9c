"""Environments that fail, and a run of the whole app that outlives them."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from wm_run import checkpoint

FRAIL = """
import os
import gymnasium, numpy
from gymnasium import spaces

class Frail(gymnasium.Env):
    "Twenty steps an episode. Raises at its 75th step."
    observation_space, action_space = spaces.Box(-1, 1, (3,), numpy.float32), spaces.Discrete(3)

    def __init__(self):
        self.lived = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return numpy.zeros(3, numpy.float32), {}

    def step(self, action):
        self.count += 1
        self.lived += 1
        if self.lived == 75:
            raise ConnectionError("the simulator is gone")
        return numpy.full(3, self.count / 100, numpy.float32), 1.0, self.count >= 20, False, {}

    def close(self):
        raise OSError("the handle is gone")


class Down(Frail):
    "Raises from the 50th step of all on, until it is mended."
    total = 0

    def step(self, action):
        Down.total += 1
        if Down.total >= 50 and not os.path.exists("mended"):
            raise ConnectionError("nobody listens")
        return super().step(action)


class Odd(Down):
    "Shows nothing then."

    def step(self, action):
        try:
            return super().step(action)
        except ConnectionError:
            return None, 0.0, False, False, {}


class Single(Frail):
    "One may live at a time, and what it does cannot be done again."
    metadata = {"render_modes": [], "restorable": False}
    alive = 0

    def __init__(self):
        if Single.alive:
            raise OSError(98, "Address already in use")
        Single.alive = 1
        super().__init__()

    def close(self):
        Single.alive = 0
"""
TINY = ("train", "--preset", "tiny", "--device", "cpu", "--workers", "0", "--learning_starts", "40", "--logdir", "D")


@pytest.fixture(autouse=True)
def frail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short_films: None) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("env_adapters.attempts.time.sleep", lambda seconds: None)
    (tmp_path / "frail.py").write_text(FRAIL)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "frail", raising=False)
    importlib.invalidate_caches()


def step_of(run: str = "D") -> int:
    path = checkpoint.latest(run)
    return 0 if path is None else int(path.name)


def faults() -> int:
    return sum("env/faults" in line for line in Path("D/metrics.jsonl").read_text().splitlines())


@pytest.mark.filterwarnings("ignore:an environment could not be closed")
def test_a_run_outlives_an_environment_that_raises_now_and_then_and_will_not_close(run: Any, capsys: Any) -> None:
    run(*TINY, "--task", "frail:Frail", "--envs", 2, "--steps", 200)
    said = capsys.readouterr().err
    assert step_of() == 200 and faults() == 4
    assert "environment 1 raised ConnectionError: the simulator is gone (frail.py:" in said
    assert "the episode of environment 0 was cut short as a truncation" in said
    lengths = [json.loads(line)["episode/length"] for line in Path("D/scores.jsonl").read_text().splitlines()]
    assert lengths and set(lengths) == {20}  # those that were cut, after 15 (75 = 3 * 20 + 15), have no score


@pytest.mark.filterwarnings("ignore:an environment could not be closed")
@pytest.mark.parametrize(
    ("name", "why"), [("Down", "failed 3 times without a step between (attempts)"), ("Odd", "None")]
)
def test_a_run_that_nothing_helps_is_saved_where_it_is_and_goes_on_when_it_is_mended(
    run: Any, capsys: Any, name: str, why: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(*TINY, "--task", f"frail:{name}", "--envs", 1, "--steps", 120, "--attempts", 3)
    assert stopped.value.code == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert why in said and f"; the run is saved at step {step_of()}; when that is mended, go on: " in said
    assert 49 <= step_of() <= 55  # an episode that is cut short counts as a step
    Path("mended").touch()
    run("train", "--logdir", "D", "--steps", 70)
    assert step_of() == 70


def test_a_task_of_which_one_may_live_is_trained_evaluated_at_its_end_and_resumed(run: Any, capsys: Any) -> None:
    options = ["--task", "frail:Single", "--envs", 1, "--eval_every", 40, "--final_episodes", 2]
    run(*TINY, *options, "--steps", 70)
    out, said = capsys.readouterr()
    assert "no evaluation at step 40: an environment could not be made: OSError: [Errno 98] Address already" in said
    assert step_of() == 70 and "evaluation  D/eval/70.json" in out
    run("train", "--logdir", "D", "--steps", 100, "--exclusive", "True")
    said = capsys.readouterr().err
    assert "environment 0 could not be restored: it says so" in said and "cut short as a truncation" in said
    assert "left out: the task has room for one set of environments (exclusive)" in said and step_of() == 100
