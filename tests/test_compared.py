"""docs/compared.md: what it names as evidence exists, what is not there has a reason, and its sums are those of its cells."""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib
import io
import pathlib
import re
import shlex
import sys
from collections import Counter

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "compared.md"
SUM = re.compile(r"^\*\*WB: (\d+) Y, (\d+) p, (\d+) -\.\*\*$", re.MULTILINE)


def tables(text: str) -> list[list[dict[str, str]]]:
    """The rows of every table whose head names WB, by column."""
    found: list[list[dict[str, str]]] = []
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        head, _, *rows = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in block.splitlines()]
        if "WB" in head:
            assert all(len(row) == len(head) for row in rows), [row for row in rows if len(row) != len(head)]
            found.append([dict(zip(head, row, strict=True)) for row in rows])
    return found


TABLES = tables(PAGE.read_text())
ROWS = [row for table in TABLES for row in table]
EVIDENCE = sorted({(row["row"], name) for row in ROWS for name in re.findall("`([^`]+)`", [*row.values()][-1])})


@functools.cache
def names_in(file: pathlib.Path) -> frozenset[str]:
    return frozenset(node.name for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.FunctionDef))


@functools.cache
def help_of(app: str, verb: str) -> str:
    """What a command of an app says of itself."""
    module = importlib.import_module(f"{app}.cli")
    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.suppress(SystemExit):
        importlib.import_module("wm_run.cli").main(module.APP, [verb, "--help"])
    return told.getvalue()


def lacking(name: str) -> str:
    """What is not there of something that is named; "" where all of it is."""
    words = shlex.split(name)
    if name.startswith("uv run "):
        return of_command(words[2:])
    if name.startswith("nox -s "):
        return "" if re.search(rf"^def {words[2]}\(", (ROOT / "noxfile.py").read_text(), re.MULTILINE) else "no session"
    if name.startswith("load("):
        return "" if hasattr(importlib.import_module("wm_run.loading"), "load") else "no such function"
    if found := re.fullmatch(r"([\w-]+)\[(\w+)\]", name):
        project = (ROOT / "packages" / found[1] / "pyproject.toml").read_text()
        return "" if re.search(rf"^{found[2]} = ", project, re.MULTILINE) else "no extra"
    file, _, test = name.partition("::")
    if (ROOT / file).exists():
        return "" if not test or test in names_in(ROOT / file) else "no such test"
    module, _, attribute = name.rpartition(".")
    return "" if "/" not in name and module and hasattr(importlib.import_module(module), attribute) else "no such file"


def of_command(words: list[str]) -> str:
    program, *rest = words
    if program.startswith("apps/"):
        told = help_of(program.removeprefix("apps/"), rest[0])
        options = [word for word in rest[1:] if word.startswith("--")]
        return "" if told and all(re.search(rf"{option}(?![\w-])", told) for option in options) else "no such option"
    if program == "-m":
        starting = pathlib.Path(str(importlib.import_module(rest[0]).__file__)).with_name("__main__.py").read_text()
        return "" if f'add_parser("{rest[1]}"' in starting else "no such verb"
    if program == "wm-run":
        return "" if rest[0] in importlib.import_module("wm_run.command").VERBS else "no such verb"
    return "" if (ROOT / program).is_file() else "no such tool"


def test_there_are_both_tables_with_all_their_rows() -> None:
    assert [len(table) for table in TABLES] == [28, 13]
    assert all(len({row["row"] for row in table}) == len(table) for table in TABLES)


@pytest.mark.parametrize(("row", "name"), EVIDENCE)
def test_what_is_named_is_there(row: str, name: str) -> None:
    assert lacking(name) == ""


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["row"])
def test_a_yes_names_what_shows_it_and_anything_else_says_why(row: dict[str, str]) -> None:
    cells = [*row.values()]
    assert {*cells[1:-2]} <= {"Y", "p", "-"} and row["WB"] in ("**Y**", "p", "-")
    assert re.search("`[^`]+`", cells[-1]) if row["WB"] == "**Y**" else len(cells[-1].split()) > 7


def test_the_sums_are_those_of_the_cells() -> None:
    told = [tuple(map(int, found)) for found in SUM.findall(PAGE.read_text())]
    counts = [Counter(row["WB"].strip("*") for row in table) for table in TABLES]
    assert told == [(one["Y"], one["p"], one["-"]) for one in counts]


@pytest.mark.parametrize(
    "name",
    [
        "docs/results/nothing.md",
        "tests/test_survival.py::test_nothing",
        "uv run apps/dreamer train --no_such_field",
        "uv run apps/dreamer fly",
        "uv run tools/nothing.py",
        "uv run wm-run fly",
        "uv run -m env_adapters fly",
        "nox -s nothing",
        "wm-run[nothing]",
        "wm_run.nothing",
    ],
)
def test_what_is_not_there_is_noticed(name: str) -> None:
    assert lacking(name)


def test_no_row_is_of_files_that_git_does_not_have() -> None:
    sys.path.insert(0, str(ROOT / "tests"))
    from test_tracked import tracked

    have = {*tracked()}
    files = {name.partition("::")[0] for _, name in EVIDENCE if (ROOT / name.partition("::")[0]).is_file()}
    assert files <= have, files - have
