"""tools/aggregate.py: score files, rows and folders as one table of aggregates."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

import aggregate

PONG = (-20.7, 14.6)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What the tool prints."""

    def call(*words: str | Path) -> str:
        monkeypatch.setattr(sys, "argv", ["aggregate.py", *map(str, words)])
        with contextlib.suppress(SystemExit):
            aggregate.main()
        return "".join(capsys.readouterr())

    return call


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Two methods in files of two kinds, that spell a game differently: 0 and 1 of a human, and half of one."""
    runs = [
        {"task": task, "method": "theirs", "seed": seed, "xs": [100, 390, 400], "ys": [0, 0, 2 * PONG[seed]]}
        for task in ("atari_pong", "atari_boxing")
        for seed in (0, 1)
    ]
    (tmp_path / "theirs.json").write_text(json.dumps(runs))
    (tmp_path / "ours.json").write_text(json.dumps({"Pong": [sum(PONG) / 2] * 2}))
    return [tmp_path / "theirs.json", tmp_path / "ours.json"]


def test_methods_are_compared_on_the_tasks_that_both_have(files: list[Path], told: Callable[..., str]):
    found = told(*files, "--normalise", "atari_human", "--against", "theirs").splitlines()
    assert found[0] == "theirs: left out, for not all methods have them: atari_boxing"
    # the last tenth of theirs is from 360 on: (0 + 2 x) / 2 = x
    assert found[
        3
    ] == "| theirs | 1 | 2 | 0.500 (0.000 to 1.000) | 0.500 (0.000 to 1.000) | 0.500 (0.000 to 1.000) | " + (
        "0.500 (0.000 to 1.000) |  |"
    )
    assert found[4].startswith("| ours | 1 | 2 | 0.500 (0.500 to 0.500)") and "| 0.500 (0.000 to 1.000) |" in found[4]


def test_a_window_of_steps_as_dreamerv3_has_it(files: list[Path], told: Callable[..., str]):
    found = told(files[0], "--since", "395").splitlines()
    assert found[-1].startswith(f"| theirs | 2 | 2 | {sum(PONG):.4g} (")
    assert told(*files, "--since", "395").splitlines()[-1].startswith("| ours | 1 | 2 | -3.05 (")  # which has no curve


def test_mistakes_are_sentences(files: list[Path], told: Callable[..., str]):
    assert "there is no method 'x'; there are theirs, ours" in told(*files, "--against", "x")
    assert "atari_human has no random and reference score of u" in told(written(files[0]), "--normalise", "atari_human")
    assert "Traceback" not in told(files[0].parent / "none.json")


def written(beside: Path) -> Path:
    file = beside.with_name("u.json")
    file.write_text(json.dumps({"u": [1.0]}))
    return file
