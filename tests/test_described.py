"""Who implements a contract of wm-core says every argument of its making, and none that there is not."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator

import pytest
from torch import nn
from wm_core import Backbone, Dynamics, JointBehaviour, OptimisingBehaviour

PACKAGES = ("wm_core", "wm_memory", "wm_ssm", "wm_tssm", "wm_var")


def classes() -> Iterator[type]:
    for package in PACKAGES:
        for found in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            module = importlib.import_module(found.name)
            for name, value in vars(module).items():
                if inspect.isclass(value) and value.__module__ == module.__name__ and not name.startswith("_"):
                    yield value


def methods(protocol: type) -> set[str]:
    """What a class of it defines itself; __call__ is every torch module's."""
    kinds = [kind for kind in protocol.__mro__ if getattr(kind, "_is_protocol", False)]
    return {name for kind in kinds for name, value in vars(kind).items() if inspect.isfunction(value)} - {
        "__call__",
        "__init__",
        "__subclasshook__",
        "_no_init_or_replace_init",
    }


def called(kind: type) -> list[str]:
    """The arguments of a module's call."""
    return list(inspect.signature(kind.forward).parameters)[1:] if hasattr(kind, "forward") else []


def contract(kind: type) -> str:
    """Which contract a class keeps, told by its methods and by its call: "" for none."""
    for protocol in (Dynamics, Backbone, JointBehaviour, OptimisingBehaviour):
        if all(hasattr(kind, name) for name in methods(protocol)):
            return protocol.__name__
    if called(kind) == ["posterior", "prior", "kl", "clock"]:
        return "Regulariser"
    returned = inspect.signature(kind.forward).return_annotation if called(kind) == ["steps"] else ""
    return "Encoder" if str(returned) == "dict[str, Tensor]" else ""


def described(docstring: str) -> list[str]:
    r"""The names under "Args:".

    >>> described("What it is.\n\nArgs:\n    one: 1,\n        or so.\n    two: 2.\n\nRaises:\n    Error: never.")
    ['one', 'two']
    """
    part = re.search(r"^Args:\n((?: {4}.*\n?)+)", docstring, re.MULTILINE)
    return re.findall(r"^ {4}(\w+): ", part.group(1), re.MULTILINE) if part else []


KINDS = {kind: found for kind in classes() if not getattr(kind, "_is_protocol", False) and (found := contract(kind))}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_it_says_its_contract_and_its_arguments(kind: type) -> None:
    if "__init__" not in vars(kind):
        return  # its parent's
    docstring = inspect.getdoc(kind) or ""
    assert KINDS[kind].lower().removeprefix("joint") in docstring.lower()
    assert described(docstring) == list(inspect.signature(kind).parameters)


def test_all_kinds_of_parts_are_found() -> None:
    assert {*KINDS.values()} == {"Dynamics", "Backbone", "Encoder", "JointBehaviour", "Regulariser"}
    assert {"RSSM", "FusedRSSM", "GRUBackbone", "S5Stack", "TransformerStack", "MultiEncoder", "ValueAlignment"} <= {
        kind.__name__ for kind in KINDS
    }


def test_an_argument_that_is_not_said_is_noticed() -> None:
    class Bare(nn.Module):
        """An Encoder.

        Args:
            width: E.
        """

        def __init__(self, width: int, depth: int) -> None:
            super().__init__()

    assert described(inspect.getdoc(Bare) or "") != list(inspect.signature(Bare).parameters)
