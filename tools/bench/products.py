"""What an update cannot do without: its matrix products and convolutions, replayed alone, and what this CPU can do.

A `Products` sees the products of a real update with their shapes, strides and number types; `Replayed` makes the same
calls again in the same order with random tensors, so that nothing but the products is left. Inputs of one shape are one
tensor, which the cache may hold: the floor is low rather than high.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._pytree import tree_map, tree_map_with_path  # noqa: PLC2701 - torch's own, and it has no other door

from bench.calls import Calls
from bench.clock import cost


class Shape(NamedTuple):
    """All of a tensor but its numbers."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype


class Product(NamedTuple):
    """One call: what was called, its arguments with a Shape for every tensor, its FLOPs, and whose it was."""

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    flops: int
    part: Any


class Products(Calls):
    """Records every call that torch's FLOP counter knows: products, convolutions and attention, forward and backward.

    >>> with Products() as seen:
    ...     _ = torch.ones(2, 3) @ torch.ones(3, 4) + 1
    >>> [(str(one.func), one.flops) for one in seen.calls], seen.computing
    ([('aten.mm.default', 48)], 4)
    """

    def __init__(self, part: Callable[[], Any] = lambda: None) -> None:
        super().__init__()
        self.calls: list[Product] = []
        self.part = part

    def product(self, func: Any, args: Any, kwargs: Mapping[str, Any], flops: int) -> None:
        """Keep it."""
        super().product(func, args, kwargs, flops)
        self.calls.append(Product(func, shapes(args), shapes(kwargs), flops, self.part()))


def shapes(values: Any) -> Any:
    """The same nest with a Shape for every tensor; one that is packed for products stays, for it has no strides."""

    def one(leaf: Any) -> Any:
        plain = isinstance(leaf, Tensor) and not leaf.is_mkldnn
        return Shape(tuple(leaf.shape), leaf.stride(), leaf.dtype) if plain else leaf

    return tree_map(one, values)


class Replayed:
    """The calls again, on random tensors of a device; calling it makes them all once."""

    def __init__(self, calls: Iterable[Product], device: torch.device | str = "cpu") -> None:
        made: dict[Any, Tensor] = {}

        def fill(place: Any, leaf: Any) -> Any:
            if not isinstance(leaf, Shape):
                return leaf
            key = leaf, place[0]  # of which argument
            if key not in made:
                made[key] = random(leaf).to(device)
            return made[key]

        def filled(values: Any) -> Any:
            return tree_map_with_path(fill, values, is_leaf=lambda value: isinstance(value, Shape))

        self.calls = [(one.func, filled(one.args), filled(one.kwargs)) for one in calls]

    @torch.no_grad()
    def __call__(self) -> None:
        for func, args, kwargs in self.calls:
            func(*args, **kwargs)


def random(shape: Shape) -> Tensor:
    """Small random numbers with that shape, stride and type."""
    extent = 1 + sum((n - 1) * step for n, step in zip(shape.size, shape.stride, strict=True))
    flat = torch.randn(max(extent, 1)) * 0.01
    return flat.to(shape.dtype).as_strided(shape.size, shape.stride)


def seconds(calls: Sequence[Product], repeat: int) -> float:
    """Median CPU seconds of replaying them."""
    replay = Replayed(calls)
    replay()
    return statistics.median(cost(replay)["cpu_s"] for _ in range(repeat))


class Machine(NamedTuple):
    """What one thread of this CPU does at its best, in float32."""

    product: float  # FLOP a second in a large product, by the library that torch takes for products
    onednn: float  # the same by oneDNN, which torch takes for convolutions alone; 0 where this build has none
    convolution: float  # FLOP a second in a large convolution
    bytes: float  # a second, read and written, in a copy far larger than the cache

    @property
    def flops(self) -> float:
        """The most that was seen."""
        return max(self.product, self.onednn, self.convolution)


def machine() -> Machine:
    """Measured on the spot, by CPU time: the best of several.

    Products and convolutions come from different libraries, and neither is at its best on every processor.
    """
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    x = torch.randn(16, 64, 32, 32).contiguous(memory_format=torch.channels_last)
    w = torch.randn(64, 64, 5, 5).contiguous(memory_format=torch.channels_last)
    source = torch.randn(64 * 2**20)
    target = torch.empty_like(source)
    product = best(lambda: torch.mm(a, b))
    convolution = best(lambda: F.conv2d(x, w, padding=2))
    linear = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    onednn = math.inf if linear is None else best(lambda: linear(a, b, None, "none", [], ""))
    return Machine(
        2 * 1024**3 / product,
        2 * 1024**3 / onednn,
        2 * 25 * x.numel() * 64 / convolution,
        2 * source.numel() * 4 / best(lambda: target.copy_(source)),
    )


@torch.no_grad()
def best(run: Callable[[], object]) -> float:
    """The least CPU seconds of ten runs."""
    return min(cost(run)["cpu_s"] for _ in range(10))
