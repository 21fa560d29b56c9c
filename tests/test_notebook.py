"""docs/first_steps.ipynb runs from its first cell to its last, and keeps no outputs."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

NOTEBOOK = pathlib.Path(__file__).resolve().parents[1] / "docs" / "first_steps.ipynb"
NUMBERS = 'PRESET, STEPS, RUN = "cartpole", 4_000, "runs/first"'
QUICK = 'PRESET, STEPS, RUN = "tiny", 90, "runs/first"'
RUNNER = """
import json, sys
for at, source in enumerate(json.load(sys.stdin)):
    exec(compile(source, f"cell {at}", "exec"), globals())
"""


def test_every_cell_runs_after_the_ones_before_it(tmp_path: pathlib.Path) -> None:
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    sources = ["".join(cell["source"]) for cell in cells]
    assert sources[0] == NUMBERS
    done = subprocess.run(
        [sys.executable, "-c", RUNNER],
        input=json.dumps([QUICK, *sources[1:]]),
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    for told in ("episodes, score lately", "at first", "in fresh episodes", "[3, "):
        assert told in done.stdout, told
    assert (tmp_path / "runs" / "first-agent" / "checkpoint").is_dir()
