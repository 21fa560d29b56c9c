"""Options of a task: said once, kept with the run, told in its protocol."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from dreamer.cli import APP
from mappo.cli import APP as TEAMS
from wm_core.errors import UserError
from wm_run import loading
from wm_run.cli import main, parse
from wm_run.config import RunConfig
from wm_run.tasks import Tasks
from wm_suite.errors import SuiteError
from wm_suite.gather import read
from wm_suite.groups import group

TINY = ("--preset", "tiny", "--device", "cpu", "--workers", "0", "--final-video", "False")


def told(words: list[str], capsys: pytest.CaptureFixture[str], app: Any = APP) -> str:
    with pytest.raises(SystemExit):
        main(app, words)
    said = capsys.readouterr().err.strip().splitlines()[-1]
    return said


def test_options_of_a_task_are_kept_with_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logdir = str(tmp_path / "run")
    main(APP, ["train", *TINY, "--task", "toy:doors", "--env.cues", "8", "--steps", "4", "--logdir", logdir])
    assert tomllib.loads((tmp_path / "run" / "config.toml").read_text())["env"] == {"cues": 8}
    assert json.loads((tmp_path / "run" / "protocol.json").read_text())["options"] == {"cues": 8}
    main(APP, ["train", "--logdir", logdir, "--env.cues=8", "--steps", "6"])
    capsys.readouterr()
    main(APP, ["eval", logdir, "--episodes", "1"])
    result = json.loads(capsys.readouterr().out)
    assert result["protocol"]["options"] == {"cues": 8} and result["changed"] == {}
    main(APP, ["eval", logdir, "--episodes", "1", "--env.redraw", "0"])
    assert json.loads(capsys.readouterr().out)["changed"] == {"env.redraw": 0}
    assert loading.load(APP, logdir).observation_space["vector"].shape == (12,)
    main(APP, ["info", "--logdir", logdir, "--json"])
    assert json.loads(capsys.readouterr().out)["protocol"]["options"] == {"cues": 8}
    assert "but env.cues: 8 became 9" in told(["train", "--logdir", logdir, "--env.cues", "9"], capsys)
    assert "but env.redraw: None became 0" in told(["train", "--logdir", logdir, "--env.redraw", "0"], capsys)
    assert parse(APP, ["play", logdir]).config.env == {"cues": 8} == parse(APP, ["dream", logdir]).config.env
    assert parse(APP, ["eval", logdir, "--task", "toy:catch"]).config.env == {}  # which has others


def test_an_option_may_have_the_name_of_a_field(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logdir = str(tmp_path / "run")
    task = ["--task", "toy:cue_maze", "--env.length", "2", "--env.gap", "1"]
    main(APP, ["train", *TINY, *task, "--steps", "4", "--logdir", logdir])
    assert parse(APP, ["train", "--logdir", logdir, "--steps", "6"]).config.env == {"length": 2, "gap": 1}
    for command in ("eval", "dream", "play", "export", "publish"):
        assert parse(APP, [command, logdir]).config.env == {"length": 2, "gap": 1}
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(APP, ["eval", logdir, "--help"])
    assert "fixed to: length 2, gap 1" in " ".join(capsys.readouterr().out.replace("\u2502", " ").split())


@pytest.mark.parametrize(
    ("app", "task", "option", "said"),
    [
        (APP, "toy:doors", ("--env.cuez", "8"), "has no option 'cuez'; it has cues, doors, redraw"),
        (APP, "toy:doors", ("--env.cues", "many"), "the option cues is 'many', a str; it is int"),
        (TEAMS, "toy:doors_team", ("--env.agent", "2"), "has no option 'agent'; it has agents"),
        (APP, "gym:CartPole-v1", ("--env.colour", "1"), "it has repeat, size, max_episode_steps, sutton_barto_reward"),
        (APP, f"{__name__}:made", ("--env.long", "1"), "has no option 'long'; it has length"),
        (APP, f"{__name__}:made", ("--env.length", "1.5"), "the option length is 1.5, a float; it is int"),
    ],
)
def test_what_the_task_does_not_have_is_a_sentence(
    app: Any, task: str, option: tuple[str, str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", *TINY, "--task", task, *option, "--logdir", str(tmp_path / "run")]
    assert said in told(words, capsys, app) and not (tmp_path / "run").exists()


def made(length: int = 20) -> Any:
    """A factory of one's own."""
    import gymnasium

    return gymnasium.make("CartPole-v1", max_episode_steps=length)


@pytest.mark.parametrize(
    ("task", "env", "protocol"),
    [
        ("toy:doors_team", {"agents": 2}, {"agents": 2}),
        ("gym:CartPole-v1", {"max_episode_steps": 7}, {"max_episode_steps": 7}),
        (f"{__name__}:made", {"length": 9}, {"max_episode_steps": 9}),
    ],
)
def test_they_reach_every_kind_of_task(task: str, env: dict[str, Any], protocol: dict[str, Any]) -> None:
    config = RunConfig(task=task, env=env, workers=0)
    envs: Any = Tasks()(config, 1)
    assert envs.protocol["options"] == env and envs.protocol.items() >= protocol.items()
    envs.close()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--env.cues",), "--env.cues needs a value"),
        (("--env.cues", "null"), "--env.cues cannot be null"),
        (("--env.", "3"), "names no option of a task: write --env.NAME VALUE"),
        (("--env.workers", "3"), "--env.workers is no option that a task may have here: give --workers instead"),
        (("--env.protocol", "storm"), "give --protocol instead"),
    ],
)
def test_what_is_no_option_is_a_sentence(
    words: tuple[str, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in told(["train", *TINY, "--task", "toy:doors", *words, "--logdir", str(tmp_path / "run")], capsys)


def test_environments_that_take_none_say_so() -> None:
    envs = SimpleNamespace(protocol={}, close=lambda: None)
    app: Any = SimpleNamespace(name="mine", part=lambda name: lambda config, n: envs)
    with pytest.raises(UserError, match=r"the environments of mine take no options of the task: leave out --env\.a"):
        loading.environments(app, RunConfig(task="t", env={"a": 1}), 1)


def test_two_runs_that_differ_are_not_put_side_by_side_unmarked(tmp_path: Path) -> None:
    runs = []
    for at, env in enumerate([{}, {"sutton_barto_reward": True}, {"sutton_barto_reward": False}]):
        with Tasks()(RunConfig(task="gym:CartPole-v1", env=env), 1) as envs:  # type: ignore[attr-defined]
            protocol = envs.protocol
        folder = tmp_path / str(at)
        folder.mkdir()
        (folder / "config.toml").write_text(f'task = "toy:doors"\nseed = {at}\n[run]\napp = "dreamer"\n')
        (folder / "protocol.json").write_text(json.dumps(protocol))
        runs.append(read(folder))
    for pair in (runs[:2], runs[1:]):
        with pytest.raises(SuiteError, match="different protocols \\(options: "):
            group(pair)
        assert len(group(pair, mixed=True)[0]) == 2
