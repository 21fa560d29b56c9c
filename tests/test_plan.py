"""tools/plan.py: what a plan may say, what is left to run, what its rows become, and one run from plan to row."""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "tools"))
import plan as tool

PLAN = """
title = "Two arms"
minutes = 5
[options]
steps = 200
device = "cpu"
[[run]]
arm = "short"
app = "r2i"
preset = "tiny"
tasks = ["toy:catch", "gym:CartPole-v1"]
seeds = [0, 1]
options = { steps = 80 }
[[run]]
app = "dreamer"
tasks = ["toy:catch"]
seeds = [0]
"""
ALL = argparse.Namespace(arms=None, tasks=None, jobs=1)


@pytest.fixture
def made(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> tool.Plan:
    monkeypatch.setattr(tool, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(tool, "RUNS", tmp_path / "runs")
    return tool.read(written(tmp_path, PLAN))


def written(folder: pathlib.Path, text: str) -> pathlib.Path:
    file = folder / "two-arms.toml"
    file.write_text(text)
    return file


def keep(plan: tool.Plan, *rows: dict[str, Any]) -> None:
    plan.rows.parent.mkdir(exist_ok=True)
    with plan.rows.open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def row(cell: tool.Cell, score: float, **other: Any) -> dict[str, Any]:
    curve = [[100, 0.0], [200, score]]
    same = {
        "task": cell.task,
        "arm": cell.arm,
        "seed": cell.seed,
        "settings": cell.settings,
        "config": "c",
        "step": 200,
    }
    scores = {"trained": [score, score], "untrained": [0.25], "random": [0.5]}
    return same | scores | {"ended": "whole", "curve": curve} | other


def test_a_plan_is_its_runs(made: tool.Plan) -> None:
    assert [cell.key for cell in made.cells] == [
        ("toy:catch", "short", 0),
        ("gym:CartPole-v1", "short", 0),
        ("toy:catch", "short", 1),
        ("gym:CartPole-v1", "short", 1),
        ("toy:catch", "dreamer", 0),
    ]
    short, dreamer = made.cells[0], made.cells[-1]
    assert " ".join(short.words) == "--preset tiny --task toy:catch --seed 0 --steps 80 --device cpu"
    assert " ".join(dreamer.words) == "--task toy:catch --seed 0 --steps 200 --device cpu"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("title", "titel", "it may have title, minutes"),
        ("seeds = [0]", "seeds = 0", "seeds of run 2"),
        ('app = "dreamer"\n', "", "run 2 of two-arms.toml lacks app"),
        ('app = "dreamer"', 'app = "dreamer"\narm = "short"', "twice"),
        ("seeds = [0]", "seeds = [true]", "seeds of run 2 of two-arms.toml has True"),
        ("seeds = [0]", 'seeds = ["0"]', "a list of whole numbers"),
        ('tasks = ["toy:catch"]', "tasks = [3]", "tasks of run 2 of two-arms.toml has 3"),
        ("steps = 200", "steps = 200\nseed = 3", "'seed', which the plan says elsewhere"),
        ("{ steps = 80 }", "{ steps = { of = 80 } }", "option steps of run 1"),
    ],
)
def test_what_a_plan_must_not_say_is_said(tmp_path: pathlib.Path, old: str, new: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        tool.read(written(tmp_path, PLAN.replace(old, new)))


def test_a_run_that_is_no_table_is_said(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match=r"run 1 of two-arms.toml is 'a'"):
        tool.read(written(tmp_path, 'run = ["a"]'))


def test_a_list_is_several_words() -> None:
    cell = tool.Cell("toy:catch", "r2i", 0, "r2i", "", {"log": ["wandb", "trackio"], "steps": 80})
    assert cell.words[4:] == ["--log", "wandb", "trackio", "--steps", "80"]


def test_an_arm_or_task_that_the_plan_has_not_is_said(made: tool.Plan) -> None:
    with pytest.raises(ValueError, match="no arm 'nope'; it has short, dreamer"):
        tool.chosen(made, argparse.Namespace(arms=["short", "nope"], tasks=None))
    with pytest.raises(ValueError, match="no task 'toy:nope'"):
        tool.chosen(made, argparse.Namespace(arms=None, tasks=["toy:nope"]))


class Spy(tool.Runner):
    """Starts no process; `train` leaves a config.toml. Keeps the command of each, and the request of a measurement."""

    def __init__(self, plan: tool.Plan) -> None:
        super().__init__(plan)
        self.trained: list[list[str]] = []
        self.measured: list[dict[str, Any]] = []

    def process(self, command: Any, log: Any, limit: float) -> tuple[int, float, bool]:
        if "train" in command:
            self.trained.append(list(command))
            folder = pathlib.Path(command[-1])
            folder.mkdir(exist_ok=True)
            steps = command[command.index("--steps") + 1]
            origin = '[run]\napp = "r2i"\npreset = "tiny"\n'
            (folder / "config.toml").write_text(f'steps = {steps}\nlog = ["wandb"]\nlr = 0.1\n{origin}')
        else:
            self.measured.append(json.loads(command[-1]))
        return 0, 2.0, False


def with_options(**options: Any) -> tool.Cell:
    return tool.Cell("toy:catch", "short", 0, "r2i", "tiny", options)


@pytest.mark.parametrize("old", [False, True], ids=["settings in the diary", "none, from before they were kept"])
def test_a_run_is_not_taken_for_one_with_other_settings(made: tool.Plan, old: bool) -> None:
    spy, begun = Spy(made), with_options(steps=80, lr=0.1, log="wandb")
    folder = begun.folder(made.name)
    spy(begun)
    if old:
        folder.with_name(f"{folder.name}.json").write_text('{"wall_s": 2.0, "done": "whole"}')
    for other, told in [
        (with_options(steps=80, lr=0.2, log="wandb"), "lr: 0.1, the plan says 0.2"),
        (with_options(steps=160, lr=0.2, log="wandb"), "lr: 0.1"),
        (with_options(steps=40, lr=0.1, log="wandb"), "steps: 80"),
    ]:
        assert told in (said := spy(other)) and f"move {folder} away" in said
    assert len(spy.trained) == len(spy.measured) == 1
    assert "measured" in spy(begun) and len(spy.trained) == 1  # the same: its row was taken out, it is measured again
    folder.with_name(f"{folder.name}.json").write_text("{")
    assert "is damaged: remove it" in spy(begun)
    folder.with_name(f"{folder.name}.json").unlink()
    assert "lr: 0.1" in spy(with_options(steps=80, lr=0.2, log="wandb"))
    folder.rename(folder.with_name("away"))
    assert "measured" in spy(with_options(steps=80, lr=0.2, log="wandb")) and len(spy.trained) == 2
    assert spy.measured[-1]["wall_s"] == 2.0 and spy.measured[-1]["options"]["lr"] == 0.2


@pytest.mark.parametrize("old", [False, True], ids=["settings in the diary", "none, from before they were kept"])
def test_a_run_of_which_more_steps_are_asked_goes_on(made: tool.Plan, old: bool) -> None:
    spy, begun = Spy(made), with_options(steps=80, lr=0.1)
    folder = begun.folder(made.name)
    spy(begun)
    if old:
        folder.with_name(f"{folder.name}.json").write_text('{"wall_s": 2.0, "done": "whole"}')
    spy(with_options(steps=160, lr=0.1))
    assert len(spy.trained) == 2 and "160" in spy.trained[1] and spy.trained[1][-1] == str(folder)
    assert spy.measured[-1]["wall_s"] == 4.0 and spy.measured[-1]["options"]["steps"] == 160


def test_runs_whose_names_have_a_dot_keep_their_own_diaries(made: tool.Plan) -> None:
    spy = Spy(made)
    for seed in (0, 1):
        spy(tool.Cell("toy:catch", "lr0.1", seed, "r2i", "tiny", {"steps": 80}))
    assert len(spy.trained) == 2
    assert len(list((tool.RUNS / made.name).glob("toy_catch-lr0.1-[01].json"))) == 2
    assert len(list((tool.RUNS / made.name).glob("toy_catch-lr0.1-[01].log"))) == 2


def test_what_has_a_row_is_not_run_again_and_the_arms_take_turns(made: tool.Plan) -> None:
    keep(made, row(made.cells[0], 1.0))
    left = tool.chosen(made, ALL)
    assert made.cells[0] not in left and len(left) == 4
    assert [cell.seed for cell in left] == [0, 0, 1, 1]
    assert [cell.arm for cell in tool.chosen(made, argparse.Namespace(arms=["dreamer"], tasks=None))] == ["dreamer"]
    keep(made, row(made.cells[1], 1.0, settings={"app": "r2i", "preset": "cpu", "options": {}}))
    with pytest.raises(ValueError, match="give the arm another name"):
        tool.missing(made)


def test_the_table_has_means_of_episodes_and_says_what_differs(made: tool.Plan) -> None:
    short, other, dreamer = made.cells[0], made.cells[2], made.cells[-1]
    keep(made, row(short, -1.0), row(short, 0.0), row(other, 1.0, ended="time", step=120, config="d"))
    keep(made, row(dreamer, 0.75))
    lines = tool.table(made).splitlines()
    assert lines[2] == "| toy:catch | 200 | 0.50 | 0.25 | 0.50 (0.00, 1.00 at 120*)† | 0.25 | 0.75 (one seed) |"
    assert "limit of wall time" in lines[-1] and "different configurations" in lines[-1]
    keep(made, row(tool.Cell("toy:catch", "dreamer", 7, "dreamer", "", {}), 0.25))  # a seed beyond the plan's
    assert "0.50 (0.75, 0.25)" in tool.table(made)
    tool.write(made)
    assert (tool.RESULTS / "two-arms.png").stat().st_size > 1000


def test_random_actions_are_uniform_and_fit_the_space() -> None:
    from env_adapters import ActionSpec

    agent = tool.RandomActions(ActionSpec(discrete=(2, 3), continuous=2))
    actions = agent.act(None, {"first": np.ones(3000, bool)})[1]
    assert actions.shape == (3000, 7)
    assert np.abs(actions[:, :2].mean(0) - 1 / 2).max() < 0.04 and np.abs(actions[:, 2:5].mean(0) - 1 / 3).max() < 0.04
    assert np.abs(actions[:, 5:].mean(0)).max() < 0.06 and np.abs(actions[:, 5:].std(0) - 3**-0.5).max() < 0.03


def test_a_run_becomes_a_row_and_a_failure_none(tmp_path: pathlib.Path, made: tool.Plan) -> None:
    text = PLAN.replace('"toy:catch", "gym:CartPole-v1"', '"toy:catch", "toy:nowhere"').replace("[0, 1]", "[0]")
    plan = tool.read(written(tmp_path, text))
    assert tool.run(plan, argparse.Namespace(arms=["short"], tasks=None, jobs=2)) == 1
    (found,) = tool.rows(plan)
    assert (
        found["task"] == "toy:catch" and found["step"] == 80 and len(found["commit"]) >= 8 and found["ended"] == "whole"
    )
    assert all(len(found[name]) == 50 for name in ("trained", "untrained", "random"))
    assert 0 < found["curve"][-1][0] <= 80 and set(found["random"]) == {-1.0, 1.0}
    assert "no task" in (tool.RUNS / "two-arms" / "toy_nowhere-short-0.log").read_text()
