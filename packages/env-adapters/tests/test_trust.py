"""A module in a run folder is run where the user said so, and not before."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from env_adapters import TaskError, make
from env_adapters.make import code_of
from env_adapters.modules import NOBODY, TRUST, imported


@pytest.fixture
def received(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run folder of somebody else's, with a module that leaves a mark when it is run, and the user in it."""
    folder = tmp_path / "run"
    (folder / "package_received").mkdir(parents=True)
    (folder / "config.toml").write_text('task = "module_received:make"\n[run]\napp = "x"\n')
    mark = "from pathlib import Path\nPath(__file__).with_name('ran').touch()\n"
    (folder / "module_received.py").write_text(mark)
    (folder / "package_received/__init__.py").write_text(mark)
    (folder / "package_received/inner.py").write_text(mark)
    monkeypatch.setattr(sys, "path", [one for one in sys.path if one])
    monkeypatch.chdir(folder)
    monkeypatch.delenv(TRUST, raising=False)
    for name in [name for name in sys.modules if "_received" in name]:
        monkeypatch.delitem(sys.modules, name)
    return folder


@pytest.mark.parametrize("name", ["module_received", "package_received.inner"])
@pytest.mark.parametrize("path", [None, "", "here"])
@pytest.mark.parametrize("lost", [False, True])
def test_a_module_in_a_run_folder_is_not_run_unasked(
    received: Path, monkeypatch: pytest.MonkeyPatch, name: str, path: str | None, lost: bool
) -> None:
    """Not where the user works in it, nor where Python looks there by itself, as for `python -m`."""
    if lost:
        (received / "checkpoint/100").mkdir(parents=True)
        (received / "config.toml").rename(received / "checkpoint/100/manifest.json")
    if path is not None:
        sys.path.insert(0, str(received) if path else "")
    before = list(sys.path)
    with pytest.raises(TaskError, match=r"lies in the run folder .*--trust"):
        imported(name)
    assert not list(received.rglob("ran")) and sys.path == before
    monkeypatch.setenv(TRUST, "1")
    imported(name)
    assert list(received.rglob("ran"))


def test_a_module_beside_the_runs_is_run(received: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (received / "module_received.py").rename(received.parent / "module_received.py")
    (received.parent / "config.toml").write_text("[tool]\n")  # of something else
    monkeypatch.chdir(received.parent)
    imported("module_received")
    assert (received.parent / "ran").exists()


@pytest.mark.parametrize("task", ["os:mkdir", "gym:antigravity:Env-v0", "zoo:antigravity", "module_received:make"])
def test_a_strangers_task_imports_no_module_that_it_names(
    received: Path, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    """One that a folder names: also one that is there already, as os is, whose functions are factories, too."""
    monkeypatch.setenv(TRUST, NOBODY)
    monkeypatch.chdir(received.parent)
    (received / "module_received.py").rename(received.parent / "module_received.py")
    with pytest.raises(TaskError, match=r"on the word of a folder .* give --trust"):
        make(task, path="made")
    assert not Path("made").exists() and not Path("ran").exists()


def test_a_strangers_task_of_a_suite_is_played(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this package names itself is imported, also where it is a plugin's."""
    monkeypatch.setenv(TRUST, NOBODY)
    for task in ("toy:catch", "gym:CartPole-v1", "zoo:mpe2.simple_spread_v3", "gym:ALE/Pong-v5"):
        make(task).close()


@pytest.mark.parametrize(
    "task",
    [
        "toy:catch", "gym:CartPole-v1", "zoo:mpe2.simple_spread_v3", "dmc_cartpole_balance", "bsuite_catch/0", "toy:nothing",
        "os:mkdir", "gym:antigravity:Env-v0", "zoo:antigravity", "module_received:make", "nothing", "nothing:", ":nothing",
    ],
)  # fmt: skip
def test_what_names_code_is_what_a_stranger_may_not_name(monkeypatch: pytest.MonkeyPatch, task: str) -> None:
    monkeypatch.setenv(TRUST, NOBODY)
    try:
        make(task).close()
    except TaskError as error:
        assert ("on the word of" in str(error)) == (code_of(task) is not None)
    else:
        assert code_of(task) is None


def test_code_is_known_by_where_it_lies_unless_it_is_installed(received: Path) -> None:
    """Nothing of it is run for that."""
    assert code_of("module_received:make") == f"module_received {received / 'module_received.py'}"
    inner = f"package_received.inner {received}/package_received/__init__.py"
    assert code_of("gym:package_received.inner:Walk-v0") == inner
    assert code_of("numpy:eye") == "numpy" and code_of("not_there_at_all:f") == "not_there_at_all"
    assert not list(received.rglob("ran"))
