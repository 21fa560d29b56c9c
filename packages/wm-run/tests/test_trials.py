"""Estimates by small updates: what other threads gain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from wm_run import trials
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
