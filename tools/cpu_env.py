"""An environment with the small CPU build of torch (about 1 GB instead of 6), for machines without a GPU.

cpu_env.py                                  make .venv-cpu with every member, the committed pins, torch's CPU build
cpu_env.py --print                          only say which commands that takes (their pins are in .venv-cpu-pins.txt)
cpu_env.py --find-links DIR --torch 2.13.0+cpu   take torch from a folder of wheels instead of torch's own index

The default wheel of torch runs on a CPU too; it is only large. `uv sync` and `uv run` cannot choose the build, `uv pip`
can, so this is a recipe of `uv pip` commands. They run outside the workspace, whose `exclude-newer` would hide all of
torch's own index: that one does not say when its files were uploaded. The pins are handed over instead.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[1]
# uv may be a module of this Python alone, as `python3 -m pip install uv` leaves it where its programs are not on the path
UV = [os.environ.get("UV") or "uv"] if os.environ.get("UV") or shutil.which("uv") else [sys.executable, "-m", "uv"]
# what only the CUDA build of torch needs, and torch itself, which is asked for separately
CUDA = re.compile(r"(torch|triton|cuda-[\w-]+|nvidia-[\w-]+)==")


def constraints(pins: list[str], torch: str | None) -> list[str]:
    """The committed pins without CUDA's; torch stays at its pin, which its CPU build satisfies, or is the one named.

    >>> constraints(["numpy==2.4.6", "nvidia-nccl-cu13==2.30.7", "torch==2.15.0", "triton==3.9.0"], None)
    ['numpy==2.4.6', 'torch==2.15.0']
    >>> constraints(["numpy==2.4.6", "torch==2.15.0"], "2.13.0+cpu")
    ['numpy==2.4.6', 'torch==2.13.0+cpu']
    """
    kept = [pin for pin in pins if not CUDA.match(pin)]
    held = [pin for pin in pins if pin.startswith("torch==")]
    return kept + ([f"torch=={torch}"] if torch else held)


def editables(dependencies: list[str]) -> list[str]:
    """Each member the root lists, as its folder with the root's extras."""
    folders = {}
    for file in sorted([*ROOT.glob("packages/*/pyproject.toml"), *ROOT.glob("apps/*/pyproject.toml")]):
        folders[tomllib.loads(file.read_text())["project"]["name"]] = file.parent
    found = [re.match(r"([\w-]+)(\[[\w,-]+\])?", line) for line in dependencies]
    return [f"{folders[m[1]]}{m[2] or ''}" for m in found if m and m[1] in folders]


def commands(folder: pathlib.Path, pins: pathlib.Path, members: list[str], find_links: str | None) -> list[list[str]]:
    """The two uv commands: the environment, and what goes into it."""
    source = ["--find-links", str(pathlib.Path(find_links).resolve())] if find_links else ["--torch-backend", "cpu"]
    wanted = [part for member in members for part in ("-e", member)]
    group = ["--group", f"{ROOT / 'pyproject.toml'}:dev"]
    python = ["--python", str(folder / "bin" / "python")]
    version = (ROOT / ".python-version").read_text().strip()
    return [
        [*UV, "venv", "-q", "--allow-existing", "--python", version, str(folder)],
        [*UV, "pip", "install", *python, *source, "-c", str(pins), *wanted, *group],
    ]


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--folder", type=pathlib.Path, default=ROOT / ".venv-cpu", help="where the environment goes")
    ap.add_argument("--find-links", metavar="DIR", help="a folder with a CPU wheel of torch")
    ap.add_argument("--torch", metavar="VERSION", help="another torch than the pinned one")
    ap.add_argument("--print", action="store_true", dest="only_print", help="print the commands, run nothing")
    args = ap.parse_args()
    root = tomllib.loads((ROOT / "pyproject.toml").read_text())
    pins = constraints(root["tool"]["uv"]["constraint-dependencies"], args.torch)
    folder = args.folder.resolve()
    file = folder.with_name(f"{folder.name}-pins.txt")  # stays, so that what is printed can be typed
    file.write_text("\n".join(pins) + "\n")
    outside = tempfile.gettempdir()
    for command in commands(folder, file, editables(root["project"]["dependencies"]), args.find_links):
        print(f"(cd {shlex.quote(outside)} && {shlex.join(command)})")
        if not args.only_print and subprocess.run(command, cwd=outside, check=False).returncode:
            sys.exit("that command failed; its reason is above")
    where = shlex.quote(str(args.folder))
    print(f"use it: {where}/bin/po-dreamer train")
    print(f"    or: UV_PROJECT_ENVIRONMENT={where} {shlex.join(UV)} run --no-sync apps/po_dreamer train")


if __name__ == "__main__":
    main()
