"""A whole run of R2I at tiny size: what it leaves, that it learns, that it goes on, and that it acts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import env_adapters
import pytest
import torch
from r2i import load
from wm_run import checkpoint, dreams

PRIVATE = ("fps/", "usage/")  # what no run shares with another


def rows(logdir: Path, name: str) -> list[dict[str, Any]]:
    """A log, line by line, without what depends on the machine."""
    lines = (json.loads(line) for line in (logdir / name).read_text().splitlines())
    return [{key: value for key, value in line.items() if not key.startswith(PRIVATE)} for line in lines]


def test_a_run_leaves_scores_finite_metrics_and_a_video_and_its_model_learns(catch: Path) -> None:
    assert len(rows(catch, "scores.jsonl")) > 20  # 200 steps, 7 an episode
    metrics = [row for row in rows(catch, "metrics.jsonl") if "train/loss/image" in row]
    assert all(value is not None for row in metrics for value in row.values())  # null stands for nan
    assert metrics[-1]["train/loss/image"] < 0.7 * metrics[0]["train/loss/image"]
    assert 0.9 < metrics[-1]["train/ssm/radius"] < 1
    assert (catch / "video/policy-200.mp4").stat().st_size > 0
    assert (catch / "video/openloop-200.mp4").stat().st_size > 0
    assert not load(catch).agent.online  # replay is uniform


def test_stopped_and_resumed_equals_one_run(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dreams, "videos", lambda session, step: [])
    begin = ("train", "--preset", "tiny", "--device", "cpu", "--steps")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(*begin, 132, "--logdir", whole)
    run(*begin, 66, "--logdir", parts)
    torch.rand(3)  # another process would begin with other global generators
    run("train", "--logdir", parts, "--steps", 132)
    one, other = (checkpoint.load(checkpoint.latest(logdir)) for logdir in (whole, parts))
    assert one.weights.keys() == other.weights.keys()
    assert all(value.equal(other.weights[name]) for name, value in one.weights.items())
    assert any(name.endswith("s5.lambda_re") for name in one.weights)
    for name in ("metrics.jsonl", "scores.jsonl"):
        assert rows(whole, name) == rows(parts, name)


def test_a_trained_agent_acts_and_its_memory_is_in_its_carry(catch: Path) -> None:
    policy = load(catch).policy
    env = env_adapters.make("toy:catch")
    observation, _ = env.reset(seed=0)
    action, carry = policy(observation)
    assert env.action_space.contains(action)
    _, later = policy(env.step(action)[0], carry)
    before, after = (known["agent"]["backbone"] for known in (carry, later))
    assert before.shape == (1, 2 * 16 * 2) and not before.equal(after) and not after.requires_grad
    env.close()


def test_eval_and_dream(run: Any, catch: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("eval", catch, "--episodes", 2, "--device", "cpu")
    assert json.loads(capsys.readouterr().out)["episodes"] == 2
    run("dream", catch, "--observed", 2, "--imagined", 5, "--rows", 2, "--device", "cpu")
    assert len(json.loads((catch / "dream/200.json").read_text())["error"]["model"]) == 5
