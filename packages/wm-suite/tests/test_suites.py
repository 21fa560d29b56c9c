"""A suite's file: what it may say, what it becomes, and by which name it is found."""

from __future__ import annotations

from pathlib import Path

import pytest
from wm_suite import suites
from wm_suite.errors import SuiteError

TEXT = """
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
ablation = "no-kl"
measure = "mine:scores"
tasks = ["toy:catch"]
seeds = [0]
"""


def written(folder: Path, text: str) -> Path:
    file = folder / "two-arms.toml"
    file.write_text(text)
    return file


def test_a_suite_is_its_runs(tmp_path: Path) -> None:
    made = suites.read(written(tmp_path, TEXT))
    assert (made.name, made.title, made.minutes, made.score, made.outcome) == ("two-arms", "Two arms", 5, "trained", "")
    assert [cell.key for cell in made.cells] == [
        ("toy:catch", "short", 0),
        ("gym:CartPole-v1", "short", 0),
        ("toy:catch", "short", 1),
        ("gym:CartPole-v1", "short", 1),
        ("toy:catch", "dreamer", 0),
    ]
    assert (made.arms, made.tasks) == (["short", "dreamer"], ["toy:catch", "gym:CartPole-v1"])
    short, dreamer = made.cells[0], made.cells[-1]
    assert " ".join(short.words) == "--preset tiny --task toy:catch --seed 0 --steps 80 --device cpu"
    assert " ".join(dreamer.words) == "--ablation no-kl --task toy:catch --seed 0 --steps 200 --device cpu"
    assert (short.measure, dreamer.measure) == ("wm_run.measures:fresh", "mine:scores")
    assert short.settings == {"app": "r2i", "preset": "tiny", "options": {"steps": 80, "device": "cpu"}}
    assert dreamer.settings["ablation"] == "no-kl"
    assert [cell.seed for cell in suites.read(written(tmp_path, TEXT), seeds=[7]).cells] == [7, 7, 7]


def test_what_is_shown_beside_the_rows_is_kept(tmp_path: Path) -> None:
    more = 'score = "return"\noutcome = "won"\n' + TEXT
    more += (
        '[normalise]\ntable = "atari_human"\n[[printed]]\ntable = "dmawm_table1"\n[[printed]]\ntable = "var_table1"\n'
    )
    made = suites.read(written(tmp_path, more))
    assert (made.score, made.outcome, made.normalise, made.printed) == (
        "return",
        "won",
        "atari_human",
        ("dmawm_table1", "var_table1"),
    )


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("title", "titel", "it may have title, minutes"),
        ("minutes = 5", "minutes = true", "minutes of two-arms.toml is True"),
        ("seeds = [0]", "seeds = 0", "seeds of run 2"),
        ('app = "dreamer"\n', "", "run 2 of two-arms.toml lacks app"),
        ('app = "dreamer"', 'app = "dreamer"\narm = "short"', "twice"),
        ('app = "dreamer"', 'app = "dreamer"\narm = "sh+rt"\n', None),
        ("seeds = [0]", "seeds = [true]", "seeds of run 2 of two-arms.toml has True"),
        ("seeds = [0]", 'seeds = ["0"]', "a list of whole numbers"),
        ('tasks = ["toy:catch"]', "tasks = [3]", "tasks of run 2 of two-arms.toml has 3"),
        ('tasks = ["toy:catch"]', 'tasks = "atari27"', "one of the names .*atari26"),
        ("steps = 200", "steps = 200\nseed = 3", "'seed', which the suite says elsewhere"),
        ("steps = 200", 'steps = 200\nablation = "x"', "'ablation', which the suite says elsewhere"),
        ("{ steps = 80 }", "{ steps = { of = 80 } }", "option steps of run 1"),
        ('measure = "mine:scores"', 'measure = "mine"', "write module:function"),
        ("[options]", '[[printed]]\ntable = 3\n[options]', "write table"),
        ("[options]", "[normalise]\nname = 3\n[options]", "write table"),
        ("[options]", "[options", "is not TOML"),
        ("[options]", '[normalise]\ntable = "atari_humans"\n[options]', r"\[normalise\] of two-arms.toml: there is no table"),
        ("[options]", '[normalise]\ntable = "dmawm_table1"\n[options]', "dmawm_table1 holds no random and reference"),
        ("[options]", '[[printed]]\ntable = "atari_human"\n[options]', "atari_human holds no printed scores"),
        ("minutes = 5", "minutes = -5", "minutes of two-arms.toml is -5"),
        ("minutes = 5", "minutes = 0", "a number above 0"),
        ("minutes = 5", "minutes = nan", "or inf for no limit"),
        ("minutes = 5", "minutes = inf", None),
        ("seeds = [0]", "seeds = []", "seeds of run 2 of two-arms.toml is an empty list"),
        ("seeds = [0]", "seeds = [3, 0, 3]", "seeds of run 2 of two-arms.toml has 3 twice"),
        ('tasks = ["toy:catch"]', "tasks = []", "tasks of run 2 .* is an empty list"),
    ],
)  # fmt: skip
def test_what_a_suite_must_not_say_is_said(tmp_path: Path, old: str, new: str, told: str | None) -> None:
    file = written(tmp_path, TEXT.replace(old, new))
    if told is None:
        assert suites.read(file)
        return
    with pytest.raises(SuiteError, match=told):
        suites.read(file)


def test_a_seed_that_is_asked_for_twice_is_run_once(tmp_path: Path) -> None:
    made = suites.read(written(tmp_path, TEXT), seeds=[7, 7])
    assert {cell.seed for cell in made.cells} == {7} and len(made.cells) == 3


def test_a_run_that_is_no_table_is_said(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match=r"run 1 of two-arms.toml is 'a'"):
        suites.read(written(tmp_path, 'run = ["a"]'))


def test_two_arms_do_not_share_a_folder(tmp_path: Path) -> None:
    text = TEXT.replace('app = "dreamer"', 'arm = "a+b"\napp = "dreamer"')
    text += '[[run]]\narm = "a b"\napp = "dreamer"\ntasks = ["toy:catch"]\nseeds = [0]\n'
    with pytest.raises(SuiteError, match="toy_catch-a_b-0 twice"):
        suites.read(written(tmp_path, text))


def test_a_list_is_several_words() -> None:
    cell = suites.Cell("toy:catch", "r2i", 0, "r2i", "", {"log": ["wandb", "trackio"], "steps": 80})
    assert cell.words[4:] == ["--log", "wandb", "trackio", "--steps", "80"]


def test_a_named_list_is_its_tasks(tmp_path: Path) -> None:
    made = suites.read(written(tmp_path, TEXT.replace('tasks = ["toy:catch"]', 'tasks = "atari26"')))
    assert len(made.tasks) == 28 and made.tasks[2] == "atari100k_alien"


def test_a_suite_is_found_by_its_name(tmp_path: Path) -> None:
    written(tmp_path, TEXT)
    assert suites.read("two-arms", folders=[tmp_path]).name == "two-arms"
    assert suites.shipped() and all(suites.read(name).cells for name in suites.shipped())
    with pytest.raises(SuiteError, match=r"there is no suite 'nope'.*two-arms"):
        suites.read("nope", folders=[tmp_path])
    with pytest.raises(SuiteError, match="cannot be read: No such file"):
        suites.read(tmp_path / "nope.toml")
    with pytest.raises(SuiteError, match=r"ends in .toml"):
        suites.read("../two-arms")
    (tmp_path / "odd.toml").write_bytes(b"title = '\xff'")
    with pytest.raises(SuiteError, match="not UTF-8"):
        suites.read("odd", folders=[tmp_path])
