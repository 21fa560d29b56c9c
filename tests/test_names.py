"""Names are the field's: words that say nothing to who comes from the papers are no names of ours, not even of a variable."""

from __future__ import annotations

import ast
import pathlib
import re
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parents[1]
SOURCES = ("packages/*/src/**/*.py", "apps/*/src/**/*.py", "tools/**/*.py")
DIALECT = re.compile(r"(^|_)(turns?|told|seer|spent|worth)(_|$)", re.IGNORECASE)
# `told` is what an environment tells of its state beside its observations; recordings have it in their keys, told/NAME.
TELLS = re.compile(r"^packages/env-adapters/src/")  # a method or a field of this name
PROBES = re.compile(r"^packages/wm-run/src/wm_run/microscope/")  # and variables that hold it


def named(tree: ast.Module) -> Iterator[tuple[str, int, bool]]:
    """The names that a module gives, with their lines, and whether they are of a class, a function or a field."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node.lineno, True
        if isinstance(node, ast.ClassDef):
            fields = [one.target for one in node.body if isinstance(one, ast.AnnAssign)]
            yield from ((one.id, one.lineno, True) for one in fields if isinstance(one, ast.Name))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno, True
        if isinstance(node, ast.arg):
            yield node.arg, node.lineno, False
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno, False


def fact(name: str, where: str, *, given: bool) -> bool:
    """Whether a name stands for what an environment tells of its state."""
    return name == "told" and bool(PROBES.search(where) or (given and TELLS.search(where)))


def odd(text: str, where: str = "") -> list[str]:
    """Those that are no names of ours, or hide a builtin that evaluates text."""
    tree = ast.parse(text)
    names = set(named(tree))
    given = {(name, at) for name, at, others in names if others}
    found = {(name, at) for name, at, _ in names if DIALECT.search(name)}
    found = {(name, at) for name, at in found if not fact(name, where, given=(name, at) in given)}
    found |= {(one.name, one.lineno) for one in tree.body if getattr(one, "name", "") == "eval"}
    return [f"{at}: {name}" for name, at in sorted(found, key=lambda one: one[::-1])]


def test_names_are_the_fields() -> None:
    found = []
    for file in sorted(file for pattern in SOURCES for file in ROOT.glob(pattern)):
        where = file.relative_to(ROOT).as_posix()
        found += [f"{where}:{one}" for one in odd(file.read_text(), where)]
    assert not found, "\n".join(found)


def test_a_name_of_our_own_is_noticed() -> None:
    text = "class Spent:\n  worth: int\n  def turn(self, told, _told): self.turns = told_last = 1\ndef eval(): ...\n"
    names = ["1: Spent", "2: worth", "3: turn", "3: turns", "3: told", "3: _told", "3: told_last", "4: eval"]
    assert sorted(odd(text)) == sorted(names)
    assert odd("f = lambda *told: 1\nfor turn, _ in (): ...\nTOLD = 1") == ["1: told", "2: turn", "3: TOLD"]
    assert not odd("returns, worthy, foretold = 1, 2, 3")


def test_what_an_environment_tells_keeps_its_name() -> None:
    toys, probe = "packages/env-adapters/src/env_adapters/toys.py", "packages/wm-run/src/wm_run/microscope/probe.py"
    method, field, local = "def told(): ...", "class Taken:\n  told: int", "def fit(told): told = 1"
    assert not odd(method, toys) and not odd(field, toys) and odd(local, toys)
    assert not odd(local, probe) and odd("told_last = 1", probe)
    assert odd(method) and odd(field) and odd(local)
