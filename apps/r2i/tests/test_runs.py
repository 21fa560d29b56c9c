"""A whole run of R2I at tiny size: what it leaves, that it learns, that it goes on, and that it acts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import env_adapters
from r2i import load
from r2i.cli import APP
from wm_run.testing import check_goes_on_alike


def rows(logdir: Path, name: str) -> list[dict[str, Any]]:
    """A log, line by line."""
    return [json.loads(line) for line in (logdir / name).read_text().splitlines()]


def test_a_run_leaves_scores_metrics_and_a_video_and_its_model_learns(catch: Path) -> None:
    assert len(rows(catch, "scores.jsonl")) > 20  # 200 steps, 7 an episode
    metrics = [row for row in rows(catch, "metrics.jsonl") if "train/loss/image" in row]
    assert metrics[-1]["train/loss/image"] < 0.7 * metrics[0]["train/loss/image"]
    assert 0.9 < metrics[-1]["train/ssm/radius"] < 1
    assert (catch / "video/policy-200.mp4").stat().st_size > 0
    assert (catch / "video/openloop-200.mp4").stat().st_size > 0
    assert not load(catch).agent.online  # replay is uniform


def test_stopped_and_resumed_equals_one_run(tmp_path: Path) -> None:
    middle = check_goes_on_alike(APP, tmp_path, stop=66)
    assert int(middle["agent"]["clock"]["updates"]) > 3


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
