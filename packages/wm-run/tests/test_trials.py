"""Estimates by small updates: what other threads gain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from wm_run import trials
from wm_run.config import RunConfig
from wm_run.retained import Retained
from wm_run.trials import Cost, shared


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({1: 4.0, 2: 2.4}, 0.6),
        ({1: 4.0, 2: 1.0}, 0.5),  # two threads gain no more than a factor of two
        ({1: 4.0, 2: 5.0}, 1.0),  # and where they lose by it nothing is added
    ],
)
def test_threads_gain_what_a_product_gains_and_no_more_than_there_are(
    seconds: dict[int, float], expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(run: Callable[[], object], **rest: Any) -> Cost:
        return Cost(0.0, seconds[torch.get_num_threads()])

    monkeypatch.setattr(trials, "spend", told)
    before = torch.get_num_threads()
    assert shared(2) == pytest.approx(expected) and torch.get_num_threads() == before


def test_an_update_of_several_passes_keeps_those_of_one_at_a_time():
    """Each pass keeps the output of its sigmoid, 400 bytes; all are dropped before the next, or at the end."""

    def most(passes: int, at_once: bool) -> int:
        weight = torch.ones(100, requires_grad=True)
        retained = Retained([weight])
        with retained.hooks():
            losses = []
            for _ in range(passes):
                losses.append(weight.sigmoid().sum())
                if not at_once:
                    losses.pop().backward()
            for loss in losses:
                loss.backward()
        del losses
        assert retained.now == 0
        return retained.most

    assert most(1, False) == most(5, False) == 400 and most(5, True) == 2000


def test_what_two_keep_is_there_once_until_both_are_served():
    weight = torch.ones(100, requires_grad=True)
    retained = Retained([weight])
    with retained.hooks():
        product = weight * torch.ones(100)  # keeps the ones
        twice = product.square() + product.sin()  # both keep the product
    assert retained.now == 800
    twice.sum().backward()
    del product, twice
    assert (retained.now, retained.most) == (0, 800)


@pytest.mark.parametrize("past", [0, 100])
def test_what_rows_bring_of_the_past_is_counted_by_rows_and_not_by_steps(past: int):
    """A learner that projects its past, or of few steps four columns each: what recall does."""

    class Recalls:
        stores = {"key": past} if past else {}

        def parameters(self) -> list[torch.Tensor]:
            return []

        def learn(self, part: RunConfig) -> None:
            columns = min(4 * part.length, past + part.length)
            torch.ones(part.batch * columns, 3) @ torch.ones(3, 5)

    def make(part: RunConfig) -> Any:
        return Recalls(), part

    config = RunConfig(batch=7, length=64)
    whole = trials.whole_update(config, make).flops
    assert whole == 2 * 7 * (past + 64) * 3 * 5
