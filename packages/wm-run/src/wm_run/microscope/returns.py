"""Recorded rewards -> what followed each step until its episode ended, discounted: what a value is compared with.

Sizes: B rows, T steps.
"""

from __future__ import annotations

import torch
from torch import Tensor
from wm_core.returns import accumulate


def followed(reward: Tensor, last: Tensor, terminal: Tensor, discount: float) -> tuple[Tensor, Tensor]:
    """G_t = r_{t+1} + g r_{t+2} + ... up to the record with `last`, and where that is known: both (B, T), all inputs too.

    Known are the steps, but the last of an episode, whose episode ends within the row, by an end and not by a limit: what
    would have followed a truncation nobody recorded. G is 0 where it is not known.

    >>> reward, last = torch.tensor([[9.0, 1.0, 2.0, 4.0]]), torch.tensor([[False, False, True, False]])
    >>> followed(reward, last, last, 0.5)
    (tensor([[2., 2., 0., 0.]]), tensor([[ True,  True, False, False]]))
    """
    steps = torch.arange(reward.shape[1], device=reward.device)
    ends = torch.where(last, steps, reward.shape[1]).flip(1).cummin(1).values.flip(1)  # of each step's episode, T: none
    inside = ends < reward.shape[1]
    over = terminal.gather(1, ends.clamp(max=reward.shape[1] - 1))
    known = inside & over & (ends != steps)
    on = discount * (~last[:, 1:]).to(reward.dtype)
    found = accumulate(reward[:, 1:], on, torch.zeros_like(reward[:, :1]))
    found = torch.cat([found, torch.zeros_like(reward[:, :1])], 1)
    return torch.where(known, found, 0), known
