"""What tests of several suites share."""

import importlib

import pytest
from env_adapters import opengl

# dm_control keeps the back end it is imported with: choose one before a test pretends that there is none
BACK_END = opengl.choose()
importlib.import_module("dm_control._render")


@pytest.fixture
def drawing() -> None:
    """Skips where nothing draws, with the sentence a user gets."""
    if BACK_END is None:
        pytest.skip(str(opengl.missing("this test")))
