"""Batch normalisation whose batch is that of all ranks: its statistics, and what reaches them on the way back.

torch's SyncBatchNorm knows GPUs alone, and would take the whole process group also where one rank evaluates by itself.
"""

# N rows, C features

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from wm_core.precision import wide
from wm_core.ranks import ranks


class BatchNorm2d(nn.BatchNorm2d):
    """nn.BatchNorm2d, by the statistics of all ranks' maps (N, C, H, W) in training.

    >>> BatchNorm2d(4)(torch.randn(2, 4, 3, 3)).shape
    torch.Size([2, 4, 3, 3])
    """

    def forward(self, x: Tensor) -> Tensor:
        return normalised(self, x) if self.training and ranks().count > 1 else super().forward(x)


def normalised(norm: _BatchNorm, x: Tensor) -> Tensor:
    """x (N, C, ...) by mean and variance of all ranks' x, which also move the running ones. For a norm in training."""
    rows = wide(x).movedim(1, -1)
    return weighted(norm, rows.flatten(0, -2), None).view_as(rows).movedim(-1, 1).to(x.dtype)


def weighted(norm: _BatchNorm, x: Tensor, count: Tensor | None) -> Tensor:
    """x (R, C) whose rows stand for `count` (R,) equal ones each (None: one): what a norm in training makes of them, and
    of those of the other ranks."""
    who = ranks()
    if count is None:
        count = x.new_ones(()).expand(len(x))
    (total,) = who.sums(count.sum())
    share = (count / total.clamp(min=1))[:, None]
    (mean,) = who.sums((share * x).sum(0))
    (var,) = who.sums((share * (x - mean).square()).sum(0))
    with torch.no_grad():
        norm.num_batches_tracked.add_(1)  # type: ignore[union-attr]
        momentum = (norm.momentum or 0.1) * (total > 0)  # nothing is learned from nothing
        unbiased = var * (total / (total - 1).clamp(min=1))
        for running, now in ((norm.running_mean, mean), (norm.running_var, unbiased)):
            running.lerp_(now.to(running.dtype), momentum.to(running.dtype))  # type: ignore[union-attr]
    return (x - mean) * torch.rsqrt(var + norm.eps) * norm.weight + norm.bias
