"""A whole run of PO-Dreamer at tiny size: what it leaves, that it learns, that it goes on, and that it acts."""

from __future__ import annotations

import dataclasses
import json
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from env_adapters import ActionSpec, make
from gymnasium import spaces
from po_dreamer import load
from po_dreamer.agent import build
from po_dreamer.cli import APP
from po_dreamer.config import SIZES, Config
from po_dreamer.diagnosis import diagnose
from torch.utils._pytree import tree_leaves  # noqa: PLC2701 - torch's own, and it has no other door
from wm_core import draws
from wm_core.errors import UserError
from wm_core.testing import assert_same
from wm_run import checkpoint, scoring
from wm_run.collect import Collection, collect
from wm_run.configs import resolve
from wm_run.episodes import Episode
from wm_run.loading import environments
from wm_run.observer import Observer
from wm_run.players import Trained
from wm_run.replay import Replay
from wm_run.rollout import check_carry, remembered
from wm_run.testing import check_goes_on_alike

MODULES = ["encoder", "dynamics", "decoder", "reward", "cont", "memory", "actor", "critic"]
WORLD = ("vector", "reward", "cont", "memory", "dyn", "rep")
DIAGNOSES = (
    *("recall/entropy", "recall/age", "recall/past_episodes", "recall/cosine_gap"),
    *("recall/worth_reward", "recall/worth_cont", "recall/worth_vector"),
    *("kl/co", "kl/mg", "bottleneck/mean", "bottleneck/std", "stale/cosine", "stale/overlap"),
    *("recall/latent_mean", "recall/latent_variance"),
)


def rows(logdir: Path, name: str) -> list[dict[str, Any]]:
    """A log, line by line."""
    return [json.loads(line) for line in (logdir / name).read_text().splitlines()]


# ---- a run


def test_a_run_leaves_scores_metrics_and_checkpoint(doors: Path) -> None:
    scores, metrics = rows(doors, "scores.jsonl"), rows(doors, "metrics.jsonl")
    assert len(scores) >= 100  # an action, an episode, in each of two environments
    assert {score["episode/score"] for score in scores} == {0.0, 1.0}
    assert {score["episode/length"] for score in scores} == {1}
    assert [row["step"] for row in metrics] == [40, 80, 120, 160, 200]
    assert checkpoint.load(checkpoint.latest(doors), app="po_dreamer").step == 200
    assert json.loads((doors / "protocol.json").read_text())["name"] == "doors"
    assert [path.name for path in (doors / "video").iterdir()] == ["openloop-200.png"]  # no film: there are no images


def test_a_run_on_pixels_leaves_videos(catch: Path) -> None:
    frames = imageio.imread(catch / "video/policy-120.mp4", plugin="pyav")
    assert len(frames) == 12 and frames.std() > 1
    assert (catch / "video/openloop-120.mp4").stat().st_size > 0


def test_the_world_model_learns(doors: Path) -> None:
    """The mean loss of each interval; within 90 updates a tiny model sees that cues are mostly zeros."""
    losses = [{name: row[f"train/loss/{name}"] for name in WORLD} for row in rows(doors, "metrics.jsonl")]
    assert losses[-1]["vector"] < 0.3 * losses[0]["vector"]
    assert losses[-1]["memory"] < losses[0]["memory"]
    assert sum(losses[-1].values()) < 0.6 * sum(losses[0].values())


def test_the_log_tells_what_recall_does(doors: Path) -> None:
    """On doors an episode is two records: nearly all that can be recalled lies in earlier ones."""
    for row in rows(doors, "metrics.jsonl"):
        assert {f"train/{name}" for name in DIAGNOSES} <= row.keys()
        assert row["train/recall/past_episodes"] > 0.8 and row["train/recall/found"] > 3
        assert 0 < row["train/stale/cosine"] <= 1.0001 and 1 <= row["train/recall/age"] <= 30


# ---- stop and resume

TASKS = {
    # in the middle of an interval of the log, and with an episode under way
    "toy:doors": (66, ()),
    # 25 of some 1800 actions of an episode
    "atari100k_boxing": (100, ("--envs", 1, "--learning_starts", 12, "--train_ratio", 8)),
}


@pytest.mark.parametrize("task", TASKS)
def test_stopped_and_resumed_equals_one_run(task: str, tmp_path: Path) -> None:
    """The memory of the acting agent is part of it: the window is 30 steps long."""
    stop, options = TASKS[task]
    middle = check_goes_on_alike(APP, tmp_path, "--task", task, *options, stop=stop)
    assert middle["loop"]["carry"]["valid"].any()
    assert int(middle["agent"]["clock"]["updates"]) > 3


# ---- the other commands


def test_eval_plays_and_tells_the_protocol(run: Any, doors: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("eval", doors, "--episodes", 6, "--device", "cpu")
    result = json.loads(capsys.readouterr().out)
    assert json.loads((doors / "eval/200.json").read_text()) == result
    assert (result["acting"], result["episodes"], result["lengths"]) == ("sample", 6, [1] * 6)
    assert set(result["scores"]) <= {0.0, 1.0} and result["protocol"]["name"] == "doors"
    assert result["memory"] == "training's at the start"
    run("eval", doors, "--episodes", 2, "--device", "cpu", "--memory", "empty")
    assert json.loads(capsys.readouterr().out)["memory"] == "empty at the start"


def test_an_evaluation_remembers_the_end_of_training(run: Any, doors: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stream after stream for as many environments as there are, and a copy: two evaluations begin alike."""
    loaded, given = load(doors), []
    monkeypatch.setattr(scoring, "evaluate", lambda *_, carry, **__: given.append(carry) or [Episode(0.0, 1)] * 2)
    run("eval", doors, "--episodes", 2, "--device", "cpu")
    kept = checkpoint.load(checkpoint.latest(doors)).state["loop"]["carry"]
    assert kept["valid"].all() and kept["key"].abs().sum() > 0
    assert_same(given[0], kept)
    assert_same(remembered(loaded.carry, 3)["key"][2], kept["key"][0])


def test_an_evaluation_on_the_way_remembers_what_training_knows_then(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    monkeypatch.setattr(scoring, "evaluate", lambda *_, carry, **__: given.append(carry) or [Episode(0.0, 1)] * 2)
    often = ("--steps", 60, "--eval_every", 40, "--eval_episodes", 2)
    run("train", "--preset", "tiny", "--device", "cpu", *often, "--logdir", tmp_path)
    assert len(given) == 1 and given[0]["valid"].any() and given[0]["key"].abs().sum() > 0


@pytest.mark.parametrize("dream", [False, True])
def test_play_begins_as_an_evaluation_does(
    run: Any, doors: Path, dream: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the first observation meets, in a film of the environment or of a dream: the memory of training's first
    environment, or nothing; one does not replace the film of the other."""
    met: list[Any] = []
    real = Observer.observe
    monkeypatch.setattr(Observer, "observe", lambda self, carry, step: met.append(carry) or real(self, carry, step))
    words = ["play", doors, "--show", "video", "--frames", 3, "--observed", 2, "--device", "cpu", *["--dream"] * dream]
    films = []
    for memory in ("auto", "empty"):
        met.clear()
        run(*words, "--memory", memory)
        said = capsys.readouterr().out
        films.append(said.splitlines()[-1])
        assert ("what training remembered" in said) == (memory == "auto")
        kept = load(doors).carry
        if memory == "auto":
            assert torch.equal(met[0]["key"][0], kept["key"][0]) and kept["valid"][0].any()
        else:
            assert not met[0]["valid"].any()
    assert films[0] != films[1]


def test_the_browser_begins_as_an_evaluation_does(run: Any, doors: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = []
    monkeypatch.setattr("wm_run.browser.serve", lambda stage, *_, **__: shown.append(stage))
    for memory in ("auto", "empty"):
        run("play", doors, "--browser", "--device", "cpu", "--memory", memory)
    assert [int(stage.recollection.taken.sum()) > 0 for stage in shown] == [True, False]


def test_who_is_recorded_begins_as_an_evaluation_does(doors: Path, tmp_path: Path) -> None:
    loaded = load(doors, device="cpu")
    with closing(environments(APP, loaded.config, 3)) as envs:
        knowing, new = (Trained(str(doors), envs, (0, 0, 0), "cpu", memory) for memory in ("auto", "empty"))
    known = [leaf for leaf in tree_leaves(remembered(loaded.carry, 3)) if leaf is not None]
    kept = [leaf for leaf in tree_leaves(knowing.state()["carry"]) if leaf is not None]
    assert all(torch.equal(one, other) for one, other in zip(kept, known, strict=True))
    assert (knowing.remembers, new.remembers) == (True, False)
    assert loaded.eval(episodes=3)["memory"] != loaded.eval(episodes=3, memory="empty")["memory"]
    with pytest.raises(UserError, match="memory is one of auto, training, empty, not 'emtpy'"):
        loaded.eval(episodes=3, memory="emtpy")  # type: ignore[arg-type]

    for memory, told in (("auto", ["training's at the start"]), ("empty", [])):
        folder = tmp_path / memory
        asked = Collection("toy:doors", folder, 20, (str(doors),), device="cpu", envs=2, held_out=0, memory=memory)
        found = collect(asked)
        assert found is not None
        assert [one["memory"] for one in found.source if "memory" in one] == told


def test_a_memory_that_does_not_fit_is_refused(run: Any, doors: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("eval", doors, "--episodes", 2, "--device", "cpu", "--memory_window", 10)
    assert "--memory empty" in capsys.readouterr().err
    run("eval", doors, "--episodes", 2, "--device", "cpu", "--memory_window", 10, "--memory", "empty")
    with pytest.raises(UserError, match="--memory empty"):
        check_carry(load(doors).agent, None)  # of a checkpoint that holds weights alone


def test_dream_measures_and_shows(run: Any, catch: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("dream", catch, "--observed", 2, "--imagined", 5, "--rows", 2, "--device", "cpu")
    result = json.loads((catch / "dream/120.json").read_text())
    error = result["error"]
    assert {name: len(values) for name, values in error.items()} == {"model": 5, "copy": 5, "untrained": 5}
    assert all(trained < blank for trained, blank in zip(error["model"], error["untrained"], strict=True))
    assert all(Path(path).stat().st_size > 0 for path in result["video"])
    assert "steps ahead" in capsys.readouterr().out


def test_vectors_are_dreamt_as_far_as_episodes_reach(run: Any, doors: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("dream", doors, "--device", "cpu")
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("mean squared error of 'vector', held-out steps, at step ")
    assert [line.split()[0] for line in said[2:-1]] == ["1"]  # an episode of doors is two records
    assert said[-1].endswith("video/openloop-200.png")


def test_info_counts_every_module(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run("info", "--preset", "tiny", "--device", "cpu", "--json")
    found = json.loads(capsys.readouterr().out)
    parameters, estimate = found["parameters"], found["estimate"]
    total = parameters.pop("total")
    assert list(parameters) == MODULES
    env = make("toy:doors")
    agent = build(dataclasses.replace(resolve(APP, "tiny"), device="cpu"), env.observation_space, ActionSpec((4,), 0))
    assert sum(parameters.values()) == total == sum(p.numel() for p in agent.parameters() if p.requires_grad)
    assert found["protocol"]["task"] == "toy:doors" and found["protocol"]["name"] == "doors"
    assert estimate["updates"] == 1 + (200 - 40) * 8 / 16
    assert all(estimate[name] > 0 for name in ("hours", "ram_bytes", "disk_bytes", "flops_per_update"))


def test_the_papers_size_has_the_counts_of_its_nets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The heads on 3072 features, the decoder's first layer on them, attention over both states of 512: worked out by
    hand in the notes on the paper. On the meta device, where no memory is taken. (No generator lives there.)"""
    monkeypatch.setattr(draws, "Generator", lambda seed, device: None)
    config = Config(**SIZES["paper"], device="meta")  # type: ignore[arg-type]
    image = spaces.Dict({"image": spaces.Box(0, 255, (64, 64, 3), np.uint8)})
    agent = build(config, image, ActionSpec((6,), 0))
    counts = agent.parameters_by_module()
    assert list(counts) == [*MODULES, "total"]
    assert agent.world.dynamics.widths == {"deter": 2 * 512, "stoch": 2 * 32 * 32}
    assert {name: round(counts[name] / 1e6, 2) for name in ("actor", "critic")} == {"actor": 1.84, "critic": 1.97}
    assert sum(p.numel() for p in agent.world.decoder.conv.inputs.parameters()) == (3072 + 1) * 16 * 8 * 32
    assert sum(p.numel() for p in agent.world.dynamics.attention.parameters()) == 4 * (512 + 1) * 512 + 2 * 512
    assert 40e6 < counts["total"] < 45e6


# ---- acting from Python


def test_a_loaded_policy_plays_doors(doors: Path) -> None:
    loaded, env = load(doors), make("toy:doors")
    carry, seen = None, 0
    for seed in range(4):
        observation, _ = env.reset(seed=seed)
        for first in (True, False):
            action, carry = loaded.policy(observation, carry, first=first)
            seen += 1
            assert env.action_space.contains(action)
            assert int(carry["agent"]["valid"].sum()) == seen  # the bank outlives episodes
            if first:
                observation, _, terminal, _, _ = env.step(action)
                assert terminal
    assert int(carry["agent"]["first"].sum()) == 4
    _, forgotten = loaded.policy(observation, None)
    assert int(forgotten["agent"]["valid"].sum()) == 1


def recalling(logdir: Path, ablation: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Posterior logits (S, K) at the first step of an episode: of an agent that has lived before, and of a newborn."""
    env = make("toy:doors")
    config = dataclasses.replace(resolve(APP, "tiny", "", ablation), device="cpu")
    agent = build(config, env.observation_space, ActionSpec((4,), 0)).eval()
    if not ablation:
        agent.load_state_dict(checkpoint.load(checkpoint.latest(logdir)).weights)
    generator = torch.Generator().manual_seed(0)
    steps = {
        "vector": torch.rand(1, 7, 36, generator=generator),
        "action": torch.zeros(1, 7, 4),
        "first": torch.tensor([[True, False, True, False, True, False, True]]),
    }
    past, last = ({name: value[:, part] for name, value in steps.items()} for part in (slice(6), slice(6, 7)))
    with torch.no_grad(), draws.drawing(draws.Fixed()):
        lived = agent.world.observe(agent.initial(1), past).carry
        return tuple(agent.world.observe(carry, last).post[0, 0] for carry in (lived, agent.initial(1)))


def test_only_the_memory_branch_knows_of_earlier_episodes(doors: Path) -> None:
    lived, fresh = recalling(doors, "")
    branch = len(lived) // 2
    assert torch.equal(lived[:branch], fresh[:branch])
    assert (lived[branch:] - fresh[branch:]).abs().max() > 1e-4


@pytest.mark.parametrize("ablation", ["this-episode", "co-co", "co-only"])
def test_without_recall_across_episodes_nothing_is_known_of_them(doors: Path, ablation: str) -> None:
    lived, fresh = recalling(doors, ablation)
    assert torch.equal(lived, fresh)


@pytest.mark.parametrize("mode", [False, True])
def test_continuous_actions_lie_in_the_native_space(run: Any, tmp_path: Path, mode: bool) -> None:
    """Pendulum's torque lies in [-2, 2], the agent's in [-1, 1] or, for a sample, beyond."""
    task = ("--task", "gym:Pendulum-v1", "--learning_starts", 12)
    run("train", "--preset", "tiny", "--device", "cpu", *task, "--steps", 30, "--logdir", tmp_path)
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


def test_staleness_is_seen_in_short_rows_too(doors: Path, tmp_path: Path) -> None:
    """Stored keys that have nothing to do with fresh ones: a selection of all that is seen would not differ."""
    agent, state = load(doors).agent, checkpoint.load(checkpoint.latest(doors)).state["replay"]
    shape = {name: state[name] for name in ("streams", "chunk", "length")}
    replay = Replay(
        shutil.copytree(doors / "replay", tmp_path / "replay"), stores=agent.stores, limit_bytes=2**40, **shape
    )
    replay.load_state(state)
    batch = replay.sample(4, 32, past=agent.past)
    stale = dict(batch.steps)
    stale["/key"] = torch.randn(stale["/key"].shape, generator=torch.Generator().manual_seed(0)).half()
    assert diagnose(agent, dataclasses.replace(batch, steps=stale))["stale/overlap"] < 0.5
    with draws.drawing(draws.Generator(0)):
        fresh = agent.eval().world.encoder(batch.steps)["key"]
    stale["/key"] = fresh.half()
    assert diagnose(agent, dataclasses.replace(batch, steps=stale))["stale/overlap"] > 0.9
