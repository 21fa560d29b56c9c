"""What learns of teams, by its command line, on SMACv2's own code: a run ends, is evaluated, and outlives the game it plays."""

import json
import pathlib
import subprocess
import sys

import pytest

APPS = ("po_dreamer", "dmawm")
TRAIN = ("train", "--preset", "tiny", "--device", "cpu", "--train_ratio", 2, "--logdir", "run")
EVEN = {"ALLIES": 40, "ENEMIES": 20}  # random play wins some, and loses some
STANDING = {"ALLIES": 0, "ENEMIES": 0, "WALK": 0}  # every episode comes to its limit


@pytest.fixture
def told(tmp_path):
    """(app, words of a command line) -> what it says on stdout and on stderr, once it has ended well."""

    def run(app, *words):
        command = [sys.executable, "-m", app, *map(str, words)]
        done = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0 and "Traceback" not in done.stderr, done.stdout + done.stderr
        return done.stdout, done.stderr

    return run


def rows(file: pathlib.Path) -> list[dict[str, float]]:
    """A log, line by line."""
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.parametrize("task", ["smac:3m", "smacv2:protoss_5_vs_5"])
@pytest.mark.parametrize("app", APPS)
def test_a_run_learns_saves_and_is_evaluated(starcraft, told, tmp_path, app, task) -> None:
    installed = starcraft(EVEN)
    told(app, *TRAIN, "--task", task, "--steps", 120)
    assert installed.games() == []  # every game ends with the run
    last = rows(tmp_path / "run" / "metrics.jsonl")[-1]
    assert last["train/updates"] > 5 and last["train/loss/action_mask"] > 0
    saved = max(int(one.name) for one in (tmp_path / "run" / "checkpoint").iterdir() if one.name.isdigit())
    assert saved in (120, 121)  # a reset is no step, so that two environments may pass by the last one
    protocol = json.loads((tmp_path / "run" / "protocol.json").read_text())
    assert protocol["suite"] == task.split(":")[0] and protocol["starcraft"] == "build 75689"
    found = json.loads(told(app, "eval", "run", "--episodes", 2)[0])
    assert found["protocol"]["agents"] == (3 if task == "smac:3m" else 5) and found["protocol"]["code"]
    assert len(found["scores"]) == 2 and found["won"] in (0, 0.5, 1) and found["step"] == saved
    if task == "smac:3m":  # of which every win is worth 20
        assert sum(score == pytest.approx(20, abs=1e-3) for score in found["scores"]) == 2 * found["won"]
    assert installed.games() == []


@pytest.mark.parametrize("app", APPS)
def test_a_game_that_is_killed_costs_its_episode_and_nothing_else(starcraft, told, tmp_path, app) -> None:
    """Two environments, 130 records each: one has episodes at 60 and 121, the other is cut at 30 and has one at 91."""
    installed = starcraft(STANDING)
    installed.one_dies(30)
    _, said = told(app, *TRAIN, "--task", "smac:3m", "--envs", 2, "--steps", 260)
    assert not (installed.folder / "dies").exists() and installed.games() == []
    sentences = [line for line in said.splitlines() if "environment" in line]
    assert len(sentences) == 2
    assert "StarCraft II is gone" in sentences[0] and "is made anew" in sentences[0]
    assert "truncation" in sentences[1]
    scores = rows(tmp_path / "run" / "scores.jsonl")
    assert [row["episode/length"] for row in scores] == [60, 60, 60]
    metrics = rows(tmp_path / "run" / "metrics.jsonl")
    assert sum(row.get("env/faults", 0) for row in metrics) == 2
    assert metrics[-1]["step"] == 260 and (tmp_path / "run" / "checkpoint" / "260").is_dir()

    installed.one_dies(30)
    found, said = told(app, "eval", "run", "--episodes", 2)
    assert not (installed.folder / "dies").exists() and "StarCraft II is gone" in said
    assert json.loads(found)["lengths"] == [60, 60]
