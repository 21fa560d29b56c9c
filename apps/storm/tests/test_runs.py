"""A whole run of STORM at tiny size: what it leaves, that it learns, that it goes on, and that it acts."""

from __future__ import annotations

import dataclasses
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from env_adapters import ActionSpec, VectorEnv, make
from gymnasium import spaces
from storm import load
from storm.agent import build
from storm.cli import APP
from storm.config import Config
from storm.environments import fresh
from storm.parts import make_dynamics
from wm_core import draws
from wm_core.errors import UserError
from wm_core.testing import check_dynamics
from wm_run import checkpoint, dreams
from wm_run.cli import parse
from wm_run.configs import resolve
from wm_run.rollout import check_carry
from wm_run.testing import check_goes_on_alike


def lines(logdir: Path, name: str) -> list[dict[str, Any]]:
    """A log, line by line."""
    return [json.loads(line) for line in (logdir / name).read_text().splitlines()]


# ---- a run


def test_replay_is_uniform(catch: Path) -> None:
    assert not len(checkpoint.load(checkpoint.latest(catch), app="storm").state["replay"]["queue"])


def test_the_world_model_learns(catch: Path) -> None:
    """The mean image loss of each interval: a tiny model sees within 150 updates that catch is dark."""
    losses = [row["train/loss/image"] for row in lines(catch, "metrics.jsonl") if "train/loss/image" in row]
    assert losses[-1] < 0.5 * losses[0]


def test_the_log_tells_of_value_alignment(catch: Path) -> None:
    """The warm-up of the preset ends after 100 agent steps; there is one update a step."""
    found = {row["step"]: row for row in lines(catch, "metrics.jsonl") if "train/var/beta" in row}
    assert [found[step]["train/var/updates"] for step in (80,)] == [0]
    assert found[80]["train/var/beta"] == found[80]["train/loss/var"] == 0
    assert 0 < found[160]["train/var/beta"] <= 1 and found[160]["train/loss/var"] > 0
    assert found[200]["train/var/updates"] > found[160]["train/var/updates"] > 0


def test_there_is_one_update_a_step_in_the_public_preset() -> None:
    config = resolve(APP, "atari100k")
    assert config.train_ratio == config.batch * config.length
    assert config.steps == 4 * 102_000


# ---- stop and resume

RUNS = {"public, with var": ("--var", True, "--var_warmup", 50), "common": ("--ablation", "common")}


@pytest.mark.parametrize("options", RUNS.values(), ids=RUNS)
def test_stopped_and_resumed_equals_one_run(options: tuple[Any, ...], tmp_path: Path) -> None:
    """In the middle of an interval of the log, and of an episode."""
    middle = check_goes_on_alike(APP, tmp_path, *options, stop=66)
    assert int(middle["agent"]["clock"]["updates"]) > 3


# ---- the other commands


def test_a_dream_is_nearer_than_that_of_an_untrained_model(run: Any, catch: Path) -> None:
    run("dream", catch, "--observed", 2, "--imagined", 5, "--rows", 2, "--device", "cpu")
    error = json.loads((catch / "dream/200.json").read_text())["error"]
    assert all(trained < blank for trained, blank in zip(error["model"], error["untrained"], strict=True))


def test_a_dream_beyond_the_positions_is_refused_in_a_sentence(
    run: Any, catch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run("dream", catch, "--observed", 5, "--imagined", 70, "--rows", 2, "--device", "cpu")
    err = capsys.readouterr().err
    assert "a dream beyond 64 tokens" in err and "Traceback" not in err


def test_var_without_a_value_means_true() -> None:
    for words, expected in (("--var", True), ("--var --steps 3", True), ("--var False", False), ("", False)):
        assert parse(APP, ["train", "--preset", "catch_distracted", *words.split()]).config.var is expected


# ---- the networks


@pytest.fixture
def weightless(monkeypatch: pytest.MonkeyPatch) -> None:
    """No generator lives on the meta device, where networks take no memory."""
    monkeypatch.setattr(draws, "Generator", lambda seed, device: None)


def test_the_agent_has_storms_parameters(weightless: None) -> None:
    """16.5 million in the world model, 1.05 in the actor, 1.18 in the critic (and as many in the slow one)."""
    image = spaces.Dict({"image": spaces.Box(0, 255, (64, 64, 3), np.uint8)})
    config = dataclasses.replace(resolve(APP, "atari100k"), device="meta")
    counts = build(config, image, ActionSpec((6,), 0)).parameters_by_module()
    world = sum(counts[name] for name in ("encoder", "dynamics", "decoder", "reward", "cont"))
    assert f"{world / 1e6:.1f}" == "16.5"
    assert [f"{counts[name] / 1e6:.2f}" for name in ("actor", "critic")] == ["1.05", "1.18"]
    # encoder: convolutions without bias and the two vectors of each norm
    assert counts["encoder"] == 16 * (3 * 32 + 32 * 64 + 64 * 128 + 128 * 256) + 2 * (32 + 64 + 128 + 256)
    mixer, heads = (1024 + 6) * 512 + 512**2 + 4 * 512, (4096 * 1024 + 1024) + (512 * 1024 + 1024)
    assert counts["dynamics"] == mixer + heads + 4_235_264


@pytest.mark.parametrize("preset", [*APP.files("presets")])
def test_every_preset_builds(weightless: None, preset: str) -> None:
    config = dataclasses.replace(resolve(APP, preset), device="meta", var=False)
    space = make("toy:catch").observation_space
    counts = build(config, space, ActionSpec((), 2)).parameters_by_module()
    assert counts["total"] > 0
    assert resolve(APP, preset).var is preset.startswith("var_")


@pytest.mark.parametrize("ablation", [*APP.files("ablations")])
def test_every_ablation_changes_what_it_says(ablation: str) -> None:
    base, changed = resolve(APP, "tiny"), resolve(APP, "tiny", ablation=ablation)
    differs = {f.name for f in dataclasses.fields(Config) if getattr(base, f.name) != getattr(changed, f.name)}
    assert changed.var is ablation.startswith("var-")
    assert len(differs) == (7 if ablation == "common" else 2)


def test_the_laws_hold_for_the_common_dynamics() -> None:
    config = resolve(APP, "tiny", ablation="common")
    torch.manual_seed(0)
    check_dynamics(make_dynamics(config, embed=5, action=2), embed={"obs": 5}, action=2)


def test_episodes_of_an_evaluation_are_not_all_the_same_one() -> None:
    """Training begins every episode with one seed, as the public code does; it evaluates with seeds of their own."""
    config = resolve(APP, "atari100k")
    assert (config.eval_envs, config.final_episodes, config.eval_acting) == (5, 20, "sample")

    def episodes(envs: VectorEnv) -> list[list[np.ndarray]]:
        """The pictures of three episodes of 20 steps under one action; sticky ones are drawn."""
        found: list[list[np.ndarray]] = []
        with closing(envs):
            step = envs.reset(0)
            while len(found) < 4:
                found += [[]] if step["first"][0] else []
                found[-1].append(step["image"][0])
                step = envs.step(np.eye(envs.action_spec.size, dtype=np.float32)[None, 2])
            return found[:3]

    def alike(envs: VectorEnv) -> bool:
        one, *others = episodes(envs)
        return all(np.array_equal(one, other) for other in others)

    assert alike(APP.part("environments")(config, 1, limit=80))
    assert not alike(fresh(config, 1, limit=80))
    before = dataclasses.replace(config, eval_episode_seed="protocol")
    assert alike(fresh(before, 1, limit=80))
    with closing(fresh(config, 1)) as envs:
        assert envs.protocol["name"] == "storm, changed: episode_seed"
    with closing(fresh(resolve(APP, "atari100k", ablation="common"), 1)) as envs:
        assert envs.protocol["name"] == "dreamerv3"


# ---- acting from Python


@pytest.mark.parametrize("options", [(), ("--ablation", "common")], ids=["public", "common"])
def test_continuous_actions_and_vectors(run: Any, tmp_path: Path, options: tuple[str, ...]) -> None:
    """Pendulum's torque lies in [-2, 2], the agent's in [-1, 1] or, for a sample, beyond."""
    task = ("--task", "gym:Pendulum-v1", "--learning_starts", 12, *options)
    run("train", "--preset", "tiny", "--device", "cpu", *task, "--steps", 40, "--logdir", tmp_path)
    loaded, env = load(tmp_path), make("gym:Pendulum-v1")
    observation, _ = env.reset(seed=0)
    carry, taken = None, []
    for _ in range(20):  # longer than acting looks back
        action, carry = loaded.policy(observation, carry)
        assert env.action_space.contains(action)
        taken.append(float(action[0]))
        observation, *_ = env.step(action)
    assert np.std(taken) > 0


@pytest.mark.parametrize("options", [(), ("--ablation", "common")], ids=["public", "common"])
def test_an_evaluation_goes_on_from_what_training_remembers(
    run: Any, tmp_path: Path, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The window that acting looks back on has grown by then; one of another width is refused."""
    monkeypatch.setattr(dreams, "videos", lambda session, step: [])
    run("train", "--preset", "tiny", "--device", "cpu", "--steps", 60, *options, "--logdir", tmp_path)
    loaded = load(tmp_path)
    assert loaded.carry["backbone"]["tokens"].shape[1] > 0
    run("eval", tmp_path, "--episodes", 3, "--device", "cpu", "--memory", "training")
    found = next(json.loads(path.read_text()) for path in (tmp_path / "eval").iterdir())
    assert found["memory"] == "training's at the start" and len(found["scores"]) == 3
    odd = loaded.carry["backbone"] | {"tokens": loaded.carry["backbone"]["tokens"][..., 1:]}
    with pytest.raises(UserError, match="--memory empty"):
        check_carry(loaded.agent, loaded.carry | {"backbone": odd})
