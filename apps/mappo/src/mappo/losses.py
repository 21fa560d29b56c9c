"""The critic's loss: never less than that of a value that moved only so far from what it was."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def clipped_value_loss(value: Tensor, old: Tensor, target: Tensor, *, clip: float, huber: float) -> Tensor:
    """max(h(v - g), h(old + clip(v - old, -c, c) - g)), h the Huber loss that turns into a line at `huber`; each (...).

    >>> old, new, target = torch.zeros(2), torch.tensor([0.5, -0.5]), torch.ones(2)
    >>> clipped_value_loss(new, old, target, clip=0.2, huber=10.0)  # .8^2 / 2, nothing is gained beyond; 1.5^2 / 2
    tensor([0.3200, 1.1250])
    """
    near = old + (value - old).clamp(-clip, clip)
    both = [F.huber_loss(one, target, reduction="none", delta=huber) for one in (value, near)]
    return torch.maximum(*both)
