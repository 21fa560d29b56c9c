"""(B, T, N, ...) -> rows (B*N, T, ...) and back: a batch of teams as rows of agents, row b*N + i.

Sizes: B batch, T time, N agents.
"""

from __future__ import annotations

from torch import Tensor


def rows_of(value: Tensor) -> Tensor:
    """(B, T, N, ...) -> (B*N, T, ...), row b*N + i.

    >>> import torch
    >>> rows_of(torch.arange(6).view(1, 3, 2)).tolist()
    [[0, 2, 4], [1, 3, 5]]
    """
    return value.transpose(1, 2).flatten(0, 1)


def agents_of(value: Tensor, agents: int) -> Tensor:
    """(B*N, T, ...) -> (B, T, N, ...), the inverse of `rows_of`.

    >>> import torch
    >>> agents_of(rows_of(torch.arange(6).view(1, 3, 2)), 2).tolist()
    [[[0, 1], [2, 3], [4, 5]]]
    """
    return value.unflatten(0, (-1, agents)).transpose(1, 2)
