"""The README's examples run as they stand."""

import pathlib
import re
import subprocess
import sys

import pytest

README = pathlib.Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_example_runs(tmp_path, block) -> None:
    script = tmp_path / "example.py"
    script.write_text(block)
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    said = [line.partition("# ")[2] for line in block.splitlines() if line.startswith("    print(") and "# " in line]
    assert done.stdout.splitlines()[: len(said)] == said


def test_there_are_examples() -> None:
    assert len(BLOCKS) >= 2
