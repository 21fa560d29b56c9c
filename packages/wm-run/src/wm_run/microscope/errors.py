"""What was foreseen of an observation, against what came: by horizon, beside the last frame repeated and the mean frame.

Sizes: B rows, C context, H steps ahead, ... the entries of one record.
"""

from __future__ import annotations

from torch import Tensor


def wrong(true: Tensor, said: Tensor, discrete: bool) -> Tensor:
    """Mean squared error of the entries of each record, of discrete values the share that is wrong: (B, H, ...) -> (B, H).

    >>> import torch
    >>> wrong(torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[1.0, 4.0]]]), discrete=False).item()
    2.0
    """
    each = (said != true).float() if discrete else (said - true).square()
    return each.flatten(2).mean(-1) if each.ndim > 2 else each


def middle(true: Tensor, discrete: bool) -> Tensor:
    """The one record that is nearest to all of (B, C, ...): the mean, of discrete values the most frequent: (1, 1, ...)."""
    flat = true.flatten(0, 1)
    found = flat.mode(0).values if discrete else flat.mean(0)
    return found[None, None]


def by_horizon(each: Tensor, valid: Tensor) -> list[float | None]:
    """Means over the rows in which a horizon is reached, None where it is in none: (B, H), (B, H) bool -> H numbers.

    >>> import torch
    >>> by_horizon(torch.tensor([[1.0, 8.0], [3.0, 9.0]]), torch.tensor([[True, False], [True, False]]))
    [2.0, None]
    """
    count = valid.sum(0)
    mean = (each * valid).sum(0) / count.clamp(min=1)
    return [one if n else None for one, n in zip(mean.tolist(), count.tolist(), strict=True)]


def ahead(first: Tensor, context: int) -> Tensor:
    """Of `first` (B, T): which steps after the context lie in the episode that it ended in, (B, T - context) bool.

    >>> import torch
    >>> ahead(torch.tensor([[True, False, False, True, False]]), 2).tolist()
    [[True, False, False]]
    """
    return first[:, context:].cumsum(1) == 0
