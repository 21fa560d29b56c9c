"""`python -m env_adapters meltingpot`: a Python of its own for Melting Pot's workers, made once by uv in the user's cache.

dm-meltingpot asks for TensorFlow, for builds of OpenCV and pygame that other suites own too, and for an archive of bots from
a place that not every machine reaches. Substrates need none of these: what they do need stands below, each at the version that
was tried, and an empty archive stands in for the bots.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from env_adapters.errors import TaskError

NAMED = "ENV_ADAPTERS_MELTINGPOT"  # a Python that has dm-meltingpot, in place of ours
WORKER = Path(__file__).with_name("meltingpot_worker.py")
PYTHON = "3.11"
PACKAGE = "dm-meltingpot==2.4.1"
NEEDED = (
    "absl-py==2.5.1",
    "chex==0.1.92",
    "dm-env==1.6",
    "dm-tree==0.1.10",
    "dmlab2d==1.0.2",
    "attrs==26.1.0",
    "immutabledict==4.3.1",
    "jax==0.10.2",
    "jaxlib==0.10.2",
    "ml-collections==1.1.0",
    "ml-dtypes==0.6.0",
    "networkx==3.6.1",
    "numpy==2.4.6",
    "opt-einsum==3.4.0",
    "pyyaml==6.0.4",
    "reactivex==6.1.0",
    "scipy==1.17.1",
    "toolz==1.2.0",
    "typing-extensions==4.16.0",
    "wrapt==2.5.2",
)
_BUILT_WITH = "setuptools==80.9.0"
_BOTS = (
    "meltingpot-assets-2.3.0.tar.gz"  # what the build of this version looks for in the temporary folder, or downloads
)
_MADE = "env-adapters.txt"  # written last, into a folder that is complete: what it holds


def folder() -> Path:
    """Where it lies: below XDG_CACHE_HOME, or ~/.cache. TaskError for an account that has neither."""
    try:
        kept = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError as error:
        raise TaskError("this account has no home to keep Melting Pot's Python in: set XDG_CACHE_HOME") from error
    return kept / "env-adapters" / "meltingpot"


def python() -> Path:
    """The Python that runs Melting Pot. TaskError where there is none."""
    if named := os.environ.get(NAMED):
        if not os.access(named, os.X_OK):
            raise TaskError(f"{NAMED} names {named}, which is no program; name a Python that has dm-meltingpot")
        return Path(named)
    if not (folder() / _MADE).is_file():
        started = "uv run" if "UV_RUN_RECURSION_DEPTH" in os.environ else "python"  # uv has this in what it runs alone
        raise TaskError(
            f"Melting Pot runs in a Python of its own, which is not there yet: `{started} -m env_adapters meltingpot` makes it "
            f"(about 600 MB in {folder()}), or {NAMED} names one that has dm-meltingpot"
        )
    return folder() / "bin" / "python"


def make(say: Callable[[str], None] = print) -> Path:
    """Make it, unless it is there with what is named above; its Python. say: what is done, a line each.

    TaskError, one sentence, where something is missing.
    """
    home, contents = folder(), _contents()
    if sys.platform == "win32":
        raise TaskError("Melting Pot has no build for Windows; use Linux, or Linux within Windows")
    uv = _uv()
    home.parent.mkdir(parents=True, exist_ok=True)
    with home.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two at a time would delete each other's
        if (home / _MADE).is_file() and (home / _MADE).read_text() == contents:
            say(f"{home} is there already: {_installed(home)}")
            return home / "bin" / "python"
        begun = time.monotonic()
        say(f"making {home}: a Python {PYTHON} with {PACKAGE} and {len(NEEDED)} packages it needs")
        shutil.rmtree(home, ignore_errors=True)
        _run([*uv, "venv", "--python", PYTHON, str(home)], f"uv found no Python {PYTHON} and could fetch none")
        install = [*uv, "pip", "install", "--no-deps", "--python", str(home / "bin" / "python")]
        with tempfile.TemporaryDirectory() as temporary:
            pins = Path(temporary) / "pins.txt"
            pins.write_text("\n".join([*NEEDED, ""]))
            _run([*install, "-r", str(pins)], "what Melting Pot needs could not be installed")
            _empty_archive(Path(temporary) / _BOTS)
            pins.write_text(f"{_BUILT_WITH}\n")
            say(f"building {PACKAGE} with an empty archive in place of its bots, which no substrate needs")
            # without uv's cache, where whoever wants the bots would find this build
            built = [*install, "--no-cache", "--build-constraints", str(pins), PACKAGE]
            _run(built, f"{PACKAGE} could not be built", {"TMPDIR": temporary})
        installed = _installed(home)
        (home / _MADE).write_text(contents)
        size = sum(one.stat().st_size for one in home.rglob("*") if one.is_file() and not one.is_symlink())
        say(f"done: {installed}; {time.monotonic() - begun:.0f} s, {size / 1e6:,.0f} MB")
    return home / "bin" / "python"


def _contents() -> str:
    return "\n".join([f"Python {PYTHON}", PACKAGE, *NEEDED, ""])


def _uv() -> list[str]:
    """How uv is called: by its name, or as a module of this Python."""
    named = os.environ.get("UV") or shutil.which("uv")
    if named:
        return [named]
    if subprocess.run([sys.executable, "-m", "uv", "--version"], capture_output=True, check=False).returncode == 0:
        return [sys.executable, "-m", "uv"]
    raise TaskError("Melting Pot's Python is made by uv, which is not installed: `python -m pip install uv` brings it")


def _empty_archive(path: Path) -> None:
    with tarfile.open(path, "w:gz") as archive:
        entry = tarfile.TarInfo("assets")
        entry.type, entry.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(entry)


def _installed(home: Path) -> str:
    """What the worker finds in it, in its words."""
    return _run([str(home / "bin" / "python"), "-I", str(WORKER)], f"Melting Pot does not run in {home}").strip()


def _run(command: Sequence[str], failed: str, env: Mapping[str, str] | None = None) -> str:
    """Standard output. TaskError that begins with `failed` and ends with what was said."""
    # elsewhere than in a project, whose pins and sources would be taken for this; and no Python's paths are another's
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    try:
        done = subprocess.run(
            command, cwd=folder().parent, env=inherited | dict(env or {}), capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise TaskError(f"{failed}: {error}") from error
    if done.returncode:
        lines = [line.strip(" ╰─▶×├│") for line in (done.stderr or done.stdout).splitlines()]
        reason = " ".join(line for line in lines if line)[-400:]
        raise TaskError(f"{failed}: {reason or f'exit code {done.returncode}'}")
    return done.stdout
