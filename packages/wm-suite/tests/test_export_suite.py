"""`wm-suite export NAME`: a suite's newest rows, scored as it says, as if its file of rows had been named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from wm_suite import exports
from wm_suite.command import main
from wm_suite.home import Home
from wm_suite.rows import append_row

SUITE = """
score = "greedy"
[options]
steps = 10
[[run]]
arm = "full"
app = "dreamer"
tasks = ["toy:catch"]
seeds = [0, 1]
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "mine.toml").write_text(SUITE)
    return Home(cwd=tmp_path, results=Path("results"), suites=(Path("suites"),))


def row(home: Home, seed: int, greedy: list[float], arm: str = "full") -> None:
    said: dict[str, Any] = {"task": "toy:catch", "arm": arm, "seed": seed, "greedy": greedy, "trained": [99.0]}
    append_row(home.cwd / "results" / "mine.jsonl", said | {"step": 10, "curve": [[5, 0.0]]})


def test_a_suite_is_exported_by_its_name(home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row(home, 0, [1.0, 1.0])
    row(home, 1, [3.0])
    row(home, 0, [2.0, 4.0])  # run again: the last counts
    row(home, 0, [7.0], arm="of an older suite")
    for what, out in (("mine", "a.json.gz"), (str(tmp_path / "suites" / "mine.toml"), "b.json.gz")):
        assert main(["export", what, "--out", str(tmp_path / out)], home) == 0
        found = {(one.method, one.seed): one for one in exports.read(tmp_path / out)}
        assert found.keys() == {("full", 0), ("full", 1)}
    capsys.readouterr()
    assert main(["export", "mine", "--to", "finals", "--out", str(tmp_path / "finals")], home) == 0
    assert json.loads(Path(capsys.readouterr().out.strip()).read_text()) == {"toy:catch": [3.0, 3.0]}
    assert (
        main(["export", "mine", "--score", "trained", "--to", "finals", "--out", str(tmp_path / "finals")], home) == 0
    )
    assert json.loads(Path(capsys.readouterr().out.strip()).read_text()) == {"toy:catch": [99.0, 99.0]}


def test_what_is_no_suite_or_has_no_rows_is_said(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "mine"], home) == 2
    assert "mine.jsonl has no row of the suite mine yet: `wm-suite run mine` makes them" in capsys.readouterr().err
    assert main(["export", "mime"], home) == 2
    said = capsys.readouterr().err
    assert "there is no suite 'mime'" in said and "no run folder and no score file" in said
    assert main(["export", "gone.toml"], home) == 2
    assert "gone.toml" in capsys.readouterr().err
