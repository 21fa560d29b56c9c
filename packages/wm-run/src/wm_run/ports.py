"""Nested tensors <-> tensors with names, in one order: what an exported step takes and gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor


def named(name: str, tree: Any) -> dict[str, Tensor]:
    """The tensors of nested dicts, by their keys on the way: {"carry.backbone.tokens": ...}. None has no tensor.

    >>> import torch
    >>> list(named("carry", {"stoch": torch.zeros(1), "backbone": {"count": torch.zeros(1)}, "hidden": None}))
    ['carry.stoch', 'carry.backbone.count']
    """
    if tree is None:
        return {}
    if isinstance(tree, Tensor):
        return {name: tree}
    if not isinstance(tree, Mapping):
        raise TypeError(f"{name} is a {type(tree).__name__}, not tensors in dicts")
    return {key: value for part, inner in tree.items() for key, value in named(f"{name}.{part}", inner).items()}


def nested(like: Any, tensors: Iterator[Tensor]) -> Any:
    """The next tensors in the dicts of another tree.

    >>> import torch
    >>> nested({"a": torch.zeros(1), "b": {"c": torch.zeros(1)}}, iter([torch.ones(1), torch.ones(2)]))
    {'a': tensor([1.]), 'b': {'c': tensor([1., 1.])}}
    """
    if like is None:
        return None
    if isinstance(like, Tensor):
        return next(tensors)
    return {part: nested(inner, tensors) for part, inner in like.items()}
