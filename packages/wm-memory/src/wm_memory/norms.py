"""Batch normalisation over the last axis, whatever stands before it, and the switch to its running statistics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn import functional as F
from wm_core.batch_norm import normalised, weighted
from wm_core.ranks import ranks


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
        """x (N, C, ...) by the statistics of the batch of all ranks in training, which also update the running ones; else
        by those."""
        if self.training and ranks().count > 1:
            return normalised(self, x)
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        momentum, train = self.momentum or 0.1, self.training
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, train, momentum, self.eps)

    def weighted(self, x: Tensor, count: Tensor) -> Tensor:
        """x (R, C) whose rows stand for `count` (R,) equal ones each: what `forward` would make of them all."""
        if not self.training:
            return self.normalise(x)
        return weighted(self, x, count)


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
