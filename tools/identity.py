"""Do two commits make the same numbers? Runs of fixed seed in each, compared row by row and tensor by tensor.

identity.py OLD          the working tree against a commit
identity.py OLD NEW      two commits

Each commit is checked out under .nox/identity/<commit> with an environment of its own; its runs are kept there, so that
the next comparison with it costs nothing. The working tree's runs are made anew. Compared are the rows of metrics.jsonl
(but speed and memory), of scores.jsonl, every tensor of the last weights, and the files of the replay. Names that only
one side has are listed apart: a name is no number. Exit code 1 where anything differs. The pins of each commit are its
own: where a library has moved, its numbers may have.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

ROOT = Path(__file__).resolve().parents[1]
HOUSE = ROOT / ".nox" / "identity"
PRIVATE = ("fps/", "usage/", "time/")  # no functions of the seed
LOGS = ("metrics.jsonl", "scores.jsonl")
# name -> app and options: every app at its smallest, and what an option changes most
RUNS: dict[str, tuple[str, ...]] = {
    "dreamer": ("dreamer",),
    "dreamer --var": ("dreamer", "--var", "True", "--var-warmup", "40"),
    "po_dreamer": ("po_dreamer",),
    "po_dreamer this-episode": ("po_dreamer", "--ablation", "this-episode"),
    "r2i": ("r2i",),
    "storm": ("storm",),
    "storm --var": ("storm", "--var", "True", "--var-warmup", "40"),
}


def make(tree: Path, runs: Path) -> None:
    """The runs of the code in `tree`, each into a folder of `runs`."""
    shutil.rmtree(runs, ignore_errors=True)
    quiet = os.environ | {"OMP_NUM_THREADS": "1", "UV_PROJECT_ENVIRONMENT": str(tree / ".venv")}
    uv = os.environ.get("UV") or "uv"
    subprocess.run([uv, "sync", "-q"], cwd=tree, check=True, env=quiet)
    for name, (app, *options) in RUNS.items():
        print(f"{name} at {tree.name}", file=sys.stderr)
        logdir = runs / folder(name)
        command = [tree / ".venv/bin/python", tree / "apps" / app, "train", "--preset", "tiny", "--seed", "1"]
        done = subprocess.run(
            [*map(str, command), "--logdir", str(logdir), *options],
            env=quiet,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            sys.exit(f"{name} failed at {tree}:\n{done.stderr[-2000:]}")


def folder(name: str) -> str:
    return name.replace(" ", "_")


def at(commit: str) -> Path:
    """The runs of a commit, made where they are not there yet."""
    ask = ["git", "rev-parse", "--short=12", f"{commit}^{{commit}}"]
    resolved = subprocess.run(ask, check=False, cwd=ROOT, capture_output=True, text=True)
    if resolved.returncode:
        sys.exit(f"there is no commit {commit!r} here")
    house = HOUSE / resolved.stdout.strip()
    tree, runs = house / "tree", house / "runs"
    if not (house / "done").exists():
        if not tree.exists():
            subprocess.run(["git", "clone", "-q", "--no-checkout", str(ROOT), str(tree)], check=True)
            subprocess.run(["git", "checkout", "-q", house.name], cwd=tree, check=True)
        make(tree, runs)
        (house / "done").touch()
    return runs


def rows(path: Path) -> list[dict[str, Any]]:
    """A log without what is no function of the seed."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [{k: v for k, v in json.loads(line).items() if not k.startswith(PRIVATE)} for line in lines]


def weights(logdir: Path) -> dict[str, Any]:
    step = (logdir / "checkpoint" / "latest").read_text().strip()
    return dict(load_file(logdir / "checkpoint" / step / "model.safetensors"))


def replay(logdir: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted((logdir / "replay").glob("*.chunk"))
    }


def compare_rows(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> str:
    """`same`, or the first number that differs.

    >>> compare_rows([{"step": 1, "a": 2.0}], [{"step": 1, "a": 2.0, "b": 1}])
    'same; only new: b'
    >>> compare_rows([{"step": 1, "a": 2.0}], [{"step": 1, "a": 3.0}])
    'a is 2.0 and 3.0 in row 1'
    """
    if len(old) != len(new):
        return f"{len(old)} and {len(new)} rows"
    for at_row, (one, two) in enumerate(zip(old, new, strict=True), 1):
        for name in one:
            if name in two and one[name] != two[name] and not (one[name] != one[name] and two[name] != two[name]):
                return f"{name} is {one[name]} and {two[name]} in row {at_row}"
    return "same" + names({n for row in old for n in row}, {n for row in new for n in row})


def names(old: set[str], new: set[str]) -> str:
    """What only one side has, as the end of a verdict."""
    apart = [(side, sorted(only)) for side, only in (("old", old - new), ("new", new - old)) if only]
    return "".join(f"; only {side}: {', '.join(only)}" for side, only in apart)


def compare_tensors(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """`same`, or how many tensors differ and by how much at most.

    >>> compare_tensors({"w": np.zeros(2)}, {"w": np.array([0.0, 0.5])})
    '1 of 1 differ, by 0.5 at most'
    """
    both = [name for name in old if name in new]
    far = {
        n: _distance(old[n], new[n]) for n in both if old[n].shape != new[n].shape or not np.array_equal(old[n], new[n])
    }
    ends = names(set(old), set(new))
    return f"{len(far)} of {len(both)} differ, by {max(far.values()):.3g} at most{ends}" if far else f"same{ends}"


def _distance(old: Any, new: Any) -> float:
    return float(np.abs(old.astype(np.float64) - new).max()) if old.shape == new.shape else float("inf")


def compare_files(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    differ = [name for name in old if name in new and old[name] != new[name]]
    return (f"{len(differ)} of {len(old)} files differ" if differ else "same") + names(set(old), set(new))


def compare(old: Path, new: Path) -> dict[str, str]:
    """A verdict for each part of two run folders."""
    found = {name: compare_rows(rows(old / name), rows(new / name)) for name in LOGS}
    found["weights"] = compare_tensors(weights(old), weights(new))
    found["replay"] = compare_files(replay(old), replay(new))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", help="a commit")
    parser.add_argument("new", nargs="?", help="another; without it the working tree")
    args = parser.parse_args()
    old = at(args.old)
    if args.new:
        new = at(args.new)
    else:
        new = HOUSE / "working-tree"
        make(ROOT, new)
    print("| run | metrics | scores | weights | replay |\n|-|-|-|-|-|")
    bad = False
    for name in RUNS:
        found = compare(old / folder(name), new / folder(name))
        bad |= any(not verdict.startswith("same") for verdict in found.values())
        print(f"| {name} | {' | '.join(found.values())} |")
    sys.exit(bad)


if __name__ == "__main__":
    main()
