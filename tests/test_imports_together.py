"""Libraries that end each other's process when they are loaded in the wrong order, loaded in that order."""

from __future__ import annotations

import subprocess
import sys

import pytest

DRAW_THEN_COMPILE = """
import env_adapters
env_adapters.make("dmc_cartpole_balance").reset(seed=0)
import wm_run.commands
import triton
"""


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="dm-control cannot be installed there")
def test_an_environment_that_draws_may_come_before_the_agent() -> None:
    done = subprocess.run([sys.executable, "-c", DRAW_THEN_COMPILE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
