"""A place for suites of the fake app, and what its runs come to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from wm_suite.home import Home
from wm_suite.job import Job
from wm_suite.suites import Cell, Suite

FAKE = Path(__file__).parent / "fake"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(cwd=tmp_path, path=(FAKE,))


@pytest.fixture
def job(home: Home) -> Callable[..., Job]:
    """A job of the fake app; the seed and `minutes` apart, words are its options."""

    def make(seed: int = 0, minutes: float = 5, measure: str = "fake_measures:total", **options: Any) -> Job:
        cell = Cell("toy", "a.b", seed, "fake_app", "", {"steps": 20} | options, measure=measure)
        (one,) = home.jobs(Suite("mine", "Mine", minutes, (cell,)), [cell])
        return one

    return make


@pytest.fixture
def comes_to() -> Callable[[int, int], int]:
    """The sum of the fake app after so many steps with a seed, however it was interrupted."""

    def total(steps: int, seed: int = 0) -> int:
        found = 0
        for step in range(1, steps + 1):
            found = (31 * found + seed + step) % 1009
        return found

    return total
