"""Rows: written whole or not at all, read whatever a crash left, and which runs have none."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from wm_suite import rows
from wm_suite.errors import SuiteError
from wm_suite.suites import Cell, Suite

CELLS = tuple(Cell(task, arm, seed, "r2i", "", {}) for seed in (0, 1) for task in ("a", "b") for arm in ("x", "y"))
SUITE = Suite("mine", "Mine", 5, CELLS)


def row(cell: Cell, **more: Any) -> dict[str, Any]:
    return {"task": cell.task, "arm": cell.arm, "seed": cell.seed, "settings": cell.settings, **more}


@pytest.mark.parametrize("left", [b"", b'{"task": "b", "ar', b'{"task": "b"}', b"\x00\x00\x00"])
def test_what_a_crash_left_of_a_line_harms_no_other(tmp_path: Path, left: bytes) -> None:
    file = tmp_path / "deep" / "rows.jsonl"
    rows.append_row(file, {"task": "a"})
    file.write_bytes(file.read_bytes() + left)
    whole = [{"task": "a"}] + [{"task": "b"}] * (left == b'{"task": "b"}')
    assert rows.read_rows(file) == whole
    rows.append_row(file, {"task": "c"})
    assert rows.read_rows(file) == [*whole, {"task": "c"}]
    assert all(json.loads(line) for line in file.read_text().splitlines())


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"task": "a"}\n\n{"task": \n{"task": "b"}\n')
    with pytest.raises(SuiteError, match=r"line 3 of .*rows.jsonl is no row: take it out"):
        rows.read_rows(file)
    file.write_text("[]\n")
    with pytest.raises(SuiteError, match="line 1"):
        rows.read_rows(file)
    assert rows.read_rows(tmp_path / "none.jsonl") == []


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "rows.jsonl"
    rows.append_row(file, {"task": "a"})
    before = file.read_bytes()
    write = os.write
    monkeypatch.setattr(
        rows, "_write", lambda descriptor, line: write(descriptor, line[:5])
    )  # as much as there is room
    with pytest.raises(SuiteError, match=r"No space left on device.*lies beside its run"):
        rows.append_row(file, {"task": "b"})
    assert file.read_bytes() == before
    monkeypatch.undo()
    rows.append_row(file, {"task": "b"})
    assert rows.read_rows(file) == [{"task": "a"}, {"task": "b"}]


def test_the_last_row_of_a_run_counts_and_seeds_beyond_the_suites_are_shown() -> None:
    extra = Cell("b", "x", 9, "r2i", "", {})
    foreign = [{"variant": "full"}, row(Cell("z", "x", 0, "r2i", "", {}))]
    found = [row(CELLS[5], step=1), row(CELLS[0], step=1), row(CELLS[0], step=2), row(extra), *foreign]
    assert [(one["task"], one["arm"], one["seed"], one.get("step")) for one in rows.of_suite(SUITE, found)] == [
        ("a", "x", 0, 2),
        ("a", "y", 1, 1),
        ("b", "x", 9, None),
    ]
    assert rows.missing(SUITE, found) == [cell for cell in CELLS if cell not in (CELLS[0], CELLS[5])]


def test_a_row_of_other_settings_is_not_taken_for_a_run() -> None:
    with pytest.raises(SuiteError, match="give the arm another name"):
        rows.missing(SUITE, [row(CELLS[0], settings={"app": "r2i", "preset": "cpu", "options": {}})])
