"""A name -> the lines that define it: what a page shows beside an equation is cut out of the code as the site is built.

A name that is gone, and a text that no longer stands once in its lines, stop the build.
"""

from __future__ import annotations

import ast
import functools
import pathlib
import textwrap

from book.places import ROOT

Definition = ast.ClassDef | ast.FunctionDef


class Gone(Exception):
    """What a page wants to show is not in the code; the message is a sentence."""


@functools.cache
def home(module: str) -> pathlib.Path:
    """The file of a module of ours. Raises Gone where there is none."""
    stem = module.replace(".", "/")
    for at in (*ROOT.glob("packages/*/src"), *ROOT.glob("apps/*/src")):
        for file in (at / f"{stem}.py", at / stem / "__init__.py"):
            if file.is_file():
                return file
    raise Gone(f"there is no module {module}")


@functools.cache
def tree(file: pathlib.Path) -> ast.Module:
    return ast.parse(file.read_text())


def found(name: str) -> tuple[pathlib.Path, Definition]:
    """The file and the definition of a dotted name, such as wm_core.kl.BalancedKL.__call__. Raises Gone."""
    words = name.split(".")
    for cut in range(len(words) - 1, 0, -1):
        try:
            file = home(".".join(words[:cut]))
        except Gone:
            continue
        node: ast.Module | Definition = tree(file)
        for word in words[cut:]:
            inside = [one for one in node.body if isinstance(one, Definition) and one.name == word]
            if not inside:
                raise Gone(f"{name}: {file.name} defines no {word} there")
            node = inside[-1]
        assert not isinstance(node, ast.Module)
        return file, node
    raise Gone(f"{name} is in no module of ours")


def lines(name: str, start: str = "", end: str = "") -> str:
    """The definition without its docstring; with `start` the part from the line that holds it, to the first that holds
    `end` (the same line where there is no `end`). Raises Gone where `start` does not stand in exactly one line.

    >>> print(lines("wm_core.returns.lambda_return", start="base =", end="return"))
    base = torch.addcmul(reward[:, 1:], cont[:, 1:], value[:, 1:], value=1 - lam)
    return accumulate(base, lam * cont[:, 1:], value[:, -1:])
    """
    file, node = found(name)
    whole = file.read_text().split("\n")
    first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
    docstring = node.body[0]
    skipped: range | tuple[()] = ()
    if (
        isinstance(docstring, ast.Expr)
        and isinstance(docstring.value, ast.Constant)
        and isinstance(docstring.value.value, str)
    ):
        skipped = range(docstring.lineno, (docstring.end_lineno or docstring.lineno) + 1)
    kept = [whole[at - 1] for at in range(first, (node.end_lineno or first) + 1) if at not in skipped]
    if start:
        at = [number for number, line in enumerate(kept) if start in line]
        if len(at) != 1:
            raise Gone(f"{name}: {start!r} stands in {len(at)} of its lines, not in one")
        to = next((number for number in range(at[0], len(kept)) if end in kept[number]), None) if end else at[0]
        if to is None:
            raise Gone(f"{name}: {end!r} does not stand after {start!r}")
        kept = kept[at[0] : to + 1]
    return textwrap.dedent("\n".join(kept)).strip("\n")
