"""The examples of docs/examples do what they say, on a run of seconds."""

from __future__ import annotations

import json
import pathlib
import runpy
import sys
import tarfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "docs" / "examples"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run of dreamer on toy:catch."""
    folder = tmp_path_factory.mktemp("runs")
    with tarfile.open(ROOT / "tests" / "old_runs" / "2028e95" / "dreamer.tar.xz") as packed:
        packed.extractall(folder, filter="data")
    return str(folder / "dreamer")


def told(
    name: str, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> list[dict[str, object]]:
    monkeypatch.setattr(sys, "argv", [name, *words])
    capsys.readouterr()
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_the_planner_plays_real_episodes(
    run: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len((EXAMPLES / "planner.py").read_text().splitlines()) <= 60
    (found,) = told("planner.py", [run, "--episodes", "2", "--horizon", "3"], monkeypatch, capsys)
    assert found["scores"] and set(found["scores"]) <= {-1.0, 1.0} and len(found["scores"]) == 2  # type: ignore[arg-type,call-overload]


def test_a_planner_finds_what_its_model_rewards() -> None:
    """Of a model that rewards one action in each step, and of one that rewards a number: no model of ours is asked."""
    import torch
    from gymnasium import spaces
    from wm_run.dream_batch import Simulated

    plan = runpy.run_path(str(EXAMPLES / "planner.py"))["plan"]

    class Model:
        def __init__(self, space: spaces.Space[object], target: torch.Tensor) -> None:
            self.action_space, self.action_size, self.target = space, target.shape[1], target

        def simulate(self, actions: torch.Tensor) -> Simulated:
            reward = -(actions - self.target).square().sum(-1)
            return Simulated(reward, torch.zeros_like(reward), torch.zeros(len(actions)))

    generator = torch.Generator().manual_seed(0)
    target = torch.eye(3)[[2, 0, 1, 1]]
    found = plan(Model(spaces.Discrete(3), target), torch.full((4, 3), 1 / 3), generator=generator)
    assert found.argmax(1).tolist() == [2, 0, 1, 1]
    wanted = torch.tensor([[0.5], [-0.25]])
    found = plan(Model(spaces.Box(-1, 1, (1,)), wanted), torch.zeros(2, 1), rounds=6, generator=generator)
    assert (found - wanted).abs().max() < 0.15


def test_the_outside_agent_is_scored_beside_chance_and_the_policy(
    run: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """But for the agent of the other library, which is no dependency of ours."""
    found = told("outside_agent.py", [run, "--steps", "0", "--episodes", "2"], monkeypatch, capsys)
    assert [one["who"] for one in found] == ["chance", "own policy"]
    assert all(abs(one["mean"]) <= 1 for one in found)  # type: ignore[arg-type]
