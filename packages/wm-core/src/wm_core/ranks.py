"""Several processes learn one agent, each on its own rows: what a batch-wide number takes from the others.

Every statistic of a whole batch that an update depends on passes one of the calls here: gradients are averaged, sums are
added up (means of a loss, the weights' mean, batch norms), values are gathered (the returns' percentiles). Alone, all are
the identity, to the bit. N ranks of B rows then equal one process of N * B rows, up to the order of sums. What is only
shown, as metrics are, is each rank's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

import torch
from torch import Tensor, distributed


class Ranks(Protocol):
    """Who learns together."""

    index: int
    count: int

    def average(self, tensors: list[Tensor]) -> None:
        """Each tensor, of any shape (...), becomes its mean over the ranks, in place."""

    def sums(self, *values: Tensor) -> tuple[Tensor, ...]:
        """Each tensor (...) summed over the ranks; gradients pass, of every rank's loss to every rank's values."""

    def gather(self, value: Tensor) -> Tensor:
        """The values (n, ...) of all ranks, in rank order: (count * n, ...)."""

    def total(self, *numbers: int) -> list[int]:
        """The sum of each number over the ranks, on the host: what all must agree on."""


class Alone:
    """One process: `Ranks` that give back what they are given.

    >>> Alone().gather(torch.ones(2)).tolist()
    [1.0, 1.0]
    """

    index, count = 0, 1

    def average(self, tensors: list[Tensor]) -> None: ...

    def sums(self, *values: Tensor) -> tuple[Tensor, ...]:
        return values

    def gather(self, value: Tensor) -> Tensor:
        return value

    def total(self, *numbers: int) -> list[int]:
        return list(numbers)


class Group:
    """The `Ranks` of the default process group of torch.distributed, which must be initialised: nccl on GPUs, gloo on CPUs."""

    def __init__(self) -> None:
        self.index, self.count = distributed.get_rank(), distributed.get_world_size()
        self.hosts = distributed.new_group(backend="gloo")

    def average(self, tensors: list[Tensor]) -> None:
        """One message for all tensors of a kind."""
        for dtype in dict.fromkeys(t.dtype for t in tensors):
            mine = [t for t in tensors if t.dtype == dtype]
            flat = torch.cat([t.reshape(-1) for t in mine])
            distributed.all_reduce(flat)
            parts = (flat / self.count).split([t.numel() for t in mine])
            torch._foreach_copy_(mine, [part.view_as(t) for part, t in zip(parts, mine, strict=True)])

    def sums(self, *values: Tensor) -> tuple[Tensor, ...]:
        """One message for all, in the widest of their dtypes."""
        whole: Tensor = _Sum.apply(torch.cat([value.reshape(-1) for value in values]))
        parts = whole.split([value.numel() for value in values])
        return tuple(part.view_as(value).to(value.dtype) for part, value in zip(parts, values, strict=True))

    def gather(self, value: Tensor) -> Tensor:
        parts = [torch.empty_like(value, memory_format=torch.contiguous_format) for _ in range(self.count)]
        distributed.all_gather(parts, value.contiguous())
        return torch.cat(parts)

    def total(self, *numbers: int) -> list[int]:
        sums = torch.tensor(numbers, dtype=torch.int64)
        distributed.all_reduce(sums, group=self.hosts)  # type: ignore[arg-type] # this process is one of the group
        return sums.tolist()


class _Sum(torch.autograd.Function):
    """The sum over the ranks. What all of them lose through it reaches each one's values."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        found = value.clone()
        distributed.all_reduce(found)
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        found = grads[0].clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(found)
        return found


_ranks: ContextVar[Ranks] = ContextVar("ranks", default=Alone())  # noqa: B039 - Alone holds no state


def ranks() -> Ranks:
    """Those in force."""
    return _ranks.get()


@contextmanager
def learning_with(others: Ranks) -> Iterator[None]:
    """Learn with these ranks inside."""
    token = _ranks.set(others)
    try:
        yield
    finally:
        _ranks.reset(token)


def mean(value: Tensor) -> Tensor:
    """The mean of all ranks' values, of which each has as many: 0-d.

    >>> mean(torch.tensor([1.0, 3.0])).item()
    2.0
    """
    return ranks().sums(value.mean())[0] / ranks().count if ranks().count > 1 else value.mean()
