"""Every name of an observation -> a place of its own, wherever names of several kinds meet.

A step holds observations beside its own words; a replay, also what acting noted of it; a batch of losses, one for each
observation beside those of heads, KL and behaviour; a module, its submodules beside its methods. Observations are named
by whoever wrote the environment, all the others by us, and none of these places may be decided by who is written last.

| where | an observation `x` | the others |
|---|---|---|
| steps, replay | `x` | the words of a step; `/deter`: notes |
| losses, scales | `obs/x` | `reward`, `dyn`, `policy`, ... |
| logs | `x`, or `obs/x` where another loss is called `x` | the same as of the losses |
| submodules | `x`, or an escape of it where torch refuses `x` | |

No observation is called like a word of a step or begins with "/": env-adapters shows such a one as `obs/x`, and
`observations.describe` refuses it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from torch import nn

WORDS = frozenset({"action", "reward", "first", "last", "terminal", "weight", "reset"})  # of every step of a batch
NOTE = "/"  # nested observations are joined by it, so that none begins with it
OBSERVATION = "obs/"
ESCAPE = "%"
V = TypeVar("V")


def noted(notes: Mapping[str, V]) -> dict[str, V]:
    """What acting noted of a step, as entries beside its observations.

    >>> noted({"deter": 1})
    {'/deter': 1}
    """
    return {NOTE + name: value for name, value in notes.items()}


def notes(entries: Mapping[str, V]) -> dict[str, V]:
    """The notes among entries, by the names that the dynamics gave them.

    >>> notes({"/deter": 1, "deter": 2})
    {'deter': 1}
    """
    return {name.removeprefix(NOTE): value for name, value in entries.items() if name.startswith(NOTE)}


def observed(losses: Mapping[str, V]) -> dict[str, V]:
    """Losses, or scales, of observations by names that no other loss has.

    >>> observed({"reward": 1})
    {'obs/reward': 1}
    """
    return {OBSERVATION + name: value for name, value in losses.items()}


def together(*kinds: Mapping[str, V]) -> dict[str, V]:
    """Things of several kinds as one dictionary. Raises KeyError where two have one name: none may hide another.

    >>> together({"a": 1}, {"b": 2})
    {'a': 1, 'b': 2}
    """
    found: dict[str, V] = {}
    for kind in kinds:
        if twice := found.keys() & kind.keys():
            raise KeyError(f"two things of one update are called {sorted(twice)}")
        found |= kind
    return found


def logged(losses: Iterable[str]) -> dict[str, str]:
    """Name of a loss -> its name in the logs, where an observation goes by its own unless another loss has it.

    >>> logged(["obs/image", "obs/value", "value"])
    {'obs/image': 'image', 'obs/value': 'obs/value', 'value': 'value'}
    """
    names = list(losses)
    taken = set(names)
    short = {name: name.removeprefix(OBSERVATION) for name in names}
    return {name: one if one not in taken else name for name, one in short.items()}


def module(name: str) -> str:
    """The name of a submodule: the name itself, or an escape of it where nn.ModuleDict refuses it.

    >>> module("image"), module("items"), module("a.b"), module("")
    ('image', '%items', '%a%2Eb', '%')
    """
    if name and "." not in name and not name.startswith(ESCAPE) and not hasattr(nn.ModuleDict(), name):
        return name
    return ESCAPE + name.replace("%", "%25").replace(".", "%2E")
