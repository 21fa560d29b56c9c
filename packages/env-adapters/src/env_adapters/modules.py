"""A module that a task names -> the module, also where it is a file in the folder in which one works.

A run folder says in its config.toml which task it plays. Whoever gets one from somebody else must not run code on that
person's word: no module that a stranger's task names is imported, and none inside a run folder, unless the user said that
they trust it. Whose word a task is, the caller knows (wm_run.trust) and says in TRUST.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

from env_adapters.errors import TaskError

TRUST = "ENV_ADAPTERS_TRUST"  # 1: as `--trust` of a command; workers and other processes of the run inherit it
NOBODY = "0"  # of TRUST: the task is a stranger's word, and no module is imported for having been named in it


def imported(name: str, *, known: bool = False) -> ModuleType:
    """A module of Python's path, else of the working folder, which Python puts there for `python -m` alone.

    The folder then stays, at the end of the path, where it hides nothing, for what the module imports later. known: it was
    not the task that named it, or one that is known to be harmless. Raises TaskError, before anything of it is run, for a
    module that lies in a run folder, and for any that a stranger's task names: `os:system` is a factory, too.
    """
    if not known and os.environ.get(TRUST) == NOBODY:
        raise TaskError(
            f"the task of this agent names the module {name!r}, and code is not run on the word of a folder that you did not "
            "begin here: name the task yourself, --task and its --env options (env= from Python), or give --trust where you "
            f"know who wrote the folder ({TRUST}=1 from Python)"
        )
    _refuse(name)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        here = os.getcwd()
        if error.name != name.partition(".")[0] or here in sys.path or "" in sys.path:
            raise
        sys.path.append(here)
        try:
            _refuse(name)
        except TaskError:
            sys.path.remove(here)
            raise
        return importlib.import_module(name)


def place(name: str) -> str:
    """Where `imported` would find the outermost module of a name, without running anything: its file or folder, or "" of one
    that is installed or not found. Two modules of one name in two folders are not the same code.

    >>> place("env_adapters_that_is_not_there"), place("numpy")
    ('', '')
    """
    outer = name.partition(".")[0]
    try:
        spec = importlib.util.find_spec(outer) or importlib.machinery.PathFinder.find_spec(outer, [os.getcwd()])
    except (ImportError, ValueError):  # made by hand, without a file
        return ""
    if spec is None:
        return ""
    found = spec.origin or next(iter(spec.submodule_search_locations or []), "")
    path = Path(found)
    if not path.is_absolute() or {"site-packages", "dist-packages"} & set(path.parts):  # "built-in" is no path
        return ""
    return str(path.resolve())


def _refuse(name: str) -> None:
    """Raises TaskError where the module would come from a run folder that nobody trusts."""
    if os.environ.get(TRUST) == "1":
        return
    outer = name.partition(".")[0]
    try:
        spec = importlib.util.find_spec(outer)  # of an outermost name nothing is run
    except (ImportError, ValueError):
        return
    places = [] if spec is None else [spec.origin or "", *(spec.submodule_search_locations or [])]
    for place in filter(None, places):
        for folder in Path(place).absolute().parents:
            if _is_run(folder):
                raise TaskError(
                    f"the module {outer!r} lies in the run folder {folder}, whose code is not run unasked: work in another "
                    "folder, or give --trust where you know who wrote it"
                )


def _is_run(folder: Path) -> bool:
    """Whether a command of ours trained there: its config.toml names an app."""
    try:
        text = (folder / "config.toml").read_text(encoding="utf-8", errors="replace")
    except OSError:
        kept = folder / "checkpoint"
        return kept.is_dir() and any(kept.glob("*/manifest.json"))  # of which the config can be lost
    return "[run]" in text
