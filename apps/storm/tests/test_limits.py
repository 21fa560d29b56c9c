"""What is special about STORM's states and positions where a run is shown: play, dreams, open loops; and short rows."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from storm.cli import APP
from storm.parts import make_dynamics
from wm_run import checkpoint, dreams, stage
from wm_run.configs import resolve
from wm_run.loading import environments
from wm_run.loop import Environments
from wm_run.observer import Observer
from wm_run.rollout import rollout
from wm_run.stage import in_dream, in_environment


@pytest.fixture
def envs() -> Iterator[Any]:
    """envs(): one catch."""
    opened: list[Environments] = []

    def one() -> Environments:
        opened.append(environments(APP, dataclasses.replace(resolve(APP, "tiny"), device="cpu"), 1))
        return opened[-1]

    yield one
    for each in opened:
        each.close()


# ---- play


@pytest.mark.parametrize("act_on", ["prior", "posterior"])
def test_play_shows_the_policy_that_was_trained(tiny: Any, envs: Any, act_on: str) -> None:
    """The same seed, the same actions: those of the state that training and eval act on."""
    agent = tiny(act_on=act_on)
    torch.nn.init.normal_(next(p for p in reversed([*agent.behaviour.actor.parameters()]) if p.ndim == 2))
    straight = list(islice(rollout(agent, envs(), seed=3), 60))
    moments = list(islice(in_environment(Observer(agent, "image", seed=3), envs(), seed=3), 60))
    for one, after in zip(moments, straight[1:], strict=False):
        assert after["first"][0] or (one.action == after["action"][0]).all()


def test_a_played_dream_begins_with_the_draw_that_the_policy_saw(tiny: Any, envs: Any) -> None:
    agent = tiny()
    carries, seen = [], []
    begun = []
    imagine, policy, starts = agent.world.dynamics.imagine, agent.behaviour.policy, agent.world.starts
    agent.world.starts = lambda trace, last: begun.append(starts(trace, last)) or begun[-1]
    agent.world.dynamics.imagine = lambda carry, action: carries.append(carry) or imagine(carry, action)
    agent.behaviour.policy = lambda latent: seen.append(latent) or policy(latent)
    list(islice(in_dream(Observer(agent, "image", seed=3), envs(), seed=3, observed=4), 5))
    assert torch.equal(carries[0]["stoch"].flatten(), seen[-2].stoch.flatten())
    assert len(begun) == 1 and torch.equal(carries[0]["stoch"], begun[0][0]["stoch"])  # the world's draw, no other


@pytest.mark.parametrize("resets", [False, True])
def test_a_played_dream_ends_where_the_positions_end_and_another_begins(
    tiny: Any, envs: Any, resets: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "OVER", -1.0)  # the model never expects an end
    agent = tiny(resets=resets, positions=12, acting_context=4)
    moments = list(islice(in_dream(Observer(agent, "image", seed=3), envs(), seed=3, observed=3), 40))
    assert sum(one.over for one in moments) >= 2
    assert all(after.t == 0 and not after.imagined for one, after in pairwise(moments) if one.over)


@pytest.mark.parametrize("resets", [False, True])
def test_what_is_left_is_what_can_be_imagined(resets: bool) -> None:
    config = dataclasses.replace(resolve(APP, "tiny"), device="cpu", positions=12, acting_context=4, resets=resets)
    dynamics = make_dynamics(config, embed=5, action=2).eval()
    carry = dynamics.initial(1)
    for length in (3, 2):  # the second after a window that has slid
        total = dynamics.left(carry)
        first = torch.zeros(1, length, dtype=torch.bool)
        trace = dynamics.observe(carry, {"obs": torch.randn(1, length, 5)}, torch.zeros(1, length, 2), first)
        dream, _ = dynamics.starts(trace, 1)
        assert dynamics.left(dream) == total - length
        while dynamics.left(dream):
            dream, _ = dynamics.imagine(dream, torch.zeros(1, 2))
        with pytest.raises(ValueError, match="give more positions"):
            dynamics.imagine(dream, torch.zeros(1, 2))
        carry = trace.carry


# ---- training


@pytest.mark.parametrize("positions, ahead", [(12, 8), (9, 5), (5, 1)])
def test_few_positions_shorten_the_open_loop_and_stop_no_run(
    run: Any, short_films: None, tmp_path: Path, positions: int, ahead: int
) -> None:
    few = ("--positions", positions, "--acting_context", 4, "--length", 4, "--dream_context", 1, "--horizon", 2)
    often = ("--video_every", 40, "--eval_every", 40)
    run("train", "--preset", "tiny", "--device", "cpu", "--steps", 60, *few, *often, "--logdir", tmp_path)
    saved = checkpoint.latest(tmp_path)
    assert saved is not None and int(saved.name) >= 60
    (found, *_) = (tmp_path / "dream").glob("*.json")
    assert len(json.loads(found.read_text())["error"]["model"]) == ahead


def test_no_positions_for_an_open_loop_are_told(
    run: Any, short_films: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ("--positions", 4, "--acting_context", 4, "--length", 3, "--dream_context", 1, "--horizon", 2)
    run("train", "--preset", "tiny", "--device", "cpu", "--steps", 60, *few, "--logdir", tmp_path)
    assert "no open loop" in capsys.readouterr().err and not (tmp_path / "dream").exists()


@pytest.mark.parametrize("numbers", [("--dream_context", 8), ("--length", 4)], ids=["long context", "short row"])
def test_learning_waits_for_the_longest_row(
    run: Any, tmp_path: Path, numbers: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dreams, "videos", lambda session, step: [])
    begin = ("train", "--preset", "tiny", "--device", "cpu", "--steps", 60, "--learning_starts", 0)
    run(*begin, *numbers, "--logdir", tmp_path)
    path = checkpoint.latest(tmp_path)
    assert path and int(checkpoint.load(path).state["agent"]["clock"]["updates"]) > 3


def test_info_tries_an_update_with_a_long_context(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run("info", "--preset", "tiny", "--device", "cpu", "--dream_context", 30)
    assert "this run takes" in capsys.readouterr().out
