"""Rows and pages that a measurement wrote, as a commit of their own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path


def commit(paths: Iterable[Path], what: str) -> None:
    """A commit "docs/results: WHAT" of these files alone: what else is staged stays staged, and where none of them changed
    there is no commit. They lie in one folder."""
    found = sorted(paths)
    names, folder = [path.name for path in found], found[0].parent
    subprocess.run(["git", "add", *names], check=True, cwd=folder)
    if subprocess.run(["git", "diff", "--cached", "--quiet", "--", *names], check=False, cwd=folder).returncode:
        subprocess.run(["git", "commit", "-qm", f"docs/results: {what}", "--", *names], check=True, cwd=folder)
