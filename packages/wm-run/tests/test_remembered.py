"""What an agent recalls, beside the current frame of `play --browser`: steps whose frames and weights are known beforehand."""

from __future__ import annotations

import base64
import json
from types import SimpleNamespace
from typing import Any

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from wm_core.types import Recollection
from wm_run.browser import Show
from wm_run.observer import Observer
from wm_run.remembered import KEPT, MOST, Album
from wm_run.stage import Stage
from wm_run.window import Keyboard

PLACES = ((1, 0, 0.2), (3, 1, 0.5), (4, 1, 0.3), (900, 7, 0.0))  # steps and episodes ago, weight; the last is not taken


class Planted:
    """A world model that recalls the same places at every step, after as many steps as there are in its carry."""

    def __init__(self, world: Any, rows: int = 1) -> None:
        self.world, self.rows, self.asked = world, rows, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.world, name)

    def recalled(self, carry: Any, steps: Any) -> Recollection:
        self.asked += 1
        places = torch.tensor(PLACES)[None, None].expand(self.rows, 1, -1, -1)
        row = torch.arange(self.rows)[:, None, None]  # each recalls from one step earlier than the one before it
        age, episodes, weight = places[..., 0].long() + row, places[..., 1].long(), places[..., 2].float()
        return Recollection(age, episodes, weight, weight > 0)


@pytest.fixture(autouse=True)
def endless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wm_run.stage.OVER", -1.0)


@pytest.fixture
def stage(fakes: Any, agent: Any) -> Stage:
    agent.world = Planted(agent.world)  # which is a module, and takes no other's place as one
    return Stage(Observer(agent, "image", seed=3), fakes.envs(1), seed=3)


@pytest.fixture
def agent(agent: Any) -> Any:
    """Its world may be replaced."""
    return SimpleNamespace(
        **{
            name: getattr(agent, name)
            for name in ("world", "behaviour", "device", "rows", "computing", "eval", "initial")
        }
    )


def frame_of(stage: Stage) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Show(stage, Keyboard((3,), 0), "fake").frame())
    return found


def test_the_frames_beside_the_current_one_are_those_of_the_recalled_steps(stage: Stage) -> None:
    """The environment's pictures are counters, so that each says which step it is of; they outlive episodes."""
    seen = [int(stage.step["image"][0, 0, 0, 0])]
    for _ in range(12):
        shown = frame_of(stage)["recalled"]
        wanted = sorted((place for place in PLACES if place[2]), key=lambda place: -place[2])
        assert [(one["ago"], one["episodes"], one["weight"]) for one in shown["steps"]] == [
            (ago, episodes, pytest.approx(weight)) for ago, episodes, weight in wanted
        ]
        assert shown["found"] == 3 and shown["at"] == stage.now.t
        for one in shown["steps"]:
            if one["ago"] < len(seen):
                picture = imageio.imread(base64.b64decode(one["frame"].partition(",")[2]), extension=".png")
                assert picture.shape == (16, 16, 3) and set(picture.ravel().tolist()) == {seen[-1 - one["ago"]]}
            else:
                assert one["frame"] is None  # before the first step that was shown
        stage.go_on()
        seen.append(int(stage.step["image"][0, 0, 0, 0]))
    assert len(set(seen)) > 3


def test_a_dream_keeps_what_was_recalled_where_it_began(stage: Stage) -> None:
    for _ in range(5):
        stage.go_on()
    real, asked = frame_of(stage)["recalled"], stage.observer.agent.world.asked
    stage.sleep()
    for _ in range(3):
        stage.go_on()
        found = frame_of(stage)
        assert found["imagined"] and found["recalled"] == real and found["t"] > real["at"]
    stage.wake()
    assert frame_of(stage)["recalled"] == real and stage.observer.agent.world.asked == asked
    stage.go_on()
    assert frame_of(stage)["recalled"]["at"] == stage.t


def test_of_a_team_each_agent_recalls_its_own(fakes: Any, agent: Any) -> None:
    """Pictures say whose they are: 100 times the agent's number, and the step."""
    agent.world = Planted(agent.world, rows=2)
    observer = Observer(agent, "image", seed=3)
    stage = Stage(observer, fakes.envs(1), seed=3)
    for _ in range(6):
        stage.go_on()
    frames = [np.stack([np.full((16, 16, 3), 100 * who + t, np.uint8) for who in range(2)]) for t in range(9)]
    stage.album = Album()
    for frame in frames:
        stage.album.keep(frame)
    observer.team = SimpleNamespace(agents=2)  # type: ignore[assignment]
    for who in range(2):
        stage.which = observer.which = who
        moment = stage._recalled()  # noqa: SLF001
        assert moment is not None
        numbers = [int(observer.pictured(one.seen)[0, 0, 0]) for one in moment.steps if one.seen is not None]
        assert numbers == [100 * who + 8 - one.ago for one in moment.steps] and [one.ago for one in moment.steps] == [
            3 + who,
            4 + who,
            1 + who,
        ]


def test_of_who_recalls_nothing_nothing_is_told_or_kept(fakes: Any, agent: Any) -> None:
    stage = Stage(Observer(agent, "image", seed=3), fakes.envs(1), seed=3)
    stage.go_on()
    assert frame_of(stage)["recalled"] is None and not len(stage.album._frames)  # noqa: SLF001


def test_an_album_keeps_its_own_frames_and_the_newest_of_them() -> None:
    album, frame = Album(kept=3), np.zeros(1)
    for number in range(5):
        frame[:] = number  # as an environment writes into its own again
        album.keep(frame)
    places = torch.tensor([[[0, 2, 3]]])
    told = Recollection(places, places, torch.full((1, 1, 3), 1 / 3), torch.ones(1, 1, 3, dtype=torch.bool))
    assert [None if one.seen is None else one.seen.item() for one in album.found(told, 0).steps] == [4, 2, None]


def test_the_heaviest_are_shown_and_all_are_counted() -> None:
    count = 3 * MOST
    weight = torch.rand(1, 1, count, generator=torch.Generator().manual_seed(0))
    age = torch.arange(1, count + 1)[None, None]
    found = Album().found(Recollection(age, 0 * age, weight, weight > 0.1), 0)
    assert found.found == int((weight > 0.1).sum()) and len(found.steps) == MOST
    assert [one.ago for one in found.steps] == (weight[0, 0].argsort(descending=True)[:MOST] + 1).tolist()
    assert KEPT > 800  # what PO-Dreamer remembers
