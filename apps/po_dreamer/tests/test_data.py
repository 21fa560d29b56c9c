"""An agent that remembers, and that learned from a recording: it has acted nowhere, so it remembers nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from po_dreamer.cli import APP
from torch.utils._pytree import tree_leaves  # noqa: PLC2701 - torch's own, and it has no other door
from wm_run.loading import load
from wm_run.testing import data as law

TINY = ["--preset", "tiny", "--device", "cpu", "--final-video", "False"]


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on doors that has made its updates from a recording, and an evaluation at its end."""
    from wm_run.cli import main

    place = tmp_path_factory.mktemp("data")
    words = [*TINY, "--task", "toy:doors"]
    folder = law.random_recording(APP, place / "recording", words)
    logdir = place / "run"
    main(
        APP, ["train", *words, "--data", str(folder), "--steps", "20", "--final-episodes", "3", "--logdir", str(logdir)]
    )
    return logdir


def test_an_evaluation_after_a_recording_begins_with_nothing(
    run: Any, learned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert APP.remembers
    (ended,) = (learned / "eval").glob("*.json")
    assert json.loads(ended.read_text())["memory"] == "empty at the start"
    run("eval", learned, "--episodes", 8)
    found = json.loads(capsys.readouterr().out)
    run("eval", learned, "--episodes", 8, "--memory", "empty")
    again = json.loads(capsys.readouterr().out)
    assert found["memory"] == again["memory"] == "empty at the start"
    assert found == again and found["changed"] == {}  # that is its usual evaluation
    loaded = load(APP, learned, device="cpu")
    assert not any(leaf.any() for leaf in tree_leaves(loaded.carry) if leaf is not None)
    assert loaded.eval(8)["scores"] == found["scores"] and loaded.eval(2)["memory"] == "empty at the start"


def test_what_was_never_remembered_is_not_to_be_had(
    run: Any, learned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run("eval", learned, "--memory", "training")
    assert "learned from a recording and has played nothing that it could remember" in capsys.readouterr().err


def test_who_goes_on_in_the_environment_remembers_it(
    run: Any, learned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    further = ["--init-from", learned, "--task", "toy:doors", "--steps", 40, "--logdir", tmp_path / "E"]
    run("train", *TINY, *further)
    capsys.readouterr()
    run("eval", tmp_path / "E", "--episodes", 2)
    assert json.loads(capsys.readouterr().out)["memory"] == "training's at the start"
