"""tools/suite.py: our suites, the tables of their rows, and a run of a real app from its suite to its row."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import pytest
from wm_suite import markdown, suites
from wm_suite.rows import missing, of_suite

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
from suite import HOME

RESULTS = ROOT / "docs" / "results"
NAMES = sorted(file.stem for file in (ROOT / "tools" / "suites").glob("*.toml"))


def opened(name: str) -> suites.Suite:
    return suites.read(name, folders=[ROOT / folder for folder in HOME.suites])


# Of the curves there are tables alone, from before rows were kept; the other two have not been run.
WITHOUT = {"curves", "six", "recall"}
OWN = {"six", "recall"}  # pages of tools/six_table.py, which tests/test_six_models.py holds


@pytest.mark.parametrize("name", NAMES)
def test_the_rows_that_are_kept_are_of_their_suites(name: str) -> None:
    found = HOME.rows(suite := opened(name))
    left = missing(suite, found)  # raises where the settings of a row are not the suite's
    assert len(left) < len(suite.cells) or name in WITHOUT


@pytest.mark.parametrize("name", [name for name in NAMES if name not in OWN and (RESULTS / f"{name}.md").exists()])
def test_rows_give_the_table_that_is_kept(name: str) -> None:
    """To the byte: that of chains, memory, memory-further, still-learned, var-catch and var-catch-small."""
    suite = opened(name)
    text = markdown.table(suite, of_suite(suite, HOME.rows(suite)))
    assert (RESULTS / f"{name}.md").read_text() == f"{text}\n\n![learning curves]({name}.png)\n"


def test_a_run_becomes_a_row_and_a_mistake_a_sentence(tmp_path: pathlib.Path) -> None:
    (tmp_path / "two.toml").write_text(
        'title = "Two"\n[options]\nsteps = 80\n[[run]]\narm = "short"\napp = "dreamer"\npreset = "tiny"\n'
        'tasks = ["toy:catch", "toy:nowhere"]\nseeds = [0]\n'
    )
    command = [sys.executable, str(ROOT / "tools" / "suite.py"), "run", str(tmp_path / "two.toml"), "--slots", "1"]
    command += ["--no-trial", "--rows", str(tmp_path / "rows.jsonl"), "--runs", str(tmp_path / "runs")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1, ended.stderr
    assert "short on toy:nowhere, seed 0 failed: dreamer: there is no task 'toy:nowhere'" in ended.stderr
    (row,) = map(json.loads, (tmp_path / "rows.jsonl").read_text().splitlines())
    assert row["task"] == "toy:catch" and row["step"] == 80 and row["ended"] == "whole" and len(row["commit"]) >= 8
    assert all(len(row[name]) == 50 for name in ("trained", "untrained", "random"))
    assert 0 < row["curve"][-1][0] <= 80 and set(row["random"]) == {-1.0, 1.0}
    assert row["protocol"]["name"] == "catch" and row["hardware"]["cores"] and row["versions"]["torch"]
    assert row["parameters"] > 1000 and str(tmp_path) not in row["folder"]
