"""A contract says all that who fulfils it need not say again: of each method what it does, and the shapes it takes and gives.

Contracts are the protocols and abstract classes of packages and apps. A class fulfils one if it derives from it, names it in
its docstring (`Dynamics`), or has all that it asks for. What it does not describe itself it points at the contract for.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence

from torch import nn

ROOT = pathlib.Path(__file__).resolve().parents[1]
SOURCES = sorted([*ROOT.glob("packages/*/src/**/*.py"), *ROOT.glob("apps/*/src/**/*.py")])
ARRAYS = re.compile(r"\b(Tensor|NDArray)\b")
SIZE = r"(?:\.\.\.|[\w*+/ -]{1,12})"
SHAPE = re.compile(rf"\({SIZE}(, {SIZE})+\)|\((\.\.\.|\w),?\)|\b0-d\b")  # (B, T), (...), (n,), 0-d


@dataclasses.dataclass(frozen=True)
class Class:
    """A class of the sources, with what it has by itself."""

    name: str
    where: str
    node: ast.ClassDef

    @functools.cached_property
    def bases(self) -> list[str]:
        named = [base.value if isinstance(base, ast.Subscript) else base for base in self.node.bases]
        return [ast.unparse(base).rpartition(".")[2] for base in named]

    @functools.cached_property
    def says(self) -> str:
        return ast.get_docstring(self.node) or ""

    @functools.cached_property
    def methods(self) -> dict[str, ast.FunctionDef]:
        """The public ones; `forward` is how a module is called."""
        own = {item.name: item for item in self.node.body if isinstance(item, ast.FunctionDef)}
        called = own.get("__call__")
        if "forward" in own and (called is None or ast.get_docstring(called) is None):
            own["__call__"] = own["forward"]
        own.pop("forward", None)
        return {name: item for name, item in own.items() if name == "__call__" or name[0] != "_"}

    @functools.cached_property
    def fields(self) -> set[str]:
        """What is declared in its body, and what its methods set on it."""
        found = [item.target for item in self.node.body if isinstance(item, ast.AnnAssign)]
        found += [name for item in self.node.body if isinstance(item, ast.Assign) for name in item.targets]
        inside = [item for item in ast.walk(self.node) if isinstance(item, ast.Attribute)]
        found += [item for item in inside if isinstance(item.ctx, ast.Store) and ast.unparse(item.value) == "self"]
        return {ast.unparse(name).removeprefix("self.") for name in found}


Classes = Mapping[str, Sequence[Class]]


def classes_of(texts: Mapping[str, str]) -> dict[str, list[Class]]:
    """By name: the classes at the top of some modules."""
    found: dict[str, list[Class]] = {}
    for where, text in texts.items():
        for node in ast.parse(text).body:
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, []).append(Class(node.name, where, node))
    return found


def line(one: Class, classes: Classes) -> list[Class]:
    """A class and what it derives from, of ours."""
    found = [one]
    for base in one.bases:
        others = classes.get(base, [])
        near = [other for other in others if other.where == one.where] or others
        found += line(near[0], classes) if near and near[0] is not one else []
    return found


def is_contract(one: Class) -> bool:
    return bool({"Protocol", "ABC"} & {*one.bases})


def arguments(method: ast.FunctionDef) -> list[str]:
    return [argument.arg for argument in [*method.args.posonlyargs, *method.args.args][1:]]


def names(one: Class, contract: Class, classes: Classes) -> bool:
    """Whether its docstring, or that of what it derives from, has a contract's name: in backticks, or as what it is."""
    called = rf"`([\w.]+\.)?{contract.name}`|\b[Aa]n? {contract.name}\b"
    return any(re.search(called, part.says) for part in line(one, classes))


def fulfils(one: Class, contract: Class, classes: Classes) -> bool:
    """Whether it derives from a contract, or has all its parts: of a call, with the same arguments, or the contract's name
    beside it."""
    ours, theirs = line(one, classes), line(contract, classes)
    if contract in ours or "ABC" in contract.bases:
        return contract in ours
    methods = {name: method for part in reversed(ours) for name, method in part.methods.items()}
    asked = {name: method for part in theirs for name, method in part.methods.items()}
    parts = {name for part in theirs for name in part.fields} | asked.keys()
    has = {name for part in ours for name in part.fields} | methods.keys()
    if not (parts <= has and asked.keys() & methods.keys()):
        return False
    alike = "__call__" not in asked or arguments(methods["__call__"]) == arguments(asked["__call__"])
    return alike or names(one, contract, classes)


def takes_arrays(method: ast.FunctionDef) -> bool:
    of = [argument.annotation for argument in [*method.args.posonlyargs, *method.args.args, *method.args.kwonlyargs]]
    return any(ARRAYS.search(ast.unparse(annotation)) for annotation in [*of, method.returns] if annotation is not None)


def fault(method: ast.FunctionDef, text: str | None) -> str:
    """What a text leaves out of a method, or nothing."""
    if not text:
        return "says nothing"
    return "gives no shape" if takes_arrays(method) and not SHAPE.search(text) else ""


def of_contracts(classes: Classes) -> Iterator[str]:
    """What contracts leave unsaid. One that is a call alone may say it of itself."""
    for one in (one for several in classes.values() for one in several if is_contract(one)):
        for name, method in one.methods.items():
            text = ast.get_docstring(method) or (one.says if [*one.methods] == ["__call__"] else "")
            if wrong := fault(method, text):
                yield f"{one.where}: {one.name}.{name} {wrong}"


def of_classes(classes: Classes) -> Iterator[str]:
    """What those who fulfil contracts leave unsaid, and point at no contract for. What a base says holds for its heirs."""
    contracts = [one for several in classes.values() for one in several if is_contract(one)]
    for one in (one for several in classes.values() for one in several if not is_contract(one) and one.name[0] != "_"):
        kept = [contract for contract in contracts if fulfils(one, contract, classes)]
        bases = line(one, classes)[1:]
        pointed = [part for contract in kept if names(one, contract, classes) for part in line(contract, classes)]
        said = {
            name for part in [*bases, *pointed] for name, method in part.methods.items() if ast.get_docstring(method)
        }
        said |= {name for part in bases for name in one.methods if f"`{name}(" in part.says} | {*dir(nn.Module)} - {
            "__call__"
        }
        for name, method in one.methods.items() if kept else ():
            text = ast.get_docstring(method) or (one.says if name == "__call__" else "")
            if name not in said and (wrong := fault(method, text)):
                yield f"{one.where}: {one.name}.{name} {wrong}; it fulfils {', '.join(each.name for each in kept)}"


@functools.cache
def ours() -> Classes:
    return classes_of({str(file.relative_to(ROOT)): file.read_text() for file in SOURCES})


def test_contracts_say_what_they_ask_for() -> None:
    found = [*of_contracts(ours())]
    assert not found, "\n".join(found)


def test_who_fulfils_a_contract_points_at_it_or_says_all() -> None:
    found = [*of_classes(ours())]
    assert not found, "\n".join(found)


CONTRACT = '''
class Sees(Protocol):
    """Pictures -> what is seen."""

    width: int

    def __call__(self, steps: Steps) -> Tensor: ...

    def forget(self, rows: Tensor) -> None:
        """Nothing of these rows (B,)."""


class Learns(nn.Module, ABC):
    """Subclasses write `learn(replay)`."""

    def state(self) -> dict[str, Any]: ...
'''
FULFILS = '''
class Eye(nn.Module):
    """Sees."""

    width: int = 3

    def forward(self, steps: Steps) -> Tensor:
        return self.look(steps)

    def look(self, steps: Tensor) -> Tensor:
        """At all of them."""

    def forget(self, rows: Tensor) -> None: ...


class Pupil(Learns):
    def learn(self, replay: Replay) -> None: ...

    def ask(self) -> None: ...
'''


def test_a_contract_that_says_too_little_is_noticed() -> None:
    found = [*of_contracts(classes_of({"a.py": CONTRACT}))]
    assert found == ["a.py: Sees.__call__ says nothing", "a.py: Learns.state says nothing"]
    said = CONTRACT.replace("-> Tensor: ...", '-> Tensor: "(B, E)."').replace("Any]: ...", 'Any]: "All of it."')
    assert not [*of_contracts(classes_of({"a.py": said}))]
    assert [*of_contracts(classes_of({"a.py": said.replace("(B,)", "")}))] == ["a.py: Sees.forget gives no shape"]


def test_who_says_nothing_and_points_nowhere_is_noticed() -> None:
    def found(text: str) -> set[str]:
        return {one[6:].partition(";")[0] for one in of_classes(classes_of({"a.py": CONTRACT, "b.py": text}))}

    unsaid = {"Eye.__call__ gives no shape", "Pupil.ask says nothing"}  # the contract leaves the first unsaid too
    assert found(FULFILS) == unsaid | {"Eye.look gives no shape", "Eye.forget says nothing"}
    pointing = FULFILS.replace('"""Sees."""', '"""A `Sees`."""').replace("of them.", "of them (B, T).")
    assert found(pointing) == unsaid
    assert found(pointing.replace("A `Sees`.", "A `Sees` of (B, E).")) == {"Pupil.ask says nothing"}
    assert found(FULFILS.replace("width", "depth")) == {"Pupil.ask says nothing"}  # no longer one that sees
