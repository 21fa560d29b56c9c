"""The data that come with this package: what a score is normalised by, how long a battle may last, what papers printed.

Every table is a file of data/ with its source; the names of a task are compared by letters and digits, without the prefix of
a suite of Atari games, so that `atari100k_ms_pacman`, `atari_ms_pacman` and `MsPacman` are one.
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Mapping
from fnmatch import fnmatchcase
from importlib import resources
from types import MappingProxyType
from typing import Any

from wm_suite.errors import SuiteError

KINDS = {
    "references": "random and reference scores",
    "limits": "steps of an episode",
    "scores": "printed scores",
}


def names(kind: str) -> list[str]:
    """The tables of a kind: "references", "limits" or "scores".

    >>> names("limits")
    ['smac_limits']
    """
    files = (one.name for one in (resources.files("wm_suite") / "data").iterdir())
    return sorted(
        name for file in files if file.endswith(".toml") and kind in opened(name := file.removesuffix(".toml"))
    )


@functools.cache
def opened(name: str) -> Mapping[str, Any]:
    """What is in the file. Raises SuiteError where there is none."""
    file = resources.files("wm_suite") / "data" / f"{name}.toml"
    if not re.fullmatch(r"\w+", name) or not file.is_file():
        raise SuiteError(
            f"there is no table {name!r}; there are {', '.join(sorted(names('references') + names('scores')))}"
        )
    return MappingProxyType(tomllib.loads(file.read_text("utf-8")))


def table(name: str, kind: str) -> Mapping[str, Any]:
    """A table of this kind. Raises SuiteError for another, or none.

    >>> table("maze_oracle", "references")["references"]["memory_maze_9x9"]
    [0.0, 34.8]
    """
    found = opened(name)
    if kind not in found:
        raise SuiteError(f"{name} holds no {KINDS[kind]}; these do: {', '.join(names(kind))}")
    return found


def key(task: str) -> str:
    """By which a task is known whoever spells it.

    >>> key("atari100k_james_bond"), key("ALE/Jamesbond-v5"), key("JamesbondNoFrameskip-v4"), key("dmc_walker_walk")
    ('jamesbond', 'jamesbond', 'jamesbond', 'dmcwalkerwalk')
    """
    task = re.sub(r"^(atari100k_|atari_|ALE/)|(NoFrameskip)?-v\d+$", "", task)
    return re.sub(r"[^a-z0-9*]", "", task.lower())


def entry(section: Mapping[str, Any], task: str) -> Any:
    """What a section says of a task, None where nothing; "*" in a name stands for anything.

    >>> entry({"dmc_*": 1, "Alien": 2}, "dmc_walker_walk"), entry({"Alien": 2}, "atari_alien"), entry({}, "t")
    (1, 2, None)
    """
    wanted = key(task)
    return next((value for name, value in section.items() if fnmatchcase(wanted, key(name))), None)
