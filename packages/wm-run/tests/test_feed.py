"""A feed beside a device: one batch ahead, notes one update late, and a function of steps alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from wm_core.testing import assert_same
from wm_core.types import Batch
from wm_run.feed import Feed, batch_of, moved, plain
from wm_run.replay import Replay
from wm_run.rows import Rows

SHAPE = (3, 4, 1)  # rows, length, past


class Slow:
    """A lane whose downloads are waited for, and whose uploads are copies: what lies there cannot change."""

    def __init__(self) -> None:
        self.waited = 0

    def upload(self, batch: Batch) -> Callable[[], Batch]:
        sent = moved(batch, torch.clone)
        return lambda: sent

    def download(self, notes: Mapping[str, Tensor]) -> Callable[[], Mapping[str, Tensor]]:
        fetched = {name: value.clone() for name, value in notes.items()}

        def take() -> Mapping[str, Tensor]:
            self.waited += 1
            return fetched

        return take


def replay(steps: int = 40, folder: Any = None) -> Replay:
    made = Replay(folder, 2, stores={"deter": 1}, limit_bytes=10**7, chunk=16, length=4, seed=5)
    for t in range(steps):
        made.add(step(t))
    return made


def step(t: int) -> dict[str, Any]:
    zeros = {"action": np.zeros((2, 3), np.float32), "first": np.full(2, t == 0)}
    return zeros | {"x": np.full((2, 2), t, np.float32), "deter": np.zeros((2, 2), np.float16)}


def learn(feed: Feed, k: int, shapes: Any = (SHAPE,)) -> tuple[Batch, ...]:
    """An update that writes k into the notes of its rows."""
    given = [feed.sample(*shape) for shape in shapes]
    for batch in given:
        feed.annotate(batch.index, deter=torch.full_like(batch.steps["deter"], k))
    return feed.advance()


def test_without_a_lane_nothing_is_early_and_nothing_late() -> None:
    feed, plainly = Feed(replay()), replay()
    for k in range(6):
        (handed,) = learn(feed, k + 1)
        batch = plainly.sample(*SHAPE)
        plainly.annotate(batch.index, deter=torch.full_like(batch.steps["deter"], k + 1))
        assert_same(plain(handed), plain(batch))
    assert_same(feed.state(), {"late": [], "ahead": []})


def test_with_one_a_batch_is_drawn_before_the_notes_of_the_update_under_way() -> None:
    """The same draws; the first two batches are those of a plain replay, the next see notes that are one update old."""
    feed, plainly = Feed(replay(), Slow()), replay()
    late: list[tuple[Any, Tensor]] = []
    drawn = [plainly.sample(*SHAPE)]
    for k in range(6):
        (handed,) = learn(feed, k + 1)
        assert_same(plain(handed), plain(drawn[-1]))
        for index, notes in late:
            plainly.annotate(index, deter=notes)
        late = [(handed.index, torch.full_like(handed.steps["deter"], k + 1))]
        drawn.append(plainly.sample(*SHAPE))


def test_several_questions_an_update_are_foreseen_in_their_order() -> None:
    shapes = ((2, 3, 0), SHAPE)
    feed, plainly = Feed(replay(), Slow()), replay()
    for k in range(4):
        handed = learn(feed, 0, shapes)
        if k < 2:  # until the first notes
            assert_same([plain(b) for b in handed], [plain(plainly.sample(*shape)) for shape in shapes])
        assert [b.steps["x"].shape[:2] for b in handed] == [(2, 3), (3, 4)]


def test_another_question_than_foreseen_is_answered() -> None:
    feed = Feed(replay(), Slow())
    learn(feed, 1)
    (handed,) = learn(feed, 2, ((5, 2, 1),))
    assert handed.steps["x"].shape[:2] == (5, 2)


@pytest.mark.parametrize("shapes", [(SHAPE,), ((2, 3, 0), SHAPE)])
def test_what_is_under_way_goes_on_from_a_checkpoint(tmp_path: Any, shapes: Any) -> None:
    """New steps, evictions and notes lie between drawing and use; the batch is what it was when it was drawn."""

    def go_on(feed: Feed, begin: int) -> list[Any]:
        told = []
        for k in range(begin, begin + 5):
            for t in range(3):
                feed.replay.add(step(100 * k + t))
            told.append([plain(batch) for batch in learn(feed, k, shapes)])
        return told

    whole = Feed(replay(folder=tmp_path / "a"), Slow())
    expected = go_on(whole, 1) + go_on(whole, 6)
    first = Feed(replay(folder=tmp_path / "b"), Slow())
    found = go_on(first, 1)
    state, held = first.state(), first.replay.state()
    first.replay.flush()
    first.replay.commit(held)
    go_on(first, 50)  # and then it is killed
    second = Feed(Replay(tmp_path / "b", 2, stores={"deter": 1}, limit_bytes=10**7, chunk=16, length=4), Slow())
    assert second.replay.load_state(held) == []
    assert second.load_state(state) == []
    assert_same(found + go_on(second, 6), expected)


def test_a_run_that_goes_on_without_a_lane_keeps_the_notes_and_says_what_it_leaves_out() -> None:
    first = Feed(replay(), Slow())
    (handed,) = learn(first, 7)
    second = Feed(replay())
    assert second.load_state(first.state()) == ["a batch that was drawn ahead, for another kind of device, is left out"]
    again = Rows(second.replay._chunks, {}, 0).gather(  # noqa: SLF001
        next(e for e in second.replay.schema if e.key == "deter"),
        [(int(handed.index.stream[0]), int(handed.index.start[0]))],
        0,
        4,
    )
    assert bool((again == 7).all())
    assert_same(second.state(), {"late": [], "ahead": []})


def test_notes_are_waited_for_one_update_after_they_were_made() -> None:
    lane = Slow()
    feed = Feed(replay(), lane)
    for k in range(4):
        learn(feed, k)
        assert lane.waited == k


def test_a_batch_survives_being_plain() -> None:
    batch = replay().sample(*SHAPE)
    assert_same(plain(batch_of(plain(batch))), plain(batch))
