"""Names are the field's: words that say nothing to who comes from the papers are no names of ours.

In the code that learns no variable has them, elsewhere nothing that is named for others: class, function, field, parameter.
"""

from __future__ import annotations

import ast
import pathlib
import re
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parents[1]
LEARN = ["wm-core", "wm-marl", "wm-memory", "wm-ssm", "wm-tssm", "wm-var"]
DIALECT = re.compile(r"(^|_)(turns?|told|seer|spent|worth)(_|$)", re.IGNORECASE)
# What an environment tells of its state beside its observations; recordings have it in their keys, told/NAME.
FACTS = re.compile(r"^packages/(env-adapters/src|wm-run/src/wm_run/microscope)/")  # `told` there


def named(text: str, *, inside: bool) -> Iterator[tuple[str, int]]:
    """The names that a module gives, with their lines: those for others; with `inside` all of them."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node.name, node.lineno
        if isinstance(node, ast.FunctionDef) and (inside or node.name[0] != "_"):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            yield from ((argument.arg, argument.lineno) for argument in arguments)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id, node.lineno
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno
        if inside and isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno


def odd(text: str, *, inside: bool, where: str = "") -> list[str]:
    """Those that are no names of ours, or hide a builtin that evaluates text."""
    found = [(name, at) for name, at in dict.fromkeys(named(text, inside=inside)) if inside or name[0] != "_"]
    fact = {"told"} if FACTS.search(where) else set[str]()
    found = [(name, at) for name, at in found if DIALECT.search(name) and name not in fact]
    top = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    return [f"{at}: {name}" for name, at in [*found, *((one.name, one.lineno) for one in top if one.name == "eval")]]


def test_names_are_the_fields() -> None:
    found = []
    for file in sorted([*ROOT.glob("packages/*/src/**/*.py"), *ROOT.glob("apps/*/src/**/*.py")]):
        where = file.relative_to(ROOT)
        learns = where.parts[0] == "apps" or where.parts[1] in LEARN
        found += [f"{where}:{one}" for one in odd(file.read_text(), inside=learns, where=where.as_posix())]
    assert not found, "\n".join(found)


def test_a_name_of_our_own_is_noticed() -> None:
    text = "class Spent:\n  worth: int\n  def turn(self, told, _told): self.turns = told_last = 1\ndef eval(): ...\n"
    names = ["1: Spent", "2: worth", "3: turn", "3: turns", "3: told", "4: eval"]
    assert sorted(odd(text, inside=False)) == sorted(names)
    assert sorted(odd(text, inside=True)) == sorted([*names, "3: _told", "3: told_last"])
    assert "3: told" not in odd(text, inside=False, where="packages/env-adapters/src/env_adapters/toys.py")
    assert not odd("returns, worthy, foretold = 1, 2, 3", inside=True)
