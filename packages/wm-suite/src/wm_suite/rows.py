"""Rows: one line of JSON for each finished run of a suite -> what is there, and which runs are missing.

A file of rows is only ever added to, by one process, a whole line at a time. What a crash left of a line is no row: it is
passed over when the file is read and taken away before the next line is written. Of several rows of one run the last counts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from wm_suite.errors import SuiteError
from wm_suite.suites import Cell, Suite


def read_rows(path: str | Path) -> list[dict[str, Any]]:
    """All rows in a file, in its order; none where there is no file. Raises SuiteError for a line that is none.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     append_row(Path(folder) / "rows.jsonl", {"task": "toy:catch", "arm": "r2i", "seed": 0})
    ...     read_rows(Path(folder) / "rows.jsonl")
    [{'task': 'toy:catch', 'arm': 'r2i', 'seed': 0}]
    """
    path = Path(path)
    try:
        lines = path.read_bytes().split(b"\n") if path.exists() else [b""]
    except OSError as error:
        raise SuiteError(f"{path} cannot be read: {error.strerror}") from error
    if _row(lines[-1]) is None:
        lines.pop()  # nothing, or a line that was never finished
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        row = _row(line)
        if row is None:
            raise SuiteError(f"line {number} of {path} is no row: take it out, and its run's row is written again")
        found.append(row)
    return found


def append_row(path: str | Path, row: Mapping[str, Any]) -> None:
    """One write to the end of the file, on the disk when this returns. Raises SuiteError, with the file as it was, where
    that cannot be done."""
    path = Path(path)
    line = json.dumps(row).encode() + b"\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b", buffering=0) as file:
            end = _whole(file)
            try:
                if _write(file.fileno(), line) != len(line):
                    raise OSError(28, "No space left on device")
                os.fsync(file.fileno())
            except OSError:
                file.truncate(end)
                raise
    except OSError as error:
        raise SuiteError(
            f"a row cannot be written to {path} ({error.strerror}): mend that; the row lies beside its run and joins the "
            "others with the next `run`"
        ) from error


def newest(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str, int], dict[str, Any]]:
    """The last row of every run, by task, arm and seed; rows of another making are left out.

    >>> newest([{"task": "a", "arm": "b", "seed": 0, "step": 1}, {"task": "a", "arm": "b", "seed": 0, "step": 2}])
    {('a', 'b', 0): {'task': 'a', 'arm': 'b', 'seed': 0, 'step': 2}}
    """
    return {(row["task"], row["arm"], row["seed"]): dict(row) for row in rows if {"task", "arm", "seed"} <= row.keys()}


def of_suite(suite: Suite, rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The newest rows of the suite's tasks and arms, whatever their seeds, in its order."""
    order = {(cell.task, cell.arm): i for i, cell in reversed(list(enumerate(suite.cells)))}
    known = [row for row in newest(rows).values() if (row["task"], row["arm"]) in order]
    return sorted(known, key=lambda row: (order[row["task"], row["arm"]], row["seed"]))


def missing(suite: Suite, rows: Sequence[Mapping[str, Any]]) -> list[Cell]:
    """The runs without a row. Raises SuiteError where a row was made with other settings than the suite's."""
    have = newest(rows)
    for cell in suite.cells:
        if cell.key in have and (theirs := have[cell.key].get("settings")) != cell.settings:
            raise SuiteError(
                f"the row of {cell.name}, was made with {theirs}, the suite says {cell.settings}: give the arm another "
                "name, or take the row out of its file"
            )
    return [cell for cell in suite.cells if cell.key not in have]


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _whole(file: Any) -> int:
    """Take away what was begun of a line at the end of a file, or end one that lacks nothing else; its length then."""
    length = file.seek(0, os.SEEK_END)
    file.seek(0)
    content = file.read()
    begun = content.rpartition(b"\n")[2]
    if not begun:
        return int(length)
    if _row(begun) is None:
        file.truncate(length - len(begun))
        return int(length) - len(begun)
    _write(file.fileno(), b"\n")
    return int(length) + 1


def _write(descriptor: int, line: bytes) -> int:
    return os.write(descriptor, line)
