"""The app as its users call it, and one small run on pixels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from r2i.cli import APP
from wm_run import dreams
from wm_run.cli import main

Run = Callable[..., None]


@pytest.fixture(scope="session")
def run() -> Run:
    """run("train", "--steps", 10): a command line, in this process."""
    return lambda *words: main(APP, [str(word) for word in words])


@pytest.fixture(scope="module")
def catch(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of the preset tiny on toy:catch, with films just long enough to be some."""
    logdir = tmp_path_factory.mktemp("runs") / "catch"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dreams, "VIDEO_STEPS", 12)
        patch.setattr(dreams, "DREAM_STEPS", 20)
        run("train", "--preset", "tiny", "--device", "cpu", "--logdir", logdir)
    return logdir
