"""The app as its users call it, and two small runs: on vectors and on pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from po_dreamer.cli import APP
from wm_run import dreams
from wm_run.cli import main

Run = Callable[..., None]


@pytest.fixture(scope="session")
def run() -> Run:
    """run("train", "--steps", 10): a command line, in this process."""
    return lambda *words: main(APP, [str(word) for word in words])


@pytest.fixture(scope="module")
def short_films() -> Iterator[None]:
    """Enough frames to see that there are some."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dreams, "VIDEO_STEPS", 12)
        patch.setattr(dreams, "DREAM_STEPS", 20)
        yield


@pytest.fixture(scope="module")
def doors(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of the preset tiny, on the vectors of toy:doors."""
    logdir = tmp_path_factory.mktemp("runs") / "doors"
    run("train", "--preset", "tiny", "--device", "cpu", "--logdir", logdir)
    return logdir


@pytest.fixture(scope="module")
def catch(run: Run, short_films: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a shorter one on the pixels of toy:catch."""
    logdir = tmp_path_factory.mktemp("runs") / "catch"
    task = ("--task", "toy:catch", "--train_ratio", 16, "--steps", 120)
    run("train", "--preset", "tiny", "--device", "cpu", *task, "--logdir", logdir)
    return logdir
