"""The two recurrent states look at each other before the priors (Eq. 8), in its useful and in its literal form.

Sizes: D deter of one branch, H heads.
With one token a side, as Eq. 8 is printed, the softmax over a single key is 1: W_Q and W_K never learn and attention is
a linear map of the other state. `PairAttention` lets each state attend to both.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from wm_core.blocks import linear
from wm_core.precision import wide


class PairAttention(nn.Module):
    """(..., 2, D) -> (..., 2, D): each of the pair attends to the pair; residual and LayerNorm.

    >>> PairAttention(16, heads=2)(torch.zeros(3, 5, 2, 16)).shape
    torch.Size([3, 5, 2, 16])
    """

    def __init__(self, width: int, *, heads: int = 8) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"{width} features cannot be split among {heads} attention heads")
        self.heads = heads
        self.qkv, self.out, self.norm = linear(width, 3 * width), linear(width, width), nn.LayerNorm(width)

    def forward(self, pair: Tensor) -> Tensor:
        q, k, v = self.qkv(pair).unflatten(-1, (3, self.heads, -1)).transpose(-4, -2).unbind(-3)  # each (..., H, 2, d)
        weights = F.softmax(wide(q @ k.mT) * q.shape[-1] ** -0.5, -1)
        heard = (weights.to(v.dtype) @ v).transpose(-3, -2).flatten(-2)
        return self.norm(pair + self.out(heard))


class CrossAttention(nn.Module):
    """Eq. 8 as printed: each of the pair attends to the other alone; residual and LayerNorm. (..., 2, D) -> same.

    The softmax over one key is 1, so only values and output have weights here; queries and keys would never learn.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.value, self.out, self.norm = linear(width, width), linear(width, width), nn.LayerNorm(width)

    def forward(self, pair: Tensor) -> Tensor:
        return self.norm(pair + self.out(self.value(torch.flip(pair, (-2,)))))
