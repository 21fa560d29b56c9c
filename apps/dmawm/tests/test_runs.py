"""A run of a team, as its users see it: killed and resumed, evaluated, dreamed of, played."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import pytest
from dmawm.cli import APP
from env_adapters.vector import VectorEnv
from numpy.typing import NDArray
from wm_core.errors import UserError
from wm_run import play
from wm_run.browser import Show
from wm_run.cli import main, parse
from wm_run.loading import environments
from wm_run.observer import Observer
from wm_run.stage import Stage, in_dream, in_environment
from wm_run.teams import team_of
from wm_run.testing import check_killed
from wm_run.window import Keyboard


@pytest.fixture(scope="module")
def run() -> Callable[..., None]:
    return lambda *words: main(APP, [str(word) for word in words])


@pytest.fixture(scope="module")
def leavers(run: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run in which agents leave and masks change."""
    logdir = tmp_path_factory.mktemp("runs") / "leavers"
    run(
        "train",
        "--preset",
        "tiny",
        "--task",
        "toy:leavers",
        "--final_episodes",
        4,
        "--eval_every",
        100,
        "--logdir",
        logdir,
    )
    return logdir


def test_its_episodes_have_outcomes(leavers: Path) -> None:
    rows = [json.loads(line) for line in (leavers / "scores.jsonl").read_text().splitlines()]
    assert rows and all(row["episode/won"] in (0, 1) and row["episode/length"] == 6 for row in rows)
    logged = [json.loads(line) for line in (leavers / "metrics.jsonl").read_text().splitlines()]
    assert [0 <= row["eval/won"] <= 1 for row in logged if "eval/score" in row] == [True] * 2
    (found,) = (leavers / "eval").glob("*.json")
    assert 0 <= json.loads(found.read_text())["won"] <= 1


def test_two_kills_leave_no_trace(tmp_path: Path) -> None:
    options = ["--preset", "tiny", "--task", "toy:leavers", "--save-every", "40", "--model_updates", "2"]
    check_killed("dmawm", options, tmp_path, steps=160, kills=2, places=["checkpoint", "file"], seed=1)


def test_whoever_plays_obeys_masks(leavers: Path) -> None:
    """A held key that asks for what is forbidden gets the policy's action; in the environment and in the dream."""
    loaded = APP.load(leavers)
    stubborn = np.eye(4, dtype=np.float32)[1], "keys"
    with closing(environments(APP, loaded.config, 1)) as envs:
        for film in (in_environment, lambda *given, **named: in_dream(*given, observed=2, **named)):
            observer = Observer(loaded.agent, "vector", seed=3, team=team_of(envs), which=1)  # type: ignore[arg-type]
            moments = list(islice(film(observer, envs, seed=3, choose=lambda action: stubborn), 40))
            for one in moments:
                assert one.predicted.allowed is not None and one.predicted.allowed[one.action > 0].all()
                assert one.predicted.everyone.shape == (3, 4)
            who = {one.who for one in moments}
            assert "policy" in who and who <= {"policy", "keys"}


def test_in_the_browser_all_agents_are_side_by_side_and_one_of_them_obeys(leavers: Path) -> None:
    loaded = APP.load(leavers)
    with closing(environments(APP, loaded.config, 1)) as envs:
        observer = Observer(loaded.agent, "vector", seed=3, team=team_of(envs))  # type: ignore[arg-type]
        show = Show(Stage(observer, envs, seed=3), Keyboard((4,), 0), "leavers")
        for which in (0, 2, 9):  # there is no agent 9
            show.obey({"agent": which})
            now = show.stage.go_on()
            frame = json.loads(show.frame())
            assert (frame["agents"], frame["agent"], len(frame["beside"])) == (3, min(which, 2), 3)
            assert frame["beside"][frame["agent"]] == [frame["seen"], frame["shown"]]
            assert [one.shape for one in now.predicted.beside] == [one.shape for one in now.beside]
        show.obey({"dream": True})
        show.stage.go_on()
        assert all(seen is None and shown for seen, shown in json.loads(show.frame())["beside"])


def test_a_team_is_played_one_agent_at_a_time(
    leavers: Path, run: Callable[..., None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(play, "open_window", lambda *given: None)
    run("play", leavers, "--agent", 2, "--frames", 8)
    run("play", leavers, "--dream", "--frames", 8)
    assert capsys.readouterr().out.count(".mp4") == 2
    with pytest.raises(SystemExit) as stop:
        run("play", leavers, "--agent", 3)
    assert stop.value.code == 2 and "3 agents, 0 to 2" in capsys.readouterr().err


def test_what_the_environments_draw_is_filmed_and_played(
    tmp_path: Path, leavers: Path, run: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the state the whole game, of the vector what an agent sees and what the model makes of it."""
    plain = {path.name.partition("-")[0] + path.suffix for path in (leavers / "video").iterdir()}
    assert "openloop.png" in plain and not plain & {"openloop.mp4", "policy.mp4"}
    asked: dict[str, set[int]] = {"state": set(), "vector": set()}

    def drawn(self: VectorEnv, name: str, values: NDArray[Any]) -> NDArray[np.uint8]:
        asked[name].add(values.shape[-1])
        return np.zeros((*values.shape[:-1], 64, 48, 3), np.uint8)

    monkeypatch.setattr(VectorEnv, "drawable", ("state", "vector"), raising=False)
    monkeypatch.setattr(VectorEnv, "drawn", drawn, raising=False)
    monkeypatch.setattr(play, "open_window", lambda *given: None)
    run("train", "--preset", "tiny", "--task", "toy:leavers", "--steps", 50, "--logdir", tmp_path / "run")
    films = {path.name.partition("-")[0] + path.suffix: path for path in (tmp_path / "run" / "video").iterdir()}
    assert films.keys() == {"policy.mp4", "openloop.mp4", "openloop.png"}
    _, height, width, _ = imageio.imread(films["policy.mp4"], plugin="pyav").shape
    assert height / width == 64 / 48
    assert asked == {"state": {4}, "vector": {5}}
    asked["vector"].clear()
    run("play", tmp_path / "run", "--frames", 4)
    (film,) = (tmp_path / "run" / "video").glob("play-*.mp4")
    tall = 16 + 5 * 64 + 5 * 16  # a title, what the model decodes as it is drawn, words
    assert asked["vector"] == {5} and imageio.imread(film, plugin="pyav").shape[1] == tall


def test_a_discount_of_nothing_is_refused() -> None:
    """The world model's continuation is told as a share of the discount."""
    with pytest.raises(UserError, match=r"discount must be above 0, not 0\.0"):
        parse(APP, ["train", "--preset", "tiny", "--discount", "0"])
