"""`train` of an app, called from Python: an environment of one's own, callbacks, what comes back, mistakes."""

from __future__ import annotations

import importlib
import pathlib
import sys
import types
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from wm_core.errors import UserError
from wm_run import trust
from wm_run.app import App
from wm_run.config import RunConfig

TINY: dict[str, Any] = {"preset": "tiny", "device": "cpu", "final_video": False}
APPS = ("dreamer", "po_dreamer", "r2i", "storm")


class Walk(gymnasium.Env[np.ndarray, int]):
    """From 3 to 6 is worth 1, to 0 nothing."""

    observation_space, action_space = spaces.Box(0, 6, (1,)), spaces.Discrete(2)

    def __init__(self, goal: int = 6) -> None:
        self.goal = goal

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.place = np.array([3], np.float32)
        return self.place.copy(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.place += 2 * action - 1
        return self.place.copy(), float(self.place[0] == self.goal), self.place[0] in (0, self.goal), False, {}


class Heard:
    def __init__(self, enough: int = 10**9) -> None:
        self.logs: list[int] = []
        self.scores: list[float] = []
        self.enough = enough

    def on_log(self, step: int, numbers: dict[str, float]) -> None:
        assert numbers and not any(name.startswith("episode/") for name in numbers)
        self.logs.append(step)

    def on_episode(self, step: int, score: float, length: int, **outcomes: float) -> np.bool_:
        assert length >= 3
        self.scores.append(score)
        return np.bool_(len(self.scores) >= self.enough)  # as a comparison of numpy's gives


@pytest.fixture(autouse=True)
def asked_for_apart(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks that are asked for here are not noted among the user's own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def app_of(name: str) -> App:
    found: App = importlib.import_module(f"{name}.cli").APP
    return found


@pytest.mark.parametrize("name", APPS)
def test_every_app_trains_on_an_environment_of_ones_own(name: str, tmp_path: pathlib.Path) -> None:
    module, heard = importlib.import_module(name), Heard()

    def walk() -> Walk:  # no name leads here
        return Walk()

    agent = module.train(walk, steps=80, callbacks=heard, logdir=tmp_path / "run", **TINY)
    assert agent.step >= 80 and agent.logdir == tmp_path / "run"
    assert heard.logs == sorted(heard.logs) and heard.logs and len(heard.scores) > 3
    action, carry = agent.policy(np.array([3], np.float32))
    assert action in (0, 1) and agent.policy(np.array([4], np.float32), carry)[0] in (0, 1)
    assert agent.eval(episodes=2)["episodes"] == 2


def test_it_goes_on_is_saved_and_is_loaded(tmp_path: pathlib.Path) -> None:
    """What is saved acts like what was trained, without the run; another environment of the same name would be another."""
    app, run = app_of("dreamer"), tmp_path / "run"
    first = app.train(Walk(), steps=60, logdir=run, **TINY)
    second = app.train(Walk(), steps=100, logdir=run, **TINY)
    assert first.step < second.step and second.config.steps == 100
    saved = second.save(tmp_path / "kept")
    again = app.load(saved, env=Walk(), device="cpu")
    for name, value in second.agent.state_dict().items():
        assert value.equal(again.agent.state_dict()[name]), name
    assert sorted(path.name for path in saved.iterdir()) == ["checkpoint", "config.toml", "env.json", "protocol.json"]
    with pytest.raises(UserError, match="is there already"):
        second.save(saved)
    begun = app.train(Walk(), steps=20, logdir=tmp_path / "new", init_from=saved, **TINY)
    assert begun.step >= 20


def test_a_callback_ends_the_run_which_is_saved(tmp_path: pathlib.Path) -> None:
    agent = app_of("dreamer").train(Walk, steps=10_000, callbacks=[Heard(enough=4)], logdir=tmp_path / "run", **TINY)
    assert 12 <= agent.step < 10_000


def test_what_a_callback_raises_comes_out_when_the_run_is_saved(tmp_path: pathlib.Path) -> None:
    class Odd:
        def on_episode(self, step: int, score: float, length: int) -> None:
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match=r"^mine$"):
        app_of("dreamer").train(Walk, steps=10_000, callbacks=Odd(), logdir=tmp_path / "run", **TINY)
    assert 3 <= app_of("dreamer").load(tmp_path / "run", env=Walk, device="cpu").step < 100


def test_a_class_of_a_module_keeps_its_name(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of it is resumed and loaded by whoever can import the module."""
    module = types.ModuleType("walks_of_mine")
    module.Walk = type("Walk", (Walk,), {"__module__": "walks_of_mine"})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "walks_of_mine", module)
    agent = app_of("dreamer").train(module.Walk, steps=20, options={"goal": 5}, logdir=tmp_path / "run", **TINY)  # type: ignore[attr-defined]
    assert agent.config.task == "walks_of_mine:Walk" and agent.config.env == {"goal": 5}
    assert app_of("dreamer").load(tmp_path / "run", device="cpu").step >= 20


class Locked(Walk):
    def __deepcopy__(self, memo: Any) -> Any:
        raise TypeError("it holds a socket")


@pytest.mark.parametrize(
    ("env", "numbers", "sentence"),
    [
        (Walk, {"bacth": 8}, "train: there is no field 'bacth'; did you mean 'batch'?"),
        (Walk, {"batch": "8"}, "train: batch takes .*, not '8'"),
        (Walk, {"batch": 0}, "batch must be at least 1"),
        (Walk, {"preset": "tinny"}, "did you mean 'tiny'"),
        (Walk, {"callbacks": print}, "a callback has a method on_log"),
        (Walk, {"devices": 2}, "from the command line alone"),
        (Walk, {"options": {"gaol": 5}}, "has no option 'gaol'; it has goal"),
        (Locked(), {}, r"Locked cannot be copied \(it holds a socket\)"),
        (7, {}, "a gymnasium.Env class, a function that makes one or an instance, not 7"),
        (lambda: 7, {}, "returned a int, not a gymnasium.Env"),
        ("toy:cacth", {}, "there is no task 'toy:cacth'; close: toy:catch"),
    ],
)
def test_mistakes_are_exceptions_of_one_sentence(
    env: Any, numbers: dict[str, Any], sentence: str, tmp_path: pathlib.Path
) -> None:
    with pytest.raises(UserError, match=sentence) as told:
        app_of("dreamer").train(env, steps=20, logdir=tmp_path / "run", **(TINY | numbers))
    assert "\n" not in str(told.value) and not (tmp_path / "run" / "checkpoint").exists()


def test_what_was_given_is_known_in_this_process_with_its_options_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So that the cells of a notebook go on with `__main__:Walk`, and a received folder of that name does not elsewhere."""
    monkeypatch.setattr(trust, "_said", set())
    tasks, config = app_of("dreamer").environments, RunConfig(task="__main__:Walk", env={"goal": 5})
    assert trust.strange(tasks, config)
    trust.hold(tasks, config)
    assert not trust.strange(tasks, config) and not trust.asked_for().exists()
    assert trust.strange(tasks, RunConfig(task="__main__:Walk", env={"goal": 4}))
    assert trust.strange(tasks, RunConfig(task="__main__:Else", env={"goal": 5}))
