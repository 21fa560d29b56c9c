"""A module that a task names -> the module, also where it is a file in the folder in which one works."""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType


def imported(name: str) -> ModuleType:
    """A module of Python's path, else of the working folder, which Python puts there for `python -m` alone.

    The folder then stays, at the end of the path, where it hides nothing, for what the module imports later.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        here = os.getcwd()
        if error.name != name.partition(".")[0] or here in sys.path or "" in sys.path:
            raise
        sys.path.append(here)
        return importlib.import_module(name)
