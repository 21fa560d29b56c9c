"""What is public stays so: a name that goes from a package, or comes, is in tests/public.json and its changelog.

`uv run tests/test_public.py --write` renews the record, once fragments say of every name what became of it.
"""

from __future__ import annotations

import ast
import importlib
import json
import pathlib
import re
import subprocess
import sys
import tokenize
import types
from collections.abc import Iterable, Mapping, Sequence

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
RECORD = ROOT / "tests" / "public.json"
PACKAGES = sorted(file.parent.name for file in ROOT.glob("packages/*/pyproject.toml"))
APPS = sorted(file.parent.name for file in ROOT.glob("apps/*/pyproject.toml"))
WRITE = "`uv run tests/test_public.py --write`"

of_package = pytest.mark.parametrize("package", PACKAGES)


def opened(package: str) -> types.ModuleType:
    return importlib.import_module(package.replace("-", "_"))


def fragments(package: str) -> str:
    """What the next changelog says was removed or changed."""
    found = [*ROOT.glob(f"packages/{package}/changes/*.removed*.md")]
    found += ROOT.glob(f"packages/{package}/changes/*.changed*.md")
    return "\n".join(file.read_text() for file in sorted(found))


def speaks_of(text: str, name: str) -> bool:
    """Whether a name is in backticks: `RSSM`, `wm_core.RSSM` and `RSSM(deter=8)` speak of RSSM."""
    return any(re.search(rf"\b{re.escape(name)}\b", code) for code in re.findall(r"`([^`\n]+)`", text))


def unsaid(package: str, recorded: Iterable[str], now: Iterable[str], text: str) -> list[str]:
    """A sentence on every name that has gone without a word."""
    return [
        f"{package} no longer has the public name {name}: say so, with the name in backticks, in "
        f"packages/{package}/changes/<issue>.removed.md (or .changed.md, if it has another name now)"
        for name in sorted({*recorded} - {*now})
        if not speaks_of(text, name)
    ]


def unrecorded(package: str, recorded: Iterable[str], now: Iterable[str]) -> list[str]:
    """A sentence on every name that the record lacks, or has still."""
    new, gone = sorted({*now} - {*recorded}), sorted({*recorded} - {*now})
    return [f"{package}: {name} is new in __all__; {WRITE} records it" for name in new] + [
        f"{package}: {name} has gone from __all__; {WRITE} takes it off the record" for name in gone
    ]


def record() -> dict[str, list[str]]:
    return json.loads(RECORD.read_text())


@of_package
def test_no_public_name_goes_without_a_word(package: str) -> None:
    found = unsaid(package, record().get(package, ()), opened(package).__all__, fragments(package))
    assert not found, "\n".join(found)


@of_package
def test_the_record_is_what_is_public(package: str) -> None:
    found = unrecorded(package, record().get(package, ()), opened(package).__all__)
    assert not found, "\n".join(found)


def test_the_record_speaks_of_packages_that_there_are() -> None:
    assert sorted(record()) == PACKAGES


def test_a_name_that_went_is_noticed_until_a_fragment_says_so() -> None:
    was, now = ["Latent", "Trace"], ["Trace"]
    assert "the public name Latent:" in unsaid("wm-core", was, now, "Latent has gone; so has `LatentState`.")[0]
    for text in ("`Latent` has gone.", "`wm_core.Latent` is `State`.", "`Latent(deter, stoch)` has gone."):
        assert not unsaid("wm-core", was, now, text)
    assert "--write" in unrecorded("wm-core", was, now)[0] and "--write" in unrecorded("wm-core", now, was)[0]


def homes(package: str) -> dict[str, tuple[str, str]]:
    """Public name -> the module it is defined in and its name there, as the package's imports have it for a type checker."""
    file = opened(package).__file__
    assert file is not None
    found = {}
    for node in ast.walk(ast.parse(pathlib.Path(file).read_text())):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            found |= {alias.asname or alias.name: (node.module, alias.name) for alias in node.names}
    return {name: found[name] for name in opened(package).__all__}


def comments(source: str) -> set[int]:
    """The lines that end with a comment, or hold one."""
    lines = iter(source.splitlines(keepends=True))
    return {
        token.start[0] for token in tokenize.generate_tokens(lambda: next(lines, "")) if token.type == tokenize.COMMENT
    }


def described(source: str, name: str) -> bool:
    """Whether a class or function has a docstring, an alias of a type a comment. What Python gives a dataclass, or an
    alias has of its type, is no description."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return ast.get_docstring(node) is not None
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return node.lineno in comments(source)
    raise AssertionError(f"no definition of {name} at the top of its module")


@of_package
def test_every_public_name_is_what_the_imports_say_and_is_described(package: str) -> None:
    bare = []
    for name, (home, there) in homes(package).items():
        module = importlib.import_module(home)
        assert getattr(opened(package), name) is getattr(module, there), f"{package}: {name} is not {home}.{there}"
        assert module.__file__ is not None
        if not described(pathlib.Path(module.__file__).read_text(), there):
            bare.append(f"{home}.{there}")
    assert not bare, f"no docstring, or of an alias no comment: {', '.join(bare)}"


def test_what_is_not_described_is_noticed() -> None:
    source = (
        '@dataclass\nclass Bare:\n    x: int\n\n\nclass Told:\n    """Yes."""\n\n\nSteps = dict\nNotes = dict  # kept\n'
    )
    assert [name for name in ("Bare", "Told", "Steps", "Notes") if described(source, name)] == ["Told", "Notes"]


@of_package
def test_no_other_name_is_found(package: str) -> None:
    module = opened(package)
    assert not hasattr(module, "Nonsense")
    assert {*module.__all__} <= {*dir(module)} and len({*module.__all__}) == len(module.__all__)


def test_a_command_line_and_the_names_it_needs_import_no_torch() -> None:
    lines = [f"import {app}.cli" for app in APPS]
    lines += ["from wm_core import UserError", "from wm_run import App, RunConfig, Tasks, now"]
    lines += ["import sys", "print([name for name in ('torch', 'gymnasium') if name in sys.modules])"]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"


def write(packages: Sequence[str] = PACKAGES) -> str:
    """Renew the record; gives what keeps it from that, a name that has gone without a word, or nothing."""
    recorded: Mapping[str, Sequence[str]] = record() if RECORD.exists() else {}
    now = {package: list(opened(package).__all__) for package in packages}
    found = [line for name in now for line in unsaid(name, recorded.get(name, ()), now[name], fragments(name))]
    if not found:
        RECORD.write_text(json.dumps(now, indent=2) + "\n")
    return "\n".join(found)


if __name__ == "__main__":
    sys.exit((write() or None) if sys.argv[1:] == ["--write"] else f"to renew the record: {WRITE}")
