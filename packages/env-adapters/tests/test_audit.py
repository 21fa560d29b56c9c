"""`python -m env_adapters check`: verdicts, numbers, exit codes."""

import json
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from env_adapters.__main__ import main
from env_adapters.audit import audit, table
from gymnasium import spaces


class Walk(gymnasium.Env):
    observation_space = spaces.Box(0, 6, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = int(self.np_random.integers(2, 5))
        return np.array([self.place], np.float32), {}

    def step(self, action):
        self.place += 2 * int(action) - 1
        done = self.place in (0, 6)
        return np.array([self.place], np.float32), float(self.place == 6), done, False, {}


class Drifting(Walk):
    """Its rewards are drawn from nowhere."""

    def step(self, action):
        observation, _, *rest = super().step(action)
        return observation, float(np.random.default_rng().random()), *rest


class Noisy(Drifting):
    """It says so."""

    env_adapters = True

    @property
    def protocol(self):
        return {"name": "noisy", "deterministic": False}


def test_what_says_that_it_does_not_repeat_is_not_asked_to(monkeypatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    failed = audit("test_audit:Drifting", steps=20)
    assert not failed.passed and failed.findings[-1].what == "seeding"
    found = audit("test_audit:Noisy", steps=20)
    verdicts = {one.what: (one.verdict, one.detail) for one in found.findings}
    assert found.passed and verdicts["worker process"][0] == "passes"
    assert verdicts["seeding"][0] == "remark" and "does not repeat under a seed" in verdicts["seeding"][1]
    assert verdicts["resume"][0] == "remark" and "could not be restored" in verdicts["resume"][1]


def test_a_good_task_passes_every_part() -> None:
    found = audit("toy:catch", steps=20)
    parts = ["protocol", "actions", "records", "seeding", "snapshot", "episode ends", "auto-reset", "resume"]
    assert [one.what for one in found.findings] == [*parts, "worker process", "speed"]
    assert found.passed and (found.numbers["app"], found.numbers["preset"]) == ("dreamer", "catch")
    assert found.numbers["record_bytes"] == 64 * 64 * 3 + 3 * 4 + 4 + 3
    assert found.numbers["disk_bytes"] == 24_000 * found.numbers["record_bytes"]
    assert "verdict: usable" in table(found) and "GB for the run" in table(found)


@pytest.mark.parametrize("behind_uv", [False, True])
def test_the_suggestion_is_a_command_that_exists(monkeypatch, behind_uv) -> None:
    monkeypatch.delenv("UV_RUN_RECURSION_DEPTH", raising=False)
    if behind_uv:
        monkeypatch.setenv("UV_RUN_RECURSION_DEPTH", "1")
    said = table(audit("toy:doors", steps=8))
    start = "uv run po-dreamer" if behind_uv else "po-dreamer"
    assert f"suggested: {start} train --preset doors --task toy:doors," in said
    assert f"networks: `{start} info --preset doors`" in said


def test_presets_follow_the_suite_and_else_the_spaces() -> None:
    tasks = ("gym:Pendulum-v1", "toy:doors_image", "bsuite_memory_len/3")
    assert [audit(task, steps=8).numbers["preset"] for task in tasks] == ["dmc_proprio", "doors", "bsuite"]


def test_what_fails_ends_the_audit_with_exit_code_1(capsys, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "walks", sys.modules[__name__])
    assert main(["check", "walks:Drifting", "--steps", "40"]) == 1
    said = capsys.readouterr().out
    assert "seeding   fails   two passes with the same seeds and actions differ at step" in said
    assert "verdict: not usable" in said and "suggested" not in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["toy:cach"], "no task 'toy:cach'; close: toy:catch"),
        (["toy:catch", "size"], "written name=value"),
        (["toy:catch", "size=big"], "option size is 'big'"),
        (["toy:catch", "--steps", "1"], "--steps is at least 4"),
    ],
)
def test_what_cannot_be_made_is_exit_code_2(capsys, arguments, message) -> None:
    assert main(["check", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_as_a_program_with_numbers_for_programs() -> None:
    command = [sys.executable, "-m", "env_adapters", "check", "toy:catch", "size=16", "--steps", "20", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    said = json.loads(done.stdout)
    assert done.returncode == 0 and said["passed"] and said["record_bytes"] == 16 * 16 * 3 + 19


def test_names_are_listed(capsys) -> None:
    assert main(["tasks"]) == 0
    said = capsys.readouterr().out.split()
    assert {"dmc_walker_run", "memory_maze_15x15", "bsuite_memory_len/22", "popgym_AutoencodeHard"} <= set(said)
