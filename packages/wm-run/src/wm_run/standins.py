"""modules -> the same tree in which what no other runtime can run has its stand-in.

A module that has one gives it: `exportable()` is the module as it is now, of the same call for steps (B, 1), with a carry of
tensors that never change their sizes and no complex numbers. wm-ssm's S5, wm-tssm's transformer and STORM's dynamics do.
"""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import nn

Kind = TypeVar("Kind", bound=nn.Module)


def exportable(module: Kind) -> Kind:
    """The tree with every stand-in in its place; weights are shared, and the module itself stays as it is.

    >>> class Half(nn.Linear):
    ...     def exportable(self):
    ...         return nn.Linear(2, 1)
    >>> whole = nn.Sequential(Half(2, 1), nn.ReLU())
    >>> [type(part).__name__ for part in exportable(whole)], type(whole[0]).__name__
    (['Linear', 'ReLU'], 'Half')
    """
    make = getattr(module, "exportable", None)
    twin: Kind = make() if callable(make) else copy.copy(module)
    parts = {name: None if part is None else exportable(part) for name, part in twin._modules.items()}  # noqa: SLF001
    twin._modules = parts  # noqa: SLF001 - of the copy alone: named modules cannot be set without its parent's
    return twin.eval()
