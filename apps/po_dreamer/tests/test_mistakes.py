"""What a user gets wrong is one sentence and exit code 2, never a traceback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

TINY = "train --preset tiny --device cpu"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refused(run: Any, capsys: pytest.CaptureFixture[str], line: str) -> str:
    """The sentence."""
    with pytest.raises(SystemExit) as stop:
        run(*line.split())
    out, err = capsys.readouterr()
    assert stop.value.code == 2 and out == ""
    assert err.startswith("po_dreamer: ") and err.count("\n") == 1 and "Traceback" not in err
    return err


@pytest.mark.parametrize(
    "line, words",
    [
        (f"{TINY} --ablation co-onyl", "there is no ablation 'co-onyl'; did you mean 'co-only'"),
        (f"{TINY} --memory_windwo 3", "did you mean '--memory-window'"),
        (f"{TINY} --memory_sight far", "--memory_sight takes one of across, episode, not 'far'"),
    ],
)
def test_a_mistake_is_one_sentence(run: Any, capsys: pytest.CaptureFixture[str], line: str, words: str) -> None:
    assert words in refused(run, capsys, line)
    assert not Path("runs").exists()
