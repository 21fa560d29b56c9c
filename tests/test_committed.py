"""tools/committed.py: a measurement's rows become a commit, and nothing else that its author had in hand."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
from committed import commit


@pytest.fixture
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """docs/results of a repository, with one commit in it."""
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "A")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "a@example.org")
    for where in ("GLOBAL", "SYSTEM"):
        monkeypatch.setenv(f"GIT_CONFIG_{where}", os.devnull)
    results = tmp_path / "docs" / "results"
    results.mkdir(parents=True)
    (results / "code.py").write_text("before")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "first")
    return results


def git(folder: pathlib.Path, *args: str) -> str:
    return subprocess.run(["git", *args], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def test_only_the_rows_are_committed_and_only_where_they_changed(folder: pathlib.Path) -> None:
    (folder / "code.py").write_text("half done")
    git(folder, "add", "code.py")
    (folder / "a.jsonl").write_text("{}\n")
    (folder / "a.md").write_text("page")
    for _ in range(2):  # the second time there is nothing to commit, which is no error
        commit(folder.glob("a.*"), "a row of a")
    assert git(folder, "log", "--format=%s") == "docs/results: a row of a\nfirst"
    assert git(folder, "show", "--format=", "--name-only").split() == ["docs/results/a.jsonl", "docs/results/a.md"]
    assert git(folder, "status", "--porcelain") == "M  docs/results/code.py"


def test_where_git_refuses_the_measurements_go_on(folder: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock = folder.parents[1] / ".git" / "index.lock"  # another process commits just now
    lock.touch()
    (folder / "a.jsonl").write_text("{}\n")
    commit([folder / "a.jsonl"], "a row of a")
    said = capsys.readouterr().err
    assert said.startswith("a row of a is written, and not committed: ") and "index.lock" in said and len(said) < 400
    lock.unlink()
    (folder / "a.jsonl").write_text("{}\n{}\n")
    commit([folder / "a.jsonl"], "another row of a")
    assert git(folder, "show", "HEAD:docs/results/a.jsonl") == "{}\n{}"
