"""Our wheels as a stranger gets them: by name from an index on loopback, all that is not ours from where installers look.

rehearsal.py [MEMBER ...]    every member (or these) by uv on Python 3.11, with its README's examples or its command; some
                             on 3.12 and 3.13, some by pip; an app by `uv tool install`, which trains

What is not ours is held at the pins of pyproject.toml, so that a rehearsal asks whether our wheels install and not whether the
newest of everything does (`nox -s newest`). Nothing of the checkout but its wheels is in reach of what runs: environments and
examples lie in a temporary folder.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import wheels
from release import ROOT, UV, members, project

OLDEST, OTHERS = "3.11", ("3.12", "3.13")
ON_OTHERS = ("wm-suite", "wm-ssm")  # the second brings torch
BY_PIP = ("wm-suite", "env-adapters")
AS_TOOL = "wm-app-dreamer"
TRAINING = ("train", "--preset", "tiny", "--steps", "400", "--logdir", "run")


@dataclass(frozen=True)
class Trial:
    """One member in an environment of its own."""

    member: str
    python: str
    installer: str  # "uv" or "pip"

    def __str__(self) -> str:
        return f"{self.member} by {self.installer} on Python {self.python}"


def trials(asked: list[str]) -> list[Trial]:
    """What is tried, of the members asked for or of all.

    >>> [str(one) for one in trials(["wm-suite"])][:2]
    ['wm-suite by uv on Python 3.11', 'wm-suite by uv on Python 3.12']
    """
    every = [Trial(name, OLDEST, "uv") for name in members()]
    every += [Trial(name, python, "uv") for name in ON_OTHERS for python in OTHERS]
    every += [Trial(name, OLDEST, "pip") for name in BY_PIP]
    return [one for one in every if not asked or one.member in asked]


def examples(readme: pathlib.Path) -> str:
    """The Python of a README from top to bottom, but for the blocks that are files of their own."""
    found = re.findall(r"^```python\n(.*?)^```", readme.read_text(), re.DOTALL | re.MULTILINE)
    return "\n".join(block for block in found if not re.match(r"# \w+\.py\n", block))


def wanted(member: str) -> str:
    """A member as its README says to install it: with the extras that its examples need.

    >>> wanted("env-adapters"), wanted("wm-ssm"), wanted("wm-app-dreamer")
    ('env-adapters[atari]', 'wm-ssm', 'wm-app-dreamer')
    """
    command = re.search(rf'uv add "({member}(?:\[[\w,-]+\])?) @', (members()[member] / "README.md").read_text())
    return command[1] if command else member


def arrange(built: pathlib.Path, index: pathlib.Path) -> None:
    """The files of a folder as an index serves them, a folder for each name; a listing of it is a page of links."""
    for file in [*built.glob("*.whl"), *built.glob("*.tar.gz")]:
        name = re.split(r"-\d", file.name)[0].replace("_", "-")
        (index / name).mkdir(parents=True, exist_ok=True)
        os.link(file, index / name / file.name)


def served(index: pathlib.Path) -> http.server.ThreadingHTTPServer:
    """A server of the folder on loopback, at a port that was free."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(index)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def pins(folder: pathlib.Path) -> pathlib.Path:
    """A file of the pins; without hashes, for ours have none that pip could ask for."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]["constraint-dependencies"]
    file = folder / "pins.txt"
    file.write_text("\n".join(table) + "\n")
    return file


class Failed(Exception):
    """A step that did not do what it should; the message says which and what it told."""


def run(*command: str | pathlib.Path, at: pathlib.Path, **more: str) -> str:
    """A command's output. Raises Failed with the end of it where it does not end well."""
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    env |= {"OMP_NUM_THREADS": "1"} | more
    done = subprocess.run([*map(str, command)], cwd=at, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise Failed(f"{' '.join(map(str, command))}: ended with {done.returncode}\n{tail}")
    return done.stdout


def install(trial: Trial, folder: pathlib.Path, index: str, constraints: pathlib.Path) -> pathlib.Path:
    """A new environment with the member, by its name and nothing else; its Python."""
    seed = ["--seed"] if trial.installer == "pip" else []
    run(UV, "--no-config", "venv", "-q", "--python", trial.python, "env", *seed, at=folder)
    python = folder / "env" / "bin" / "python"
    asked = ("-c", constraints, wanted(trial.member))
    if trial.installer == "pip":
        pip = (python, "-m", "pip", "install", "-q", "--disable-pip-version-check")
        run(*pip, "--extra-index-url", index, *asked, at=folder)
    else:
        anew = [f"--refresh-package={name}" for name in members()]  # another rehearsal had the same versions
        uv = (UV, "--no-config", "pip", "install", "-q", "--python", python)
        run(*uv, "--index", index, *anew, *asked, at=folder)
    return python


def foreign(python: pathlib.Path, built: pathlib.Path) -> Iterator[str]:
    """Members of ours in an environment that are not the wheels that were built: a registry may have the same names."""
    (site,) = (python.parents[1] / "lib").glob("python*/site-packages")
    for name, home in members().items():
        stem = name.replace("-", "_")
        for info in site.glob(f"{stem}-*.dist-info"):
            wheel = built / f"{stem}-{project(home)['version']}-py3-none-any.whl"
            _, held = wheels.opened(wheel)
            if (info / "METADATA").read_bytes() != held[f"{wheels.info(wheel)}/METADATA"]:
                yield f"{name} was not taken from our index"


def tried(trial: Trial, folder: pathlib.Path, index: str, built: pathlib.Path, constraints: pathlib.Path) -> str:
    """What was done with a member; raises Failed."""
    python = install(trial, folder, index, constraints)
    if strange := list(foreign(python, built)):
        raise Failed("; ".join(strange))
    home = members()[trial.member]
    scripts = project(home).get("scripts", {})
    for script in scripts:
        run(python.parent / script, "--help", at=folder)
    if home.parent.name == "apps":  # whose READMEs have no Python
        for script in scripts:
            run(python.parent / script, "info", "--preset", "tiny", "--count", at=folder)
        return f"{', '.join(scripts)} says what it takes"
    (folder / "example.py").write_text(examples(home / "README.md"))
    run(python, "example.py", at=folder)
    return "its README runs"


def tool(folder: pathlib.Path, index: str, constraints: pathlib.Path) -> str:
    """An app as a command of its own, which trains."""
    home = {"UV_TOOL_DIR": str(folder / "tools"), "UV_TOOL_BIN_DIR": str(folder / "bin")}
    anew = [f"--refresh-package={name}" for name in members()]
    where = ("--python", OLDEST, "--index", index, "-c", str(constraints))
    run(UV, "--no-config", "tool", "install", "-q", *where, *anew, AS_TOOL, at=folder, **home)
    (script,) = project(members()[AS_TOOL])["scripts"]
    run(folder / "bin" / script, *TRAINING, at=folder)
    if not (folder / "run" / "metrics.jsonl").read_text().strip():
        raise Failed(f"{script} trained and wrote no metrics")
    return f"{script} is a command, and trained"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("member", nargs="*")
    asked = parser.parse_args().member
    if strange := [name for name in asked if name not in members()]:
        sys.exit(f"no member is called {', '.join(strange)}; there are {', '.join(members())}")
    failed = []
    with tempfile.TemporaryDirectory(prefix="rehearsal-") as outside:
        base = pathlib.Path(outside)
        built, index = base / "dist", base / "index"
        run(UV, "build", "-q", "--all-packages", "--out-dir", built, at=ROOT)
        if found := wheels.check(built):
            sys.exit("\n".join(found))
        arrange(built, index)
        server, constraints = served(index), pins(base)
        address = f"http://127.0.0.1:{server.server_port}/"
        acts: list[tuple[str, Any]] = [
            (str(one), functools.partial(tried, one, index=address, built=built, constraints=constraints))
            for one in trials(asked)
        ]
        if not asked or AS_TOOL in asked:
            acts.append(
                (f"{AS_TOOL} by uv tool install", functools.partial(tool, index=address, constraints=constraints))
            )
        for what, act in acts:
            begun = time.monotonic()
            with tempfile.TemporaryDirectory(dir=base) as folder:
                try:
                    outcome = act(folder=pathlib.Path(folder))
                except Failed as error:
                    failed.append(what)
                    outcome = f"FAILED: {error}"
            print(f"{what}: {outcome} ({time.monotonic() - begun:.0f} s)", flush=True)
        server.shutdown()
    if failed:
        sys.exit(f"{len(failed)} of {len(acts)} failed: {'; '.join(failed)}")
    print(f"all {len(acts)} installed and ran")


if __name__ == "__main__":
    main()
