"""A gymnasium id that nobody has registered yet -> the package whose import registers it.

Gymnasium's plugins are packages that register their environments when they are imported, and no import tells which
package that is: here are those that publish it as an entry point "gymnasium.envs", and a table of well-known ones.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import gymnasium
from gymnasium.envs import registration

from env_adapters.errors import TaskError
from env_adapters.modules import imported

GROUP = "gymnasium.envs"  # the name of an entry point is the namespace of its ids, "__root__" that of ids without one
# How an id begins -> the module that registers it, the package to install. Which were tried: docs/results/faults.md.
KNOWN: dict[str, tuple[str, str]] = {
    "ALE/": ("ale_py", "ale-py"),
    "Adroit": ("gymnasium_robotics", "gymnasium-robotics"),
    "AntMaze_": ("gymnasium_robotics", "gymnasium-robotics"),
    "BabyAI-": ("minigrid", "minigrid"),
    "Crafter": ("env_adapters.crafter", "crafter"),
    "Fetch": ("gymnasium_robotics", "gymnasium-robotics"),
    "FrankaKitchen-": ("gymnasium_robotics", "gymnasium-robotics"),
    "MiniGrid-": ("minigrid", "minigrid"),
    "MiniHack-": ("minihack", "minihack"),
    "MiniWorld-": ("miniworld", "miniworld"),
    "NetHack": ("nle", "nle"),
    "PointMaze_": ("gymnasium_robotics", "gymnasium-robotics"),
    "Vizdoom": ("vizdoom.gymnasium_wrapper", "vizdoom"),
}
# A module whose environments do not agree with the newest of another package -> its package, and what they agree with. Of
# mujoco 3.17 a joint's kind is in no tuple of kinds, and Fetch, FrankaKitchen and the hands assert that it is.
BESIDE = {"gymnasium_robotics": ("gymnasium-robotics", "mujoco==3.3.7")}
HEADLESS = {
    "miniworld": "PYGLET_HEADLESS"
}  # what tells a module to draw where there is no display, which it else opens


def register(id: str) -> None:
    """Import what registers `id`, where it is known and not there yet; an unknown id is left to gymnasium.

    TaskError where the package that registers it is not installed.
    """
    if ":" in id or id in gymnasium.registry:
        return
    namespace = id.rpartition("/")[0] or None
    for one in entry_points(group=GROUP):
        if one.name == (namespace or "__root__"):
            _published(one, id, namespace)
            if id in gymnasium.registry:
                return
    for prefix, (module, package) in KNOWN.items():
        if id.startswith(prefix):
            _imported(module, package, id)
            return


def asserted(id: str) -> str:
    """What to say where an environment stops at an assertion of its own package; "" where nothing is known of it."""
    made = getattr(gymnasium.registry.get(id), "entry_point", None)
    named = made.partition(":")[0] if isinstance(made, str) else getattr(made, "__module__", "")
    module = named.partition(".")[0]
    if module not in BESIDE:
        return ""
    package, other = BESIDE[module]
    return (
        f"gym:{id} stops at an assertion of {package}, which does not agree with the {other.partition('==')[0]} here: "
        + run_with(package, other)
    )


def run_with(package: str, *others: str) -> str:
    """What to type where a package is missing: it stands beside a project's own, whose environment stays as it is.

    >>> run_with("minigrid")
    'start with `uv run --with minigrid apps/...`'
    >>> run_with("gymnasium-robotics", "mujoco==3.3.7")
    'start with `uv run --with gymnasium-robotics --with mujoco==3.3.7 apps/...`'
    >>> run_with("gymnasium[box2d]")
    "start with `uv run --with 'gymnasium[box2d]' apps/...`"
    """
    quoted = [f"'{one}'" if "[" in one else one for one in (package, *others)]
    return f"start with `uv run {' '.join(f'--with {one}' for one in quoted)} apps/...`"


def _published(one: EntryPoint, id: str, namespace: str | None) -> None:
    """Load an entry point: a module that registers when it is imported, or a function that does."""
    within: Callable[[str], Any] | None = getattr(registration, "namespace", None)  # of gymnasium, where it has it
    try:
        with within(namespace) if within and namespace else contextlib.nullcontext():
            found = one.load()
            if callable(found):
                found()
    except Exception as error:  # a plugin's own fault, whatever it is
        raise TaskError(
            f"gym:{id}: the plugin {one.value} that is to register it does not load: {type(error).__name__}: {_line(error)}"
        ) from error


def _imported(module: str, package: str, id: str) -> None:
    try:
        if module.startswith("env_adapters."):  # which imports the package only when it is played
            imported(package, known=True)
        if module in HEADLESS and sys.platform == "linux" and not os.environ.get("DISPLAY"):
            os.environ.setdefault(HEADLESS[module], "true")  # read when it is imported; workers inherit it
        imported(module, known=True)
    except ModuleNotFoundError as error:
        root = package.replace("-", "_")
        if error.name is not None and error.name.partition(".")[0] in (root, module.partition(".")[0]):
            raise TaskError(
                f"gym:{id} is of the package {package}, which is not installed: {run_with(package)}"
            ) from error
        raise TaskError(
            f"gym:{id}: the package {package} needs the module {error.name!r}, which is not installed: start with "
            f"`uv run --with {package} --with PACKAGE apps/...`, naming the package that it is of"
        ) from error
    except ImportError as error:
        raise TaskError(f"gym:{id}: the package {package} does not load: {_line(error)}") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
