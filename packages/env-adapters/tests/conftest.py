"""What tests of several suites share."""

import importlib
import os
import sys

import pytest
from env_adapters import opengl

if sys.version_info >= (3, 13):  # dm-control cannot be installed there
    collect_ignore = ["test_dmc.py", "test_memory_maze.py", "test_opengl.py"]
    BACK_END = None
else:
    # dm_control keeps the back end it is imported with: choose one before a test pretends that there is none
    BACK_END = opengl.choose()
    importlib.import_module("dm_control._render")


@pytest.fixture(scope="session", autouse=True)
def compiled(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What JAX compiles is kept for the processes of these tests, and not in the user's folder."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    os.environ["ENV_ADAPTERS_JAX_CACHE"] = str(folder / "jax")


@pytest.fixture
def drawing() -> None:
    """Skips where nothing draws, with the sentence a user gets."""
    if BACK_END is None:
        pytest.skip(str(opengl.missing("this test")))
