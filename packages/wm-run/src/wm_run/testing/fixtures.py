"""An app -> pytest's fixtures for its tests: its command line in this process, short films, a small finished run.

Needs pytest. In a conftest.py:

    from wm_run.testing.fixtures import command, finished, short_films
    run, catch = command(APP), finished(APP, "--task", "toy:catch")
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from wm_run import dreams
from wm_run.app import App
from wm_run.cli import main

__all__ = ["Run", "asked_for_apart", "command", "finished", "one_thread", "short_films"]

Run = Callable[..., None]  # run("train", "--steps", 10): a command line


def command(app: App) -> Any:
    """A fixture: a `Run` of the app, in this process."""

    @pytest.fixture(scope="session")
    def run() -> Run:
        return lambda *words: main(app, [str(word) for word in words])

    return run


@pytest.fixture(scope="session", autouse=True)
def asked_for_apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tasks that tests ask for are noted apart from the user's own (wm_run.trust)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="module")
def short_films() -> Iterator[None]:
    """Enough frames to see that there are some."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dreams, "VIDEO_STEPS", 12)
        patch.setattr(dreams, "DREAM_STEPS", 20)
        yield


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """torch computes in one thread: small networks are faster so, and alike on every machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def finished(app: App, *options: object) -> Any:
    """A fixture: the folder of a finished run of the preset tiny with these options, on a CPU, once a module."""

    @pytest.fixture(scope="module")
    def run(short_films: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
        logdir = tmp_path_factory.mktemp("runs") / "run"
        words = ("train", "--preset", "tiny", "--device", "cpu", *options, "--logdir", logdir)
        main(app, [str(word) for word in words])
        return logdir

    return run
