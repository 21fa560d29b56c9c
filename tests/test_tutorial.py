"""docs/tutorial-dynamics.md, as its reader does it: the file, the laws, a run, and the law that has to fail."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

import pytest

TEXT = (pathlib.Path(__file__).resolve().parents[1] / "docs" / "tutorial-dynamics.md").read_text()


@pytest.fixture
def project(tmp_path: pathlib.Path) -> pathlib.Path:
    file, check = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    (tmp_path / "idea.py").write_text(file)
    (tmp_path / "check.py").write_text(check)
    return tmp_path


def run(project: pathlib.Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], cwd=project, capture_output=True, text=True, check=False)


def test_it_passes_the_laws_and_trains(project: pathlib.Path) -> None:
    laws = run(project, "check.py")
    assert laws.returncode == 0, laws.stderr
    numbers = ["--steps", "160", "--learning_starts", "100", "--width", "32", "--batch", "4", "--final-video", "False"]
    trained = run(project, "idea.py", "train", "--device", "cpu", *numbers, "--logdir", "run")
    assert trained.returncode == 0, trained.stderr
    assert (project / "run" / "checkpoint" / "160").is_dir()


def test_a_backbone_that_forgets_resets_fails_the_laws(project: pathlib.Path) -> None:
    file = (project / "idea.py").read_text()
    assert "carry * keep" in file
    (project / "idea.py").write_text(file.replace("carry * keep", "carry"))
    laws = run(project, "check.py")
    assert laws.returncode != 0 and "reset" in laws.stderr
