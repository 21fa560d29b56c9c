"""Fields that nothing reads in some settings: they change no weight there, and who gives one is told in a sentence."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
from wm_run.cli import main, parse
from wm_run.testing.unread import check_unread, on_recording
from wm_run.unread import sentences

TASKS = {  # app: tasks whose facts differ
    "dreamer": ("toy:catch", "toy:doors"),
    "storm": ("toy:catch", "toy:doors"),
    "r2i": ("toy:catch", "toy:doors"),
    "po_dreamer": ("toy:doors", "toy:catch", "toy:doors_team"),
    "dmawm": ("toy:whisper",),
    "mappo": ("toy:whisper",),
}
ALONE = {"team": False, "images": True, "vectors": True}


def app_of(name: str) -> Any:
    return importlib.import_module(f"{name}.cli").APP


@pytest.mark.parametrize("name, task", [(name, task) for name, tasks in TASKS.items() for task in tasks])
def test_what_is_not_read_changes_no_weight(name: str, task: str, tmp_path: Path) -> None:
    """Of all fields of a config that say when they are read, in every setting on which one depends."""
    app = app_of(name)
    assert check_unread(app, *on_recording(app, tmp_path / "recording", "--task", task))


@pytest.mark.parametrize(
    "name, words, told",
    [
        (
            "mappo",
            "--policy mat --layers 3 --heads 2",
            "--layers does nothing with --policy mat: give --policy mappo, or leave it out",
        ),
        ("mappo", "--blocks 2", "--blocks does nothing with --policy mappo: give --policy mat, or leave it out"),
        ("po_dreamer", "--mat-width 64", "--mat-width does nothing in a task of one agent: leave it out"),
        (
            "po_dreamer",
            "--ablation co-only --memory_count 3",
            "--memory-count does nothing with --branches co: give --branches fused or mg or co+co, or leave it out",
        ),
        ("dreamer", "--var_weight 0.5", "--var-weight does nothing with --var False: give --var True, or leave it out"),
        ("dreamer", "--var_weight 0.5 --var", ""),
        ("dreamer", "--protocol storm", "--protocol does nothing with --task toy:catch: leave it out"),
        ("dreamer", "--task atari100k_pong --protocol storm", ""),
        (
            "storm",
            "--task atari100k_pong --protocol dreamerv3 --eval_episode_seed protocol",
            "--eval-episode-seed does nothing with --protocol dreamerv3: give --protocol storm, or leave it out",
        ),
        (
            "r2i",
            "--start_stoch mode",
            "--start-stoch does nothing with --initial learned: give --initial zero, or leave it out",
        ),
        (
            "r2i",
            "--horizon 7 --behaviour False",
            "--horizon does nothing with --behaviour False: give --behaviour True, or leave it out",
        ),
        ("storm", "--held_out_every 7", "--held-out-every does nothing without --data: give --data, or leave it out"),
        (
            "storm",
            "--data x --act_temperature 0.5",
            "--act-temperature does nothing with --data x: leave one of them out",
        ),
    ],
)
def test_whoever_gives_what_is_not_read_is_told(name: str, words: str, told: str) -> None:
    app = app_of(name)
    command = parse(app, ["train", "--preset", "tiny", "--device", "cpu", *words.split()])
    facts = ALONE | {"team": app.teams == "only"}
    assert sentences(command.config, command.given, facts, app.environments.foreign(command.config)) == [told] * bool(
        told
    )


def test_presets_and_ablations_are_silent() -> None:
    """Whatever they hold, nobody gave it."""
    for name in TASKS:
        app = app_of(name)
        for preset in app.files("presets"):
            assert not parse(app, ["train", "--preset", preset]).given
        for ablation in app.files("ablations"):
            assert not parse(app, ["train", "--preset", "tiny", "--ablation", ablation]).given


@pytest.mark.parametrize("way", ["command", "python"])
def test_train_says_it_once_on_stderr(way: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    app = app_of("dreamer")
    told = "--var-weight does nothing with --var False"
    if way == "python":
        app.train(preset="tiny", device="cpu", steps=4, final_video=False, var_weight=0.5, logdir=tmp_path / "run")
    else:
        words = ["--preset", "tiny", "--device", "cpu", "--steps", "4", "--final-video", "False", "--var-weight", "0.5"]
        main(app, ["train", *words, "--logdir", str(tmp_path / "run")])
    said = capsys.readouterr()
    assert said.err.count(told) == 1 and told not in said.out
