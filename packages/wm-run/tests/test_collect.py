"""What is collected is what was played; killed and resumed it is byte for byte what it would have been."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from gymnasium import spaces
from wm_core.errors import UserError
from wm_run import collect_command, command
from wm_run.collect import Collection, collect
from wm_run.look import seen
from wm_run.players import Random, wished
from wm_run.recording import ActionSizes, Recording
from wm_run.schedule import Schedule

ME = "script"  # a module of the players below


class Doors:
    """n counters; episodes end after 3 to 7 actions, by their own generator; the state is told. at: asked before each step."""

    repeat, failure = 4, ""
    observation_space = spaces.Dict({"image": spaces.Box(0, 255, (16, 16, 3), np.uint8)})
    action_space = spaces.Discrete(3)
    action_spec = ActionSizes((3,))
    protocol: ClassVar[dict[str, Any]] = {"name": "fake"}

    def __init__(self, n: int, at: Callable[[int], None] = lambda calls: None) -> None:
        self.num_envs, self.calls, self.event = n, 0, at
        self.cut, self.rng = np.zeros(n, bool), np.random.default_rng(0)

    def reset(self, seed: int) -> dict[str, np.ndarray]:
        self.rng = np.random.default_rng(seed)
        self.left = self.rng.integers(3, 8, self.num_envs)
        self.over, self.at = np.zeros(self.num_envs, bool), np.zeros(self.num_envs, np.int64)
        return self._record(np.zeros((self.num_envs, 3), np.float32), np.zeros(self.num_envs), ~self.over)

    def step(self, action: np.ndarray) -> dict[str, np.ndarray]:
        self.calls += 1
        self.event(self.calls)
        first = self.over
        self.at = np.where(first, 0, self.at + 1)
        self.left = np.where(first, self.rng.integers(3, 8, self.num_envs), self.left - 1)
        reward = np.where(first, 0, action.argmax(-1) + self.rng.random(self.num_envs))
        return self._record(action * ~first[:, None], reward, first)

    def _record(self, action: np.ndarray, reward: np.ndarray, first: np.ndarray) -> dict[str, np.ndarray]:
        self.over = self.left <= 0
        return {
            "action": action.astype(np.float32),
            "reward": reward.astype(np.float32),
            "first": first,
            "last": self.over,
            "terminal": self.over & (self.at % 2 == 0),
            "image": np.zeros((self.num_envs, 16, 16, 3), np.uint8) + self.at[:, None, None, None].astype(np.uint8),
        }

    def told(self) -> dict[str, np.ndarray]:
        return {"told/left": self.left[:, None].astype(np.float32)}

    def state(self) -> dict[str, Any]:
        rng = self.rng.bit_generator.state
        words = {**rng, "state": {name: str(number) for name, number in rng["state"].items()}}
        return {"left": self.left, "over": self.over, "at": self.at, "rng": words}

    def load_state(self, state: dict[str, Any]) -> None:
        self.left, self.over, self.at = state["left"], state["over"], state["at"]
        numbers = {name: int(number) for name, number in state["rng"]["state"].items()}
        self.rng.bit_generator.state = {**state["rng"], "state": numbers}

    def take_faults(self) -> list[str]:
        return []

    def close(self) -> None:
        pass


class Making:
    """Stands in for env-adapters' make_vec; everything that was played is in `records`."""

    def __init__(self, at: Callable[[int], None] = lambda calls: None) -> None:
        self.at = at
        self.made: list[Doors] = []

    def __call__(self, task: str, n: int, **options: Any) -> Any:
        self.made.append(Doors(n, self.at))
        return self.made[-1]


def right(record: Any) -> np.ndarray:
    """A scripted player: door 2, which pays most."""
    return np.broadcast_to(np.eye(3, dtype=np.float32)[2], record["action"].shape)


def asked(folder: Path, at: Callable[[int], None] = lambda calls: None, **changed: Any) -> Collection:
    more = {"steps": 200, "envs": 3, "seed": 5, "who": ("random:0.5", f"{ME}:right:0.5"), "held_out": 0.2}
    return Collection("fake", folder, **{**more, "make": Making(at), "save_every": 30.0, **changed})


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, ME, SimpleNamespace(right=right, narrow=narrow))


def files(folder: Path) -> dict[str, bytes]:
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if name != ".lock"}


def test_records_are_those_of_the_environments_stepped_with_their_actions(tmp_path: Path) -> None:
    """The action of a record is the one that led to it: the same actions lead another batch of environments there."""
    recording = collect(asked(tmp_path / "a"))
    assert recording is not None
    for part, n, seed in (("train", 3, 5), ("held_out", 1, 5 + 1_000_000_007)):
        envs, records = Doors(n), list(recording.records(part))
        step = envs.reset(seed)
        for t, record in enumerate(records):
            assert all((record[key] == value).all() for key, value in step.items()), (part, t)
            assert (record["told/left"] == envs.told()["told/left"]).all()
            if t + 1 < len(records):
                step = envs.step(records[t + 1]["action"])


def test_steps_are_counted_and_shares_are_of_the_steps(tmp_path: Path) -> None:
    recording = collect(asked(tmp_path / "a", steps=4000, who=("random:0.25", f"{ME}:right:0.75")))
    assert recording is not None
    assert 4000 <= recording.steps("train") < 4000 + 3 * 4  # three environments, four frames an action
    assert 800 <= recording.steps("held_out") < 800 + 7 * 4
    assert {one.ended for one in recording.episodes("held_out")} <= {"terminal", "truncated"}
    steps = {one["who"]: one["steps"] for one in recording.source}
    assert sum(steps.values()) == recording.steps("train") + recording.steps("held_out")
    assert steps["random"] / sum(steps.values()) == pytest.approx(0.25, abs=0.02)
    for one in recording.episodes("train"):
        actions = recording.part("train").episode(one)["action"][1:].argmax(-1)
        assert one.who == 0 or (actions == 2).all()
    scores = seen(recording)["parts"]["train"]["scores"]
    assert scores[f"{ME}:right"]["mean"] > scores["random"]["mean"]


@pytest.mark.parametrize("killed", [1, 9, 17, 18, 22])
def test_killed_and_repeated_it_is_the_same_recording(killed: int, tmp_path: Path) -> None:
    """Killed before any step, within train, at the end of it, and within held_out."""
    collect(asked(tmp_path / "unbroken"))
    child = os.fork()
    if not child:  # pragma: no cover
        count = 0

        def kill(calls: int) -> None:
            nonlocal count
            count += 1
            if count == killed:
                os.kill(os.getpid(), signal.SIGKILL)

        collect(asked(tmp_path / "killed", kill, save_every=-1.0))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    with pytest.raises(UserError, match="is not finished"):
        Recording.open(tmp_path / "killed")
    collect(asked(tmp_path / "killed"))
    assert files(tmp_path / "killed") == files(tmp_path / "unbroken")


def test_stopped_at_every_seventh_record_it_is_the_same_recording(tmp_path: Path) -> None:
    collect(asked(tmp_path / "unbroken"))
    times = 0
    while True:
        left = iter(range(7))
        if collect(asked(tmp_path / "stopped"), stopped=lambda left=left: next(left, None) is None) is not None:  # type: ignore[misc]
            break
        times += 1
    assert times >= 3 and files(tmp_path / "stopped") == files(tmp_path / "unbroken")


def test_another_seed_is_another_recording_and_parts_share_no_episode(tmp_path: Path) -> None:
    one, other = collect(asked(tmp_path / "a")), collect(asked(tmp_path / "b", seed=6))
    assert one is not None and other is not None and one.checksum != other.checksum
    train, held_out = ({record["reward"].tobytes() for record in one.records(part)} for part in ("train", "held_out"))
    assert len(train & held_out) <= 1  # the reset's


def test_what_cannot_be_collected_is_one_sentence(tmp_path: Path) -> None:
    collect(asked(tmp_path / "whole"))
    left = iter(range(5))
    collect(asked(tmp_path / "begun"), stopped=lambda: next(left, None) is None)
    for name, (changed, told) in {
        "whole": ({}, "holds a finished recording"),
        "begun": ({"steps": 800}, "was begun with steps 200, which became 800"),
        "a": ({"steps": 0}, "--steps 0 is no recording"),
        "b": ({"envs": 0}, "--envs 0 is no number"),
        "c": ({"held_out": 1.5}, "--held-out 1.5 is a share"),
        "d": ({"seed": -1}, "--seed -1 is out of range"),
        "e": ({"who": ("nobody",)}, "'nobody' is nobody who plays: give random"),
        "f": ({"who": ("no_such_module:f",)}, "there is no module 'no_such_module' to import"),
        "g": ({"who": (f"{ME}:nothing",)}, "has no function 'nothing'"),
        "h": ({"who": ("random:0.5", f"{ME}:right:0.4")}, "sum to 1, not to 0.9"),
        "i": ({"who": ("random:0.5", f"{ME}:right")}, "either all of --who have a share or none"),
        "j": ({"who": ("random", "random")}, "--who names random twice"),
        "k": ({"who": (f"{ME}:narrow",)}, r"gives float64 \(3, 2\), and actions are finite numbers \(3, 3\)"),
        "l": ({"who": (str(tmp_path),)}, "there is no run in .*config.toml"),
        "m": ({"memory": "empty"}, "--memory empty is of a trained player, and --who names none"),
    }.items():
        with pytest.raises(UserError, match=told) as error:
            collect(asked(tmp_path / name, **changed))
        assert len(str(error.value).splitlines()) == 1


def narrow(record: Any) -> np.ndarray:
    return np.zeros((len(record["first"]), 2))


def test_an_environment_that_is_at_an_end_is_not_recorded(tmp_path: Path) -> None:
    def fail(calls: int) -> None:
        if calls == 10:
            making.made[-1].failure = "the robot is on fire"  # type: ignore[misc]

    making = Making(fail)
    with pytest.raises(UserError, match="the robot is on fire"):
        collect(asked(tmp_path / "a", make=making))
    collect(asked(tmp_path / "a"))  # where it is mended, the same goes on
    collect(asked(tmp_path / "b"))
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_random_actions_are_uniform_and_never_forbidden() -> None:
    player = Random(SimpleNamespace(discrete=(4,), continuous=2), (0,))
    mask = np.ones((2000, 3, 6), bool)
    mask[:, 1, :3] = False
    action = player.act({"action": np.zeros((2000, 3, 6), np.float32), "action_mask": mask})
    counts = action[..., :4].sum(0)
    assert (counts[1] == [0, 0, 0, 2000]).all() and (abs(counts[0] - 500) < 80).all()
    assert (
        (action[..., :4].sum(-1) == 1).all() and abs(action[..., 4:]).max() <= 1 and abs(action[..., 4:].mean()) < 0.02
    )


def test_turns_follow_the_shares_whatever_the_lengths_of_episodes() -> None:
    rng = np.random.default_rng(0)
    schedule, mean, over, left = (
        Schedule([0.5, 0.3, 0.2], 5),
        np.array([40, 5, 100]),
        np.ones(5, bool),
        np.zeros(5, int),
    )
    for _ in range(20_000):
        first = over
        left = np.where(first, 0, left - 1)
        who = schedule.begin({"first": first, "last": left == 0}).copy()
        left = np.where(first, rng.integers(1, 2 * mean[who]), left)
        over = ~first & (left == 0)
    assert schedule.steps / schedule.steps.sum() == pytest.approx([0.5, 0.3, 0.2], abs=0.01)


def test_shares_are_alike_where_nobody_has_one() -> None:
    assert [one.share for one in wished(["random", "a.b:c"])] == [0.5, 0.5]


def test_the_command_says_what_it_made_and_refuses_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Making()
    monkeypatch.setattr("wm_run.collect.Tasks", lambda make: lambda config, n: made(config.task, n))
    line = f"collect fake --to {tmp_path}/a --steps 100 --envs 2"
    assert command.main(line.split()) == 0
    assert "steps in" in capsys.readouterr().out
    assert command.main(["look", f"{tmp_path}/a"]) == 0 and "random: " in capsys.readouterr().out
    assert command.main(["look", f"{tmp_path}/a", "--json"]) == 0
    for words, told in (
        (line, "holds a finished recording"),
        ("look nowhere", "there is no recording in nowhere"),
        ("lok", "there is no 'lok'; there is collect, "),
    ):
        assert command.main(words.split()) == 2
        said = [one for one in capsys.readouterr().err.splitlines() if one.startswith("wm-run: ")]
        assert len(said) == 1 and told in said[0]
    assert collect_command.__doc__
