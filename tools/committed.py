"""Rows and pages that a measurement wrote, as a commit of their own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path


def commit(paths: Iterable[Path], what: str) -> None:
    """A commit "docs/results: WHAT" of these files alone: what else is staged stays staged, and where none of them changed
    there is no commit. They lie in one folder. Where git refuses (nobody's name is known, another process commits) that is
    said, and the measurements go on: the rows are in their file, and the next commit has them."""
    found = sorted(paths)
    names, folder = [path.name for path in found], found[0].parent

    def git(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", *words, "--", *names], check=False, cwd=folder, capture_output=True, text=True)

    done = git("add")
    if not done.returncode and git("diff", "--cached", "--quiet").returncode:
        done = git("commit", "-qm", f"docs/results: {what}")
    if done.returncode:
        reason = (done.stderr.strip() or done.stdout.strip()).splitlines()
        print(f"{what} is written, and not committed: {' '.join(reason)[:300]}", file=sys.stderr, flush=True)
