"""tools/figure4.py: which runs its sweeps are, how they are resumed and scored, and what its rows become."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import figure4 as tool
from po_dreamer.cli import APP
from wm_run.configs import resolve
from wm_suite.job import Outcome


@pytest.mark.parametrize("task", ["toy:doors", "atari100k_krull"])
def test_one_number_is_swept_at_a_time_around_the_presets(task: str) -> None:
    grid = tool.GRIDS[task]
    config = resolve(APP, grid.preset, "", "")
    assert grid.middle == (config.memory_window, config.memory_count)
    found = tool.cells([task], None, None, seeds=2)
    pairs = [(cell.tau, cell.eta) for cell in found if cell.seed == 0]
    assert len(pairs) == len(set(pairs)) == len(grid.tau) + len(grid.eta) - 1 == len(found) / 2
    assert all(tau == grid.middle[0] or eta == grid.middle[1] for tau, eta in pairs)
    assert all(eta <= tau for tau, eta in pairs)


def test_the_papers_eight_games_are_one_listing() -> None:
    command = [sys.executable, "tools/figure4.py", "run", "atari", "--seeds", "5", "--dry"]
    lines = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    assert len(lines) == len(set(lines)) == 8 * 9 * 5
    assert all("--preset atari100k_paper " in line for line in lines)
    assert sum("--memory_window 800 --memory_count 160 " in line for line in lines) == 40
    refused = subprocess.run([*command, "toy:catch"], cwd=ROOT, check=False, capture_output=True, text=True)
    assert refused.returncode == 2 and "no sweep is laid out on 'toy:catch'" in refused.stderr


@pytest.fixture
def folders(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setattr(tool, "ROWS", tmp_path / "figure4.jsonl")
    monkeypatch.setattr(tool, "PAGE", tmp_path / "figure4.md")
    monkeypatch.setattr(tool, "RUNS", tmp_path / "runs")
    return tmp_path


def test_a_game_is_scored_by_the_evaluation_at_its_end(folders: pathlib.Path) -> None:
    cell = tool.Cell("atari100k_breakout", 800, 10, 3)

    job = cell.job
    assert {"--memory_count", "10", "atari100k_paper"} <= set(job.command()) and job.folder.is_relative_to(folders)
    (job.folder / "eval").mkdir(parents=True)
    (job.folder / "eval" / "400000-mode.json").write_text(json.dumps({"scores": [1.7, 59.3]}))
    (job.folder / "eval" / "400000-mode-5f83350f.json").write_text(json.dumps({"scores": [0.0]}))
    (job.folder / "env.json").write_text(json.dumps({"commit": "c", "hardware": "h"}))
    rows = [{"step": step, "train/loss/image": 1.0} for step in (100, 200)]
    rows[0] |= {"train/recall/latent_mean": 0.25, "train/recall/latent_variance": 0.5}
    (job.folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = tool.measured(job.folder, dataclasses.asdict(job.cell))
    row = json.loads(json.dumps(found["row"]))
    assert (
        found["score"] == row["score"] == 1.0 and row["raw"] == 30.5 and row["episodes"] == 2 and row["commit"] == "c"
    )
    assert row["latent"] == [[100, 0.25, 0.5]] and row["trained"] == 200
    kept = json.loads((ROOT / "docs" / "results" / "figure4.jsonl").read_text().splitlines()[-1])
    assert row.keys() - {"raw", "episodes"} == kept.keys() - {"visits"}


def test_a_stopped_run_has_no_row_and_a_finished_one_has_its_own(
    folders: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def carried(slots: int) -> Any:
        def outcomes(jobs: Any, halt: Any) -> Any:
            for job, row in zip(jobs, (None, {"row": {"task": "toy:doors", "score": 0.5}}), strict=True):
                yield Outcome(job.cell, "done" if row else "stopped", "told", row)

        return SimpleNamespace(carry_out=outcomes)

    monkeypatch.setattr(tool, "Local", carried)
    monkeypatch.setattr(tool, "write", lambda: None)
    monkeypatch.setattr(tool, "table", lambda found: "")
    monkeypatch.setattr(sys, "argv", ["figure4.py", "run", "toy:doors", "--tau", "50", "--eta"])
    tool.main()
    assert tool.rows() == [{"task": "toy:doors", "score": 0.5}]


def test_doors_are_scored_from_the_second_visit_on(folders: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By fresh rules that stay: a memory that needs no learning has a quarter at first and all after."""
    import po_dreamer
    from visits import NearestNeighbour

    monkeypatch.setattr(po_dreamer, "load", lambda folder: SimpleNamespace(agent=NearestNeighbour()))
    found = tool.scored(tool.Cell("toy:doors", 400, 24, 0), folders)
    assert found["score"] == 1.0 and len(found["visits"]) == 10
    assert found["visits"][0] == pytest.approx(0.25, abs=0.05) and found["visits"][1:] == [1.0] * 9


def test_the_page_has_a_line_for_every_value(folders: pathlib.Path) -> None:
    def row(task: str, tau: int, eta: int, score: float, **other: Any) -> dict[str, Any]:
        curve = [[100, 0.5, 1.0], [200, -0.1, score / 10]]
        return dataclasses.asdict(tool.Cell(task, tau, eta, 0)) | {"score": score, "latent": curve} | other

    found = [
        row("toy:doors", 400, 24, 0.9),
        row("toy:doors", 400, 24, 0.5, seed=1),
        row("toy:doors", 50, 24, 0.3),
        row("toy:doors", 400, 4, 0.4),
        row("toy:doors", 50, 24, 0.25, steps=28_000),
        row("atari100k_krull", 800, 40, 2.0),
        row("atari100k_hero", 800, 40, 1.0),
    ]
    page = tool.table(found)
    assert "| 400 | 24 | 2 | 0.700 (0.90, 0.50) | 0.500 to -0.100 | 1.000 to 0.070 |" in page
    assert "| 50 | 24 | 1 | 0.300 (0.30) | 0.500 to -0.100 | 1.000 to 0.030 |" in page
    assert "| 800 | 40 | 2 | 1.500 (2.00, 1.00) |" in page  # the mean over games
    doors = page.split("## ")[1].splitlines()
    assert [line.split(" |")[0] for line in doors[4:7]] == ["| 50", "| 400", "| 400"]
    assert "## toy:doors, 28,000 steps" in page
    tool.plot(found)
    assert (folders / "figure4.png").stat().st_size > 10_000
