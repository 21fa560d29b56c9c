"""What `play --browser` shows beside the current frame: the steps that PO-Dreamer recalls, their weights and their frames."""

from __future__ import annotations

import dataclasses
import json
from contextlib import closing
from typing import Any

import numpy as np
import pytest
from po_dreamer.cli import APP
from wm_core.agent import Agent
from wm_run.browser import Show
from wm_run.configs import resolve
from wm_run.loading import build, environments, runtime
from wm_run.observer import Observer, key_shown
from wm_run.stage import Stage
from wm_run.teams import team_of
from wm_run.window import Keyboard


def staged(task: str, ablation: str = "", **fields: Any) -> Any:
    """A stage of an untrained agent, to be closed."""
    config = runtime(dataclasses.replace(resolve(APP, "tiny", "", ablation), device="cpu", task=task, **fields))
    envs = environments(APP, config, 1)
    agent = build(APP, config, envs)
    assert isinstance(agent, Agent)
    stage = Stage(Observer(agent, key_shown(envs), seed=0, team=team_of(envs)), envs, seed=0)
    return closing(envs), stage, config


def test_steps_that_look_like_the_current_one_are_recalled_with_their_frames() -> None:
    """Equal observations have equal keys, whatever the weights: on doors, which shows one of few vectors, all earlier ones
    are recalled, as far as there is room, and the frame shown beside each is the current one."""
    closed, stage, config = staged("toy:doors")
    with closed:
        seen, firsts, twins = [stage.step["vector"][0].copy()], [True], 0
        for _ in range(60):
            told = stage.recollection
            assert told is not None
            taken = told.taken[0, 0]
            ages, episodes = told.age[0, 0][taken].tolist(), told.episodes[0, 0][taken].tolist()
            alike = [ago for ago in range(1, len(seen)) if np.array_equal(seen[-1 - ago], seen[-1])]
            alike = [ago for ago in alike if ago <= config.memory_window][: config.memory_count]
            assert set(alike) <= set(ages) and len(ages) == min(len(seen) - 1, config.memory_count)
            assert episodes == [sum(firsts[len(firsts) - ago :]) for ago in ages]
            assert not ages or told.weight[0, 0].sum().item() == pytest.approx(1, abs=1e-5)
            assert stage.now.recalled is not None
            for one in stage.now.recalled.steps:
                assert one.seen is not None and np.array_equal(one.seen, seen[-1 - one.ago])
            twins += len(alike)
            stage.go_on()
            seen.append(stage.step["vector"][0].copy())
            firsts.append(bool(stage.step["first"][0]))
    assert twins > 20


@pytest.mark.parametrize(("ablation", "remembers"), [("mg-only", True), ("co-only", False)])
def test_whoever_has_no_memory_says_nothing_of_one(ablation: str, remembers: bool) -> None:
    closed, stage, _ = staged("toy:doors", ablation)
    with closed:
        stage.go_on()
        told = json.loads(Show(stage, Keyboard((4,), 0), "doors").frame())["recalled"]
    assert (told is not None) == remembers and (not remembers or told["found"] == 1)


def test_looking_draws_nothing_and_changes_nothing() -> None:
    """The same steps with and without a look at what is recalled."""

    def played(look: bool) -> list[Any]:
        closed, stage, _ = staged("toy:doors", co_bottleneck="gaussian")  # an encoder that draws
        with closed:
            if not look:
                stage.observer.recalled = lambda carry, step: None
            return [stage.go_on().predicted.shown.tolist() for _ in range(12)]

    assert played(True) == played(False)


def test_agents_of_a_team_recall_by_themselves() -> None:
    closed, stage, _ = staged("toy:leavers")
    with closed:
        assert stage.observer.team is not None
        frames = [stage.step[stage.observer.key][0].copy()]
        for _ in range(6):
            stage.go_on()
            frames.append(stage.step[stage.observer.key][0].copy())
        told = stage.recollection
        assert told is not None and len(told.age) == stage.observer.team.agents
        for who in range(len(told.age)):
            stage.switch(who)
            assert stage.now.recalled is not None and stage.now.recalled.found == int(told.taken[who].sum()) > 1
            for one in stage.now.recalled.steps:
                assert one.seen is not None
                assert np.array_equal(stage.observer.pictured(one.seen), frames[-1 - one.ago][who].reshape(-1))
    assert any(not np.array_equal(frame[0], frame[1]) for frame in frames)
