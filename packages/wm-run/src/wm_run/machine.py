"""What a run runs on: versions of everything installed, the commit, the hardware."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any


def describe_environment() -> dict[str, Any]:
    """Versions of everything installed, the commit, the machine: JSON-able.

    >>> sorted(describe_environment())
    ['command', 'commit', 'hardware', 'packages', 'platform', 'python', 'started']
    """
    import torch  # here: the rest of this file does without

    packages = {d.name: d.version for d in importlib.metadata.distributions()}
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "started": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": dict(sorted(packages.items())),
        "commit": commit(),
        "hardware": {"cpu": _cpu(), "cores": os.cpu_count(), "memory_bytes": memory, "gpus": gpus},
    }


def commit() -> str | None:
    """The commit of this source, or of the working folder for an installed package; "+" after it: with changes."""
    here = Path(__file__).parent
    folder = Path.cwd() if "site-packages" in here.parts else here
    try:
        git = ["git", "-C", str(folder)]
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True)
        status = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return commit.stdout.strip() + ("+" if status.stdout.strip() else "")


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*:\s*(.+)", info.read_text()) if info.is_file() else []
    return names[0] if names else platform.processor()
