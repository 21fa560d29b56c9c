"""What a number of a config may be, said where the field is: `deter: Count = 2048`, `lam: Rate = 0.95`.

A field without bounds is a finite number of at least 0.
"""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from wm_core.errors import UserError


@dataclass(frozen=True)
class Bounds:
    """Metadata of a field's type: the least and the most it may be, what it must lie above and below, and what to say of
    a value that breaks one, after "`field` ".

    >>> Bounds(least=1).refusal(0), Bounds(least=1).refusal(1)
    ('must be at least 1, not 0', '')
    """

    least: float = 0
    most: float = math.inf
    above: float = -math.inf
    below: float = math.inf
    but: tuple[float, ...] = ()  # values within that are none all the same
    why: str = ""

    def refusal(self, value: float) -> str:
        """Why the value cannot be, or nothing."""
        if not value >= self.least:  # nan, too
            said = f"must be at least {_plain(self.least)}"
        elif not math.isfinite(value):
            return f"must be a finite number, not {value}"
        elif value > self.most:
            said = f"must be at most {_plain(self.most)}"
        elif value <= self.above:
            said = f"must be above {_plain(self.above)}"
        elif value >= self.below:
            said = f"must lie below {_plain(self.below)}"
        elif value in self.but:
            said = "is none of the values it may be"
        else:
            return ""
        return f"{self.why or said}, not {value}"


LARGEST = 2**53  # of whole numbers: beyond it sizes overflow, in one library or another
Count = Annotated[int, Bounds(least=1)]
Layers = Annotated[int, Bounds(least=1, most=1000, why="must lie in [1, 1000]: networks are made layer by layer")]
Horizon = Annotated[
    int, Bounds(least=1, most=10_000, why="must lie in [1, 10000]: a dream is made, and kept, step by step")
]
Norm = Annotated[
    float, Bounds(above=0, why="bounds gradients and must be above 0, or nothing is learned (1e9 bounds none)")
]
Share = Annotated[float, Bounds(below=1, why="is a share and must lie in [0, 1)")]
RowLength = Annotated[int, Bounds(least=2, why="must be at least 2: a row needs a step and one that follows it")]
LAST = Bounds(but=(1,), why="must be 0, for every step of a row, or at least 2")
LastSteps = Annotated[int, LAST]
Rate = Annotated[float, Bounds(most=1, why="is a share and must lie in [0, 1]")]


def check_bounds(config: Any) -> None:
    """Refuse a number of a dataclass that its field's bounds do not admit. Raises UserError naming the field.

    >>> @dataclass
    ... class Config:
    ...     deter: Count = 0
    >>> check_bounds(Config())
    Traceback (most recent call last):
    wm_core.errors.UserError: deter must be at least 1, not 0
    """
    for name, said in metadata(type(config)).items():
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        stated = next((one for one in said if isinstance(one, Bounds)), Bounds())
        if refusal := stated.refusal(value):
            raise UserError(f"{name} {refusal}")
        if isinstance(value, int) and value > LARGEST and stated.below == stated.most:  # no bound of its own above
            raise UserError(f"{name} must be at most {LARGEST:,}, not {value}")


def metadata(kind: type[Any]) -> dict[str, list[Any]]:
    """What is said in the types of a class's fields, by name; of a field that a subclass states anew, its own comes first and
    its parents' still holds: `envs: int = 8` is another default and not another field.

    >>> class Run:
    ...     envs: Count = 1
    >>> class Method(Run):
    ...     envs: int = 8
    >>> metadata(Method)
    {'envs': [Bounds(least=1, most=inf, above=-inf, below=inf, but=(), why='')]}
    """
    found: dict[str, list[Any]] = {name: [] for name in typing.get_type_hints(kind)}
    for one in kind.__mro__:
        hints = typing.get_type_hints(one, include_extras=True)
        for name in vars(one).get("__annotations__", ()):
            found[name] += _said(hints[name])
    return found


def _said(hint: Any) -> Iterator[Any]:
    """What is said in a type, also where it is one of several: `Count | None`."""
    yield from getattr(hint, "__metadata__", ())
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        for one in typing.get_args(hint):
            yield from _said(one)


def _plain(number: float) -> str:
    return f"{number:g}"
