"""The table of a suite's rows: means of episodes, each seed's, and what does not compare said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wm_suite import markdown
from wm_suite.rows import of_suite
from wm_suite.suites import Cell, Suite

SHORT, OTHER, DREAMER = (Cell("toy:catch", arm, seed, "r2i", "", {}) for arm, seed in (("s", 0), ("s", 1), ("d", 0)))
SUITE = Suite("two", "Two arms", 5, (SHORT, OTHER, DREAMER))


def row(cell: Cell, score: float, **other: Any) -> dict[str, Any]:
    same = {
        "task": cell.task,
        "arm": cell.arm,
        "seed": cell.seed,
        "settings": cell.settings,
        "config": "c",
        "step": 200,
    }
    scores = {"trained": [score, score], "untrained": [0.25], "random": [0.5]}
    return same | scores | {"ended": "whole", "curve": [[100, 0.0], [200, score]]} | other


def table(*rows: dict[str, Any], suite: Suite = SUITE) -> list[str]:
    return markdown.table(suite, of_suite(suite, rows)).splitlines()


def test_the_table_has_means_of_episodes_and_says_what_differs(tmp_path: Path) -> None:
    rows = [row(SHORT, -1.0), row(SHORT, 0.0), row(OTHER, 1.0, ended="time", step=120, config="d"), row(DREAMER, 0.75)]
    lines = table(*rows)
    assert lines[0] == "| task | steps | random | s, untrained | s | d, untrained | d |"
    assert lines[2] == "| toy:catch | 200 | 0.50 | 0.25 | 0.50 (0.00, 1.00 at 120*)† | 0.25 | 0.75 (one seed) |"
    assert lines[3] == "| in training, last fifth |  |  |  | 0.25 (0.00, 0.50) |  | 0.75 |"
    assert "limit of wall time" in lines[-1] and "different configurations" in lines[-1]
    more = row(Cell("toy:catch", "d", 7, "r2i", "", {}), 0.25)  # a seed beyond the suite's
    assert "0.50 (0.75, 0.25)" in table(*rows, more)[2]
    markdown.write(SUITE, of_suite(SUITE, rows), tmp_path / "out")
    assert (tmp_path / "out" / "two.png").stat().st_size > 1000
    assert (tmp_path / "out" / "two.md").read_text().startswith(lines[0])


def test_a_measure_of_its_own_has_columns_of_its_own() -> None:
    suite = Suite("two", "Two arms", 5, (SHORT, DREAMER), score="share")
    kept = {"trained", "untrained", "random"}
    rows = [
        {k: v for k, v in row(cell, 0).items() if k not in kept} | {"share": 0.5, "curve": []} for cell in suite.cells
    ]
    lines = table(*rows, suite=suite)
    assert (
        lines[0] == "| task | steps | s | d |" and lines[2] == "| toy:catch | 200 | 0.50 (one seed) | 0.50 (one seed) |"
    )
    assert lines[3] == "| in training, last fifth |  |  |  |" and lines[-1].startswith("Mean of 1 values of 'share'")


def test_a_curve_is_the_mean_as_far_as_all_seeds_reach() -> None:
    found = list(markdown.mean_curve([{"curve": [[1, 0.0], [2, 1.0], [3, 9.0]]}, {"curve": [[1, 1.0], [2, 2.0]]}]))
    assert found == [(1.0, 0.5), (2.0, 1.5)]
    assert markdown.training({"curve": [[100, 1.0]], "step": 1000}) is None
