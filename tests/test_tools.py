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
MEMBER_BONES = ("pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "src/*/__init__.py")
# whoever signs commits, or has hooks and templates of their own, still gets these tests' git
PLAIN = os.environ | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}


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
    return subprocess.run(
        ["git", *names, *args], cwd=folder, check=True, capture_output=True, text=True, env=PLAIN
    ).stdout


def commit(folder: pathlib.Path) -> None:
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "copy")


def tool(folder: pathlib.Path, name: str, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, f"tools/{name}.py", *args]
    return subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True, env=PLAIN)


def version(folder: pathlib.Path) -> list[int]:
    text = str(tomllib.loads((folder / "pyproject.toml").read_text())["project"]["version"])
    return [int(part) for part in text.split(".")]


def set_version(folder: pathlib.Path, *parts: int) -> None:
    replace(folder / "pyproject.toml", r'^version = ".*"$', f'version = "{".".join(map(str, parts))}"')


def replace(file: pathlib.Path, pattern: str, new: str) -> None:
    text, count = re.subn(pattern, new, file.read_text(), count=1, flags=re.MULTILINE)
    assert count, f"{file.name} has no {pattern}"
    file.write_text(text)


FORMS = {  # two texts of uv's for one selection; the second is 0.13.9's
    "apart": "(python_full_version < '3.12' and sys_platform == 'darwin') or (python_full_version < '3.12' and sys_platform == 'linux')",
    "together": "python_full_version < '3.12' and (sys_platform == 'darwin' or sys_platform == 'linux')",
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_lock_check_does_not_mind_how_uv_writes_a_marker(copy: pathlib.Path, form: str) -> None:
    for file, ends in (("pyproject.toml", '",'), ("requirements.lock", r" \\")):
        text = (copy / file).read_text()
        new = re.sub(rf"(numpy==[^ ]+ ; )python_full_version < '3\.12'(?={ends})", lambda m: m[1] + form, text)
        assert new != text
        (copy / file).write_text(new)
    found = tool(copy, "lock", "check")
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize(
    ("file", "pattern", "new", "told"),
    [
        ("requirements.lock", r"sha256:\w{8}", "sha256:00000000", "differs in its hashes"),
        (
            "requirements.lock",
            r"^numpy==(\S+) ; python_full_version < '3\.12'",
            r"numpy==\1 ; python_full_version < '3.13'",
            "numpy",
        ),
        ("requirements.lock", r"^six==\S+", "six==1.0.0", "six==1.0.0 is committed and not resolved"),
        (
            "pyproject.toml",
            r'^  "numpy==(\S+) ; python_full_version < .3\.12.",$',
            r'  "numpy==\1 ; python_full_version < \'3.12.5\'",',
            "numpy",
        ),
        ("pyproject.toml", r'^  "einops==.*",\n', "", "pins in pyproject.toml: einops"),
    ],
    ids=["hash", "marker", "version", "marker of a pin", "pin left out"],
)
def test_lock_check_finds_what_was_tampered_with(
    copy: pathlib.Path, file: str, pattern: str, new: str, told: str
) -> None:
    replace(copy / file, pattern, new)
    found = tool(copy, "lock", "check")
    assert found.returncode == 1 and told in found.stderr and file in found.stderr, found.stderr


def test_lock_check_keeps_the_lock_where_it_cannot_resolve(copy: pathlib.Path) -> None:
    (copy / "uv.lock").write_text("kept")
    replace(copy / "pyproject.toml", r'^  "einops==.*",$', '  "einops==0.0.0",')
    assert tool(copy, "lock", "check").returncode == 1
    assert (copy / "uv.lock").read_text() == "kept"


def test_lock_check_names_a_line_that_pins_nothing(copy: pathlib.Path) -> None:
    replace(copy / "requirements.lock", r"^six==\S+", "six>=1.0.0")
    found = tool(copy, "lock", "check")
    assert "'six>=1.0.0' pins no version" in found.stderr and "Traceback" not in found.stderr


def test_pin_writes_what_is_committed(copy: pathlib.Path) -> None:
    """The text depends on what is resolved alone: uv's own form changes with its version."""
    before = [(copy / name).read_text() for name in ("pyproject.toml", "requirements.lock")]
    done = tool(copy, "lock", "pin")
    assert done.returncode == 0, done.stderr
    assert [(copy / name).read_text() for name in ("pyproject.toml", "requirements.lock")] == before


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


def test_what_cpu_env_prints_can_be_typed(copy: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Line by line in a shell, from here, with a uv that only writes down where it was and what it was asked for."""
    uv = tmp_path / "uv"
    uv.write_text('#!/bin/sh\npwd\nfor word; do case "$last" in -c) cat "$word";; esac; last=$word; done\n')
    uv.chmod(0o755)
    for env in ({"UV": str(uv)}, {"UV": "", "PATH": f"{tmp_path}:{os.environ['PATH']}"}):
        command = [sys.executable, str(copy / "tools" / "cpu_env.py"), "--print"]
        said = subprocess.run(command, check=True, env=os.environ | env, capture_output=True, text=True).stdout
        first, second = said.splitlines()[:2]
        for line in (first, second):
            told = subprocess.run(
                ["sh", "-c", line], check=True, cwd=copy, env=os.environ | env, capture_output=True, text=True
            )
            folder, *pins = told.stdout.splitlines()
            assert not pathlib.Path(folder).is_relative_to(copy)
        assert any(pin.startswith("numpy==") for pin in pins) and not any(pin.startswith("nvidia") for pin in pins)
    nowhere = os.environ | {"UV": "", "PATH": "/bin:/usr/bin"}
    said = subprocess.run(command, check=True, env=nowhere, capture_output=True, text=True).stdout
    assert f"{sys.executable} -m uv venv" in said or shutil.which("uv", path="/bin:/usr/bin")


def test_the_flags_of_cpu_env_exist() -> None:
    uv = os.environ.get("UV") or "uv"
    told = subprocess.run([uv, "pip", "install", "--help"], check=True, capture_output=True, text=True).stdout
    assert "--torch-backend" in told
