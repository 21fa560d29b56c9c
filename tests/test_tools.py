"""The tools refuse what they are there to refuse, tried on a copy of the workspace's bare bones."""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
BONES = ("pyproject.toml", ".python-version", "requirements.lock", "towncrier.toml", ".gitignore", "tools/*.py")
MEMBER_BONES = ("pyproject.toml", "README.md", "CHANGELOG.md", "src/*/__init__.py")


@pytest.fixture
def copy(tmp_path: pathlib.Path) -> pathlib.Path:
    """A committed copy in which the tools can do what they like."""
    patterns = [*BONES, *(f"{folder}/*/{bone}" for folder in ("packages", "apps") for bone in MEMBER_BONES)]
    for file in (file for pattern in patterns for file in ROOT.glob(pattern)):
        target = tmp_path / file.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    git(tmp_path, "init", "-q")
    commit(tmp_path)
    return tmp_path


def git(folder: pathlib.Path, *args: str) -> str:
    names = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    return subprocess.run(["git", *names, *args], cwd=folder, check=True, capture_output=True, text=True).stdout


def commit(folder: pathlib.Path) -> None:
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "copy")


def tool(folder: pathlib.Path, name: str, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, f"tools/{name}.py", *args]
    return subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)


def replace(file: pathlib.Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text, f"{file.name} no longer says {old!r}"
    file.write_text(text.replace(old, new, 1))


def test_lock_check_finds_a_tampered_hash_and_a_tampered_pin(copy: pathlib.Path) -> None:
    assert tool(copy, "lock", "check").returncode == 0
    lines = (copy / "requirements.lock").read_text()
    digest = lines.split("--hash=sha256:", 1)[1][:8]
    replace(copy / "requirements.lock", digest, digest[::-1])
    found = tool(copy, "lock", "check")
    assert found.returncode == 1 and "requirements.lock" in found.stderr
    (copy / "requirements.lock").write_text(lines)
    replace(copy / "pyproject.toml", '  "einops==0.8.2",\n', '  "einops==0.8.1",\n')
    found = tool(copy, "lock", "check")
    assert found.returncode == 1 and "requirements.lock" in found.stderr


def test_release_check_wants_a_new_version_for_a_changed_package(copy: pathlib.Path) -> None:
    assert "never released" in tool(copy, "release", "check").stdout
    git(copy, "tag", "-a", "wm-memory-v0.1.0", "-m", "one")
    assert tool(copy, "release", "check").returncode == 0
    (copy / "packages/wm-memory/src/wm_memory/more.py").write_text("x = 1\n")
    commit(copy)
    found = tool(copy, "release", "check")
    assert found.returncode == 1 and "wm-memory" in found.stderr
    replace(copy / "packages/wm-memory/pyproject.toml", 'version = "0.1.0"', 'version = "0.1.1"')
    assert tool(copy, "release", "check").returncode == 0


def test_release_check_finds_a_range_that_shuts_a_member_out(copy: pathlib.Path) -> None:
    """uv ignores the range of a workspace source, so that nobody would notice before the wheels are installed."""
    replace(copy / "packages/wm-core/pyproject.toml", 'version = "0.1.0"', 'version = "0.2.0"')
    found = tool(copy, "release", "check")
    assert found.returncode == 1 and "wm-memory asks for wm-core>=0.1,<0.2, but wm-core is 0.2.0" in found.stderr


def test_release_cut_refuses_an_unknown_member_and_a_dirty_tree(copy: pathlib.Path) -> None:
    assert "no member is called nobody" in tool(copy, "release", "cut", "nobody").stderr
    (copy / "packages/wm-core/README.md").write_text("changed\n")
    assert "commit first" in tool(copy, "release", "cut", "wm-core").stderr
