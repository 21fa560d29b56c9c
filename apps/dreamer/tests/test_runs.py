"""A whole run of DreamerV3 at tiny size: what it leaves, that it learns, that it goes on, and that it acts."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from dreamer import load
from dreamer.agent import build
from dreamer.cli import APP
from dreamer.config import Config
from env_adapters import ActionSpec, make
from gymnasium import spaces
from wm_core import draws
from wm_core.errors import UserError
from wm_core.sizes import SIZES
from wm_core.types import Batch, Index
from wm_run import checkpoint, dreams
from wm_run.cli import parse
from wm_run.configs import resolve
from wm_run.openloop import openloop
from wm_run.testing import check_goes_on_alike
from wm_run.testing.differences import compare_runs

MODULES = ["encoder", "dynamics", "decoder", "reward", "cont", "actor", "critic"]
WORLD = ("image", "reward", "cont", "dyn", "rep")


def rows(logdir: Path, name: str) -> list[dict[str, Any]]:
    """A log, line by line."""
    return [json.loads(line) for line in (logdir / name).read_text().splitlines()]


# ---- a run


def test_a_run_leaves_scores_metrics_checkpoint_and_video(catch: Path) -> None:
    scores, metrics = rows(catch, "scores.jsonl"), rows(catch, "metrics.jsonl")
    assert len(scores) > 20  # 200 steps, 7 an episode
    assert {score["episode/score"] for score in scores} <= {-1.0, 1.0}
    assert {score["episode/length"] for score in scores} == {7}
    assert [row["step"] for row in metrics] == [40, 80, 120, 160, 200]
    assert checkpoint.load(checkpoint.latest(catch), app="dreamer").step == 200
    assert json.loads((catch / "protocol.json").read_text())["name"] == "catch"
    frames = imageio.imread(catch / "video/policy-200.mp4", plugin="pyav")
    assert len(frames) == 12 and frames.std() > 1
    assert (catch / "video/openloop-200.mp4").stat().st_size > 0


def test_the_world_model_learns(catch: Path) -> None:
    """The mean loss of each interval, image first: a tiny model sees within 150 updates that catch is dark."""
    losses = [
        {name: row[f"train/loss/{name}"] for name in WORLD}
        for row in rows(catch, "metrics.jsonl")
        if "train/loss/image" in row
    ]
    assert losses[-1]["image"] < 0.5 * losses[0]["image"]
    assert sum(losses[-1].values()) < 0.5 * sum(losses[0].values())


def test_the_policy_moves_only_once_updates_begin(catch: Path) -> None:
    """The replay ratio in the log is the one asked for, and the optimiser's warm-up follows the updates."""
    learned = [row for row in rows(catch, "metrics.jsonl") if "train/opt/lr" in row]
    assert [row["replay/replay_ratio"] for row in learned[1:]] == [16.0] * len(learned[1:])
    assert learned[-1]["train/opt/lr"] == pytest.approx(1e-3)
    assert learned[0]["train/opt/lr"] < 1e-3


# ---- stop and resume


def test_environments_that_play_while_the_agent_learns_change_nothing(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In worker processes they step beside every update, in this process after it."""
    monkeypatch.setattr(dreams, "videos", lambda session, step: [])
    begin = ("train", "--preset", "tiny", "--device", "cpu", "--task", "toy:doors", "--envs", 3)
    for workers in (0, 1):
        run(*begin, "--workers", workers, "--steps", 120, "--logdir", tmp_path / str(workers))
    assert int(checkpoint.load(checkpoint.latest(tmp_path / "0")).state["agent"]["clock"]["updates"]) > 30
    assert not [part for part in compare_runs("dreamer", tmp_path / "0", tmp_path / "1") if part.differences]


TASKS = {
    # in the middle of an interval of the log, and for one of the two environments of an episode
    "toy:catch": (66, ()),
    # 25 of some 1800 actions of an episode
    "atari100k_boxing": (100, ("--envs", 1, "--learning_starts", 12, "--train_ratio", 8)),
}


@pytest.mark.parametrize("task", TASKS)
def test_stopped_and_resumed_equals_one_run(task: str, tmp_path: Path) -> None:
    stop, options = TASKS[task]
    middle = check_goes_on_alike(APP, tmp_path, "--task", task, *options, stop=stop)
    assert middle["loop"]["length"].max() > 0  # an episode is under way
    assert int(middle["agent"]["clock"]["updates"]) > 3


# ---- the other commands


def test_eval_plays_and_tells_the_protocol(run: Any, catch: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("eval", catch, "--episodes", 3, "--mode", "--device", "cpu")
    result = json.loads(capsys.readouterr().out)
    assert json.loads((catch / "eval/200-mode.json").read_text()) == result
    assert (result["acting"], result["episodes"], result["lengths"]) == ("mode", 3, [7, 7, 7])
    assert set(result["scores"]) <= {-1.0, 1.0} and result["protocol"]["name"] == "catch"


def test_dream_measures_and_shows(run: Any, catch: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("dream", catch, "--observed", 2, "--imagined", 5, "--rows", 2, "--device", "cpu")
    result = json.loads((catch / "dream/200.json").read_text())
    error = result["error"]
    assert {name: len(values) for name, values in error.items()} == {"model": 5, "copy": 5, "untrained": 5}
    assert all(trained < blank for trained, blank in zip(error["model"], error["untrained"], strict=True))
    assert all(Path(path).stat().st_size > 0 for path in result["video"])
    assert "steps ahead" in capsys.readouterr().out


def test_an_open_loop_predicts_every_observation() -> None:
    """Errors beside those counted by hand, row by row and step by step; a row ends at its first reset."""
    space = spaces.Dict(
        {
            "a": spaces.MultiDiscrete([3, 4]),
            "b": spaces.Box(-9, 9, (2, 2), np.float32),
            "c": spaces.Box(0, 255, (16, 16, 3), np.uint8),
            "d": spaces.Discrete(5),
        }
    )
    agent = build(dataclasses.replace(resolve(APP, "tiny"), device="cpu"), space, ActionSpec((3,), 0))
    rng = np.random.default_rng(0)
    steps = {
        key: torch.as_tensor(np.stack([[one.sample() for _ in range(6)] for _ in range(2)]))
        for key, one in space.items()
    }
    first = torch.zeros(2, 6, dtype=torch.bool)
    first[:, 0], first[1, 4] = True, True
    nothing = torch.zeros(2, dtype=torch.int64)
    steps |= {"first": first, "reset": first, "action": torch.eye(3)[rng.integers(3, size=(2, 6))]}
    found = openloop(agent, Batch(steps, None, Index(nothing, nothing)), 2)
    assert list(found) == ["c", "b", "a", "d"] and [one.discrete for one in found.values()] == [
        False,
        False,
        True,
        True,
    ]
    for key, one in found.items():
        true = steps[key].double().reshape(2, 6, -1) / (255 if key == "c" else 1)
        said = one.predicted.double().reshape(2, 6, -1)
        for error, guess in ((one.error(), said), (one.copy_error(), true[:, 1:2].expand_as(true))):
            for t in range(2, 6):
                rows = [0] if t >= 4 else [0, 1]
                wrong = guess != true if one.discrete else (guess - true) ** 2
                assert float(error[t - 2]) == pytest.approx(float(wrong[rows, t].double().mean()), rel=1e-5, abs=1e-7)


def test_info_counts_every_module(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run("info", "--preset", "tiny", "--device", "cpu", "--json")
    found = json.loads(capsys.readouterr().out)
    parameters, estimate = found["parameters"], found["estimate"]
    total = parameters.pop("total")
    assert list(parameters) == MODULES
    assert sum(parameters.values()) == total == sum(p.numel() for p in tiny().parameters() if p.requires_grad)
    assert found["protocol"]["task"] == "toy:catch" and found["protocol"]["name"] == "catch"
    assert estimate["updates"] == 1 + (200 - 40) * 8 / 16
    assert all(estimate[name] > 0 for name in ("hours", "ram_bytes", "disk_bytes", "flops_per_update"))


@pytest.mark.parametrize("size, millions", {"1m": 0.69, "12m": 10.49, "200m": 165.9, "400m": 372.9}.items())
def test_the_agent_of_a_size_has_the_papers_parameters(
    size: str, millions: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `build` puts it together; on the meta device, where 400m takes no memory. (No generator lives there.)"""
    monkeypatch.setattr(draws, "Generator", lambda seed, device: None)
    config = Config(**SIZES[size], device="meta")  # type: ignore[arg-type]
    image = spaces.Dict({"image": spaces.Box(0, 255, (64, 64, 3), np.uint8)})
    counts = build(config, image, ActionSpec((6,), 0)).parameters_by_module()
    assert list(counts) == [*MODULES, "total"]
    assert f"{counts['total'] / 1e6:.{len(str(millions).split('.')[1])}f}" == str(millions)


# ---- acting from Python


def tiny() -> torch.nn.Module:
    """The agent of the preset on its own task, new."""
    env = make("toy:catch")
    config = dataclasses.replace(resolve(APP, "tiny"), device="cpu")
    return build(config, env.observation_space, ActionSpec((3,), 0))


def test_a_loaded_policy_plays_catch(catch: Path) -> None:
    loaded, env = load(catch), make("toy:catch")
    observation, _ = env.reset(seed=3)
    action, carry = loaded.policy(observation)
    for _ in range(6):
        assert env.action_space.contains(action)
        observation, _, terminal, truncated, _ = env.step(action)
        assert not terminal and not truncated
        action, carry = loaded.policy(observation, carry)
    assert env.step(action)[2]


def test_first_forgets_all_of_a_memory_that_ends_with_the_episode(catch: Path) -> None:
    """With the same draws, an agent told that an episode begins chooses as one that remembers nothing."""
    loaded, env = load(catch), make("toy:catch")
    images = [env.reset(seed=seed)[0]["image"] for seed in (1, 2)]

    def latent(carry: Any, first: bool) -> torch.Tensor:
        loaded.agent.source = draws.Generator(5, loaded.agent.device)
        _, carry = loaded.policy(images[0], loaded.policy(images[1], carry, first)[1])
        return torch.cat([carry["agent"]["deter"], carry["agent"]["stoch"].flatten(1)], -1)

    _, past = loaded.policy(images[0])
    assert torch.equal(latent(past, True), latent(None, False))
    assert not torch.equal(latent(past, False), latent(None, False))


@pytest.mark.parametrize("mode", [False, True])
def test_continuous_actions_lie_in_the_native_space(
    run: Any, tmp_path: Path, mode: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pendulum's torque lies in [-2, 2], the agent's in [-1, 1] or, for a sample, beyond."""
    task = ("--task", "gym:Pendulum-v1", "--learning_starts", 12)
    run("train", "--preset", "tiny", "--device", "cpu", *task, "--steps", 30, "--logdir", tmp_path)
    assert {path.suffix for path in (tmp_path / "video").iterdir()} == {".png"}
    loaded, env = load(tmp_path), make("gym:Pendulum-v1")
    assert loaded.action_space == env.action_space
    observation, _ = env.reset(seed=0)
    carry, taken = None, []
    for _ in range(20):
        action, carry = loaded.policy(observation, carry, mode=mode)
        assert env.action_space.contains(action)
        taken.append(float(action[0]))
        observation, *_ = env.step(action)
    assert max(map(abs, taken)) > (0.0 if mode else 1.0)
    assert np.std(taken) > 0


def test_a_discount_of_nothing_is_refused() -> None:
    """The world model's continuation is told as a share of the discount."""
    with pytest.raises(UserError, match=r"discount_horizon must be above 1, not 1\.0"):
        parse(APP, ["train", "--preset", "tiny", "--discount-horizon", "1"])
