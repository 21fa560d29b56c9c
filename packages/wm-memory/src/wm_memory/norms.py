"""Batch normalisation over the last axis, whatever stands before it, and the switch to its running statistics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class BatchNorm(nn.BatchNorm1d):
    """nn.BatchNorm1d for features that lie last: (..., C). Maps (N, H, W, C) go through the image kernel.

    >>> import torch
    >>> BatchNorm(4)(torch.randn(2, 5, 4)).shape
    torch.Size([2, 5, 4])
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim == 4:  # a view where the map is kept with its channels last
            return self.normalise(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.normalise(x.flatten(0, -2)).reshape(x.shape)

    def normalise(self, x: Tensor) -> Tensor:
        """x (N, C, ...) by the batch's statistics in training, which also update the running ones; else by those."""
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        momentum, train = self.momentum or 0.1, self.training
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, train, momentum, self.eps)

    def weighted(self, x: Tensor, count: Tensor) -> Tensor:
        """x (R, C) whose rows stand for `count` (R,) equal ones each: what `forward` would make of them all."""
        if not self.training:
            return self.normalise(x)
        total = count.sum()
        share = (count / total.clamp(min=1))[:, None]
        mean = (share * x).sum(0)
        var = (share * (x - mean).square()).sum(0)
        with torch.no_grad():
            self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
            momentum = (self.momentum or 0.1) * (total > 0)  # nothing is learned from nothing
            unbiased = var * (total / (total - 1).clamp(min=1))
            for running, now in ((self.running_mean, mean), (self.running_var, unbiased)):
                running.lerp_(now.to(running.dtype), momentum.to(running.dtype))  # type: ignore[union-attr]
        return (x - mean) * torch.rsqrt(var + self.eps) * self.weight + self.bias


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """The module in evaluation mode inside, each of its parts as it was after."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode
