"""Environments with an axis of agents: scores, outcomes, who may learn them, and the newest rows of every stream."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from wm_core.errors import UserError
from wm_run.config import RunConfig, check_together
from wm_run.episodes import Episode, outcomes_of, score_of
from wm_run.loading import build
from wm_run.loop import Position, Ratio
from wm_run.replay import Replay
from wm_run.session import Session
from wm_run.teams import Team, team_of


def record(reward: Any, **flags: Any) -> dict[str, Any]:
    n = len(reward)
    given = {"reward": np.array(reward), "first": np.zeros(n, bool), "last": np.zeros(n, bool)}
    return given | {name: np.array(value) for name, value in flags.items()}


def test_an_episode_sums_the_mean_over_agents_and_ends_with_its_outcomes() -> None:
    envs: Any = SimpleNamespace(repeat=1, outcomes=("won", "held"), cut=np.zeros(2, bool))
    at = Position(record([[0.0, 0.0]] * 2, first=[True, True]), None, Ratio(0, 1), np.zeros(2), np.zeros(2, np.int64))
    flags = {"won": [False, False], "held": [[False, False]] * 2}
    assert at.count(envs) == []
    at.step = record(
        [[1.0, 3.0], [0.0, 1.0]], last=[False, True], won=[True, False], held=[[True, True], [True, False]]
    )
    assert at.count(envs) == [Episode(0.5, 1, {"won": 0.0, "held": 0.5})]
    at.step = record(
        [[2.0, 2.0], [0.0, 0.0]], first=[False, True], last=[True, False], **flags | {"won": [True, False]}
    )
    assert at.count(envs) == [Episode(4.0, 2, {"won": 1.0, "held": 0.0})]  # a win that was over is none


def test_environments_may_say_what_counts() -> None:
    step = record([[1.0, 3.0]])
    assert score_of(SimpleNamespace(score=lambda step: step["reward"].sum(-1)), step).tolist() == [4.0]
    assert score_of(SimpleNamespace(), {"reward": np.array([5.0])}).tolist() == [5.0]
    assert outcomes_of(SimpleNamespace(), step, 0) == {}


@pytest.mark.parametrize(
    ("teams", "agents", "words"), [("none", 3, "take an app for several"), ("only", None, "smax:3m")]
)
def test_an_app_of_the_other_kind_refuses_in_a_sentence(teams: str, agents: int | None, words: str) -> None:
    app: Any = SimpleNamespace(name="fakeapp", teams=teams, part=lambda name: lambda *given: given)
    envs: Any = SimpleNamespace(agents=agents, observation_space="seen", action_spec="done")
    with pytest.raises(UserError, match=words):
        build(app, RunConfig(task="some:task"), envs)


def test_the_builder_of_a_team_is_told_of_it() -> None:
    app: Any = SimpleNamespace(name="fakeapp", teams="only", part=lambda name: lambda *given: given)
    envs: Any = SimpleNamespace(agents=3, noop=4, state_size=None, observation_space="seen", action_spec="done")
    given: Any = build(app, RunConfig(task="some:task"), envs)
    assert given[1:] == ("seen", "done", Team(3, 4, None)) and team_of(object()) is None


@pytest.mark.parametrize("agents", [None, 2])
def test_an_app_of_both_kinds_is_told_of_a_team_where_there_is_one(agents: int | None) -> None:
    app: Any = SimpleNamespace(name="fakeapp", teams="too", part=lambda name: lambda *given: given)
    envs: Any = SimpleNamespace(agents=agents, observation_space="seen", action_spec="done")
    given: Any = build(app, RunConfig(task="some:task"), envs)
    assert given[3:] == (() if agents is None else (Team(2),))


def test_aligned_rows_hold_every_transition_of_every_stream_once() -> None:
    """T + 1 records a row, T between two rows: what a learner that lives on the newest rows asks for."""
    span, n = 4, 2
    replay = Replay(None, n, stores={}, limit_bytes=10**6, chunk=64, length=span + 1, stride=span, aligned=True)
    seen: list[tuple[int, int]] = []
    for t in range(3 * span + 1):
        x = np.stack([np.array([s, t]) for s in range(n)])
        replay.add({"action": np.zeros((n, 1), np.float32), "first": np.full(n, t == 0), "x": x})
        if t and t % span == 0:
            rows = replay.sample(n, span + 1).steps["x"]
            assert rows[:, 0, 0].tolist() == [0, 1] and rows[0, :, 1].tolist() == list(range(t - span, t + 1))
            seen += [(int(s), int(at)) for row in rows for s, at in row[:-1]]
    assert sorted(seen) == [(s, t) for s in range(n) for t in range(3 * span)]


def test_a_team_is_observed_agent_by_agent_and_refuses_what_is_no_team() -> None:
    team = Team(2, state=3)
    seen = team.observed({"x": np.array([[1.0], [2.0]])}, lambda one: {"x": 10 * one["x"]})
    assert seen["x"].tolist() == [[10.0], [20.0]]
    assert team.observed([{"x": 1}, {"x": 2}], lambda one: {"x": np.array([one["x"]])})["x"].tolist() == [[1], [2]]
    with pytest.raises(UserError, match="2 agents in front"):
        team.observed({"x": np.zeros((3, 1))}, dict)
    for mask in (np.ones((2, 3)), np.array([[1, 1], [0, 0]])):
        with pytest.raises(UserError, match="the mask of a team"):
            team.entries(2, mask)


def test_the_first_updates_come_at_once() -> None:
    ratio = Ratio(train_ratio=4, replayed=16, first=3)
    assert [ratio.due(2) for _ in range(5)] == [3, 0, 1, 0, 1]


@pytest.mark.parametrize("aligned", [True, False])
def test_rows_are_drawn_ahead_of_time_for_those_alone_who_may_learn_from_old_ones(
    aligned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU the next batch is sampled right after an update, when the newest row of a stream is not there yet."""
    monkeypatch.setattr("wm_run.feed.lane_to", lambda device: "a lane")
    agent: Any = SimpleNamespace(aligned=aligned, device="cuda")
    nothing: Any = None
    session = Session(nothing, nothing, agent, nothing, nothing, nothing)
    assert session.feed.lane == (None if aligned else "a lane")


def test_numbers_that_do_not_fit_each_other_are_refused_by_the_configs_own_sentence() -> None:
    class Config(RunConfig):
        @property
        def mistake(self) -> str:
            return f"{self.envs} envs want as many rows, not {self.batch}" if self.batch != self.envs else ""

    check_together(RunConfig())
    check_together(Config(batch=3, envs=3))
    with pytest.raises(UserError, match="2 envs want as many rows, not 3"):
        check_together(Config(batch=3, envs=2))
