"""Freed memory stays with the process, until it is given back in one piece."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import torch
from wm_run.allocator import give_back, keep_pages

def resident():
    line = next(line for line in open("/proc/self/status") if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024

assert keep_pages()
before = resident()
blocks = [torch.ones(1 << 18) for _ in range(300)]  # a megabyte each
top = torch.ones(1 << 18)  # so that the free ones lie below something in use
full = resident() - before
del blocks
freed = resident() - before
give_back()
print(full, freed, resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such settings")
def test_what_was_needed_for_a_moment_goes_back_when_told() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    full, freed, given_back = map(float, done.stdout.split())
    assert full > 290 and freed > 290 and given_back < 60
