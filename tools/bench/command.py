"""What a command of this folder is: how it measures, and how its rows are shown."""

from __future__ import annotations

import importlib.util
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.rows import Picture, Row

FOLDER = [sys.executable, __file__.rpartition("/")[0]]  # `python tools/bench`, as words of a command line


@dataclass(frozen=True)
class Command:
    """measure(args, words) -> rows; words are what the command line holds besides the tool's own options.

    columns: of its table. options(parser) adds its own. app: the words are options of an app, which --app names; else
    there are none, or it parses them itself (`others`). rounds, warmup: where they are not given. key: the names of which a row's place in --out is made.
    after(rows): what to say below the table.
    """

    measure: Callable[[Namespace, list[str]], Iterable[Row]]
    columns: Mapping[str, str]
    options: Callable[[ArgumentParser], object] = lambda parser: None
    app: bool = True
    others: bool = False
    rounds: int = 3
    warmup: int = 1
    key: tuple[str, ...] = ()
    picture: Picture | None = None
    after: Callable[[Sequence[Row]], str] = lambda rows: ""


def add(parser: ArgumentParser, **defaults: Any) -> None:
    """Options by their defaults: several values where the default is a list."""
    for name, value in defaults.items():
        many: dict[str, Any] = {"nargs": "+"} if isinstance(value, list) else {}
        first, *rest = value if many else [value]
        words = " ".join(map(str, [first, *rest]))
        parser.add_argument(f"--{name}", type=type(first), default=value, help=f"default {words}", **many)


def say(words: str) -> None:
    """On the way, for people."""
    print(words, file=sys.stderr, flush=True)


def missing(module: str) -> bool:
    """Whether a module, or the package that it is in, cannot be imported."""
    try:
        return importlib.util.find_spec(module) is None
    except ModuleNotFoundError:
        return True


def words_of(name: str, value: Any) -> list[str]:
    """An option as words, none where it was not given.

    >>> words_of("envs", [1, 4]), words_of("steps", None)
    (['--envs', '1', '4'], [])
    """
    if value is None:
        return []
    return [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
