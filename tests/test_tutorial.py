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
    codes = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    for name, code in zip(("idea.py", "check.py", "act.py"), codes, strict=True):
        (tmp_path / name).write_text(code)
    return tmp_path


def run(project: pathlib.Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], cwd=project, capture_output=True, text=True, check=False)


def test_it_passes_the_laws_trains_and_acts(project: pathlib.Path) -> None:
    laws = run(project, "check.py")
    assert laws.returncode == 0 and not laws.stdout, laws.stderr
    (project / "presets").mkdir()
    (project / "presets" / "wide.toml").write_text("width = 32\n")
    numbers = ["--steps", "160", "--learning_starts", "100", "--batch", "4", "--final-video", "False"]
    trained = run(
        project, "idea.py", "train", "--preset", "wide", "--device", "cpu", *numbers, "--logdir", "runs/first"
    )
    assert trained.returncode == 0, trained.stderr
    assert (project / "runs/first/checkpoint/160").is_dir()
    assert "width = 32\n" in (project / "runs/first/config.toml").read_text()
    more = run(project, "idea.py", "train", "--logdir", "runs/first", "--steps", "200")
    assert more.returncode == 0 and (project / "runs/first/checkpoint/200").is_dir(), more.stderr
    acted = run(project, "act.py")
    assert acted.returncode == 0 and acted.stdout.strip() in ("1.0", "-1.0"), acted.stderr


def test_a_backbone_that_forgets_resets_fails_the_laws(project: pathlib.Path) -> None:
    file = (project / "idea.py").read_text()
    assert "carry * keep" in file
    (project / "idea.py").write_text(file.replace("carry * keep", "carry"))
    laws = run(project, "check.py")
    assert laws.returncode != 0
    sentence = "law broken: what preceded a reset changed what followed"
    assert sentence in TEXT and sentence in laws.stderr
