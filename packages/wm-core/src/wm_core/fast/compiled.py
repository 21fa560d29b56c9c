"""Networks -> the same networks compiled by torch: where they are called, whether as a module or by another method.

`nn.Module.compile` reaches what is called as `module(...)` alone. Heads are called by `from_features`, and a step of a dream
is the dynamics' `imagine`: what is compiled is therefore a module and the name of a method.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn

from wm_core import draws

Part = tuple[nn.Module, str]  # a module, and its method that is compiled


def compile_parts(parts: Iterable[Part], backend: Any = "inductor") -> None:
    """Have torch compile each method, when it is first called; names of weights stay, and what torch cannot compile stays
    as it is. With torch's own backend that takes minutes.
    """
    import torch._dynamo  # slow to import, and not needed elsewhere

    torch._dynamo.config.suppress_errors = True  # noqa: SLF001 - documented by that name
    # a list that grows shorter at every draw would be traced anew each time
    for name in ("uniform", "normal", "exponential"):
        drawn = getattr(draws, name)
        if not getattr(drawn, "_torchdynamo_disable", False):
            setattr(draws, name, torch.compiler.disable(drawn))
    for part, method in parts:
        if method == "forward":
            part.compile(dynamic=False, backend=backend)
        else:
            setattr(part, method, torch.compile(getattr(part, method), dynamic=False, backend=backend))


def of_head(head: nn.Module) -> list[Part]:
    """Where a head computes: in what its `parts()` names, if it has that; else its other callers and `forward` meet in
    `from_features`, if it has that."""
    named: Any = getattr(head, "parts", None)
    if named is not None:
        return list(named())
    return [(head, "from_features" if hasattr(head, "from_features") else "forward")]


def of_dynamics(dynamics: nn.Module) -> Iterator[Part]:
    """A step of a dream, and every network that runs over all steps of a row at once.

    The loop over a row's steps is not among them: its gradient is written out, and traced it would be hundreds of steps long.
    """
    yield dynamics, "imagine"
    yield from ((part, "forward") for part in _called(dynamics))


def _called(module: nn.Module) -> Iterator[nn.Module]:
    """The outermost networks inside that say what calling them does."""
    for child in module.children():
        if type(child).forward is nn.Module.forward:
            yield from _called(child)
        elif any(True for _ in child.parameters()):
            yield child
