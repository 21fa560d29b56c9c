"""The tools refuse what they are there to refuse, tried on a copy of the workspace's bare bones."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib

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


def version(folder: pathlib.Path) -> list[int]:
    text = str(tomllib.loads((folder / "pyproject.toml").read_text())["project"]["version"])
    return [int(part) for part in text.split(".")]


def set_version(folder: pathlib.Path, *parts: int) -> None:
    replace(folder / "pyproject.toml", r'^version = ".*"$', f'version = "{".".join(map(str, parts))}"')


def replace(file: pathlib.Path, pattern: str, new: str) -> None:
    text, count = re.subn(pattern, new, file.read_text(), count=1, flags=re.MULTILINE)
    assert count, f"{file.name} has no {pattern}"
    file.write_text(text)


def test_lock_check_finds_a_tampered_hash(copy: pathlib.Path) -> None:
    assert tool(copy, "lock", "check").returncode == 0
    replace(copy / "requirements.lock", r"sha256:\w{8}", "sha256:00000000")
    found = tool(copy, "lock", "check")
    assert found.returncode == 1 and "requirements.lock" in found.stderr


def test_lock_check_finds_a_tampered_pin_and_keeps_the_lock(copy: pathlib.Path) -> None:
    (copy / "uv.lock").write_text("kept")
    replace(copy / "pyproject.toml", r'^  "einops==.*",$', '  "einops==0.0.0",')
    assert tool(copy, "lock", "check").returncode == 1
    assert (copy / "uv.lock").read_text() == "kept"
    replace(copy / "pyproject.toml", r'^  "einops==.*",\n', "")
    found = tool(copy, "lock", "check")
    assert found.returncode == 1 and "pins in pyproject.toml" in found.stderr


def test_release_check_wants_a_new_version_for_a_changed_package(copy: pathlib.Path) -> None:
    assert "never released" in tool(copy, "release", "check").stdout
    memory = copy / "packages/wm-memory"
    major, minor, patch = version(memory)
    git(copy, "tag", "-a", f"wm-memory-v{major}.{minor}.{patch}", "-m", "one")
    assert tool(copy, "release", "check").returncode == 0
    (memory / "src/wm_memory/more.py").write_text("x = 1\n")
    commit(copy)
    found = tool(copy, "release", "check")
    assert found.returncode == 1 and "wm-memory" in found.stderr
    set_version(memory, major, minor, patch + 1)
    assert tool(copy, "release", "check").returncode == 0


def test_release_check_finds_a_range_that_shuts_a_member_out(copy: pathlib.Path) -> None:
    """uv ignores the range of a workspace source, so that nobody would notice before the wheels are installed."""
    core = copy / "packages/wm-core"
    major, minor, _ = version(core)
    set_version(core, major, minor + 1, 0)
    found = tool(copy, "release", "check")
    assert found.returncode == 1
    assert f"but wm-core is {major}.{minor + 1}.0" in found.stderr and "wm-memory asks for wm-core" in found.stderr


def test_release_cut_refuses_an_unknown_member_and_a_dirty_tree(copy: pathlib.Path) -> None:
    assert "no member is called nobody" in tool(copy, "release", "cut", "nobody").stderr
    (copy / "packages/wm-core/README.md").write_text("changed\n")
    assert "commit first" in tool(copy, "release", "cut", "wm-core").stderr


def test_cpu_env_asks_for_the_cpu_build_and_every_member(copy: pathlib.Path) -> None:
    """Only the commands: torch's own index is not reached from here."""
    said = tool(copy, "cpu_env", "--print").stdout
    install = next(line for line in said.splitlines() if " pip install " in line)
    assert "--torch-backend cpu" in install
    for file in [*copy.glob("packages/*/pyproject.toml"), *copy.glob("apps/*/pyproject.toml")]:
        assert f"-e {file.parent}" in install or f"-e '{file.parent}[" in install
    local = tool(copy, "cpu_env", "--print", "--find-links", ".", "--torch", "2.13.0+cpu").stdout
    assert "--torch-backend" not in local and f"--find-links {copy}" in local


def test_the_flags_of_cpu_env_exist() -> None:
    """`--torch-backend` is an option of `uv pip install` alone, which is why cpu_env.py is a recipe of its own."""
    uv = os.environ.get("UV", "uv")
    for command, knows in ((["pip", "install"], True), (["sync"], False), (["run"], False)):
        told = subprocess.run([uv, *command, "--help"], check=True, capture_output=True, text=True).stdout
        assert ("--torch-backend" in told) == knows
