"""A scalar as a categorical over symexp-spaced bins: DreamerV3's rewards and values.

Sizes: V bins.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from wm_core.precision import wide


def symlog(x: Tensor) -> Tensor:
    """sign(x) ln(1 + |x|)."""
    return torch.sign(x) * torch.log1p(torch.abs(x))


def symexp(x: Tensor) -> Tensor:
    """sign(x) (exp|x| - 1), the inverse of symlog.

    >>> symexp(symlog(torch.tensor(-7.0))).item()
    -7.0
    """
    return torch.sign(x) * torch.expm1(torch.abs(x))


@cache
def _twohot_bins(count: int, device: torch.device) -> Tensor:
    half = symexp(torch.linspace(-20, 0, (count + 1) // 2, device=device, dtype=torch.float64))
    return torch.cat([half, -half[:-1].flip(0)]).float()


def twohot_bins(count: int = 255, device: torch.device | str = "cpu") -> Tensor:
    """symexp(linspace(-20, 0)) mirrored: `count` (odd) values in raw units, 0 in the middle."""
    if count % 2 == 0:
        raise ValueError(f"two-hot bins must be odd in number so that 0 lies in the middle, not {count}")
    return _twohot_bins(count, torch.device(device))


FAR = 1e3  # bins beyond it, in raw units, are most of 255 and up to 4.85e8


def rounding(dtype: torch.dtype) -> float:
    """By how much of their sum two probabilities may differ that would be one, but for the rounding of their logits.

    Logits of a size up to 16 in bfloat16 are 2**-4 apart; in float32, up to 1e-6 has been seen in 4000 updates of small
    nets, and larger ones add up more.
    """
    return min(2**13 * torch.finfo(dtype).eps, 2**-4)


class TwoHot:
    """A scalar as a categorical over symexp-spaced bins; the loss is the cross-entropy with the two-hot target.

    The target is split between its two neighbours linearly in RAW distance. The prediction pairs +- bins before
    adding, so that a zero-initialised head predicts exactly 0. No target reaches most of the far bins, whose pairs learn
    the same, but matrix products do not add up every column in one order: a difference in the last digit, times 4.85e8,
    moved single predictions by up to 6 in early training. Far pairs within rounding therefore count as the same.

    >>> head = TwoHot(torch.zeros(2, 255))
    >>> head.mode().tolist(), round(head.loss(torch.tensor([0.0, 3.0]))[0].item(), 3)
    ([0.0, 0.0], 5.541)
    """

    def __init__(self, logits: Tensor) -> None:
        self.logits = wide(logits)
        self.rounding = rounding(logits.dtype)
        self.bins = twohot_bins(logits.shape[-1], logits.device).to(self.logits.dtype)

    def mode(self) -> Tensor:
        """The mean, sum p * bin: (...)."""
        pairs, same = self.pairs()
        far = pairs[..., -same.shape[-1] :]
        far.sub_(far.detach() * same)  # the gradient stays that of the mean
        return self.of_pairs(pairs)

    def pairs(self) -> tuple[Tensor, Tensor]:
        """p+ - p- of mirrored bins (..., V // 2), the nearest first, and which of the last, far ones count as the same."""
        probs = F.softmax(self.logits, -1)
        half = self.bins.shape[0] // 2
        far = int(half * math.log1p(FAR) / 20)
        above, below = probs[..., half + 1 :], probs[..., :half].flip(-1)
        pairs = above - below
        apart = pairs[..., far:].detach()
        return pairs, apart.abs() <= self.rounding * (above[..., far:] + below[..., far:])

    def of_pairs(self, pairs: Tensor) -> Tensor:
        """The mean of these pairs: (...)."""
        half = self.bins.shape[0] // 2
        with torch.autocast(pairs.device.type, enabled=False):  # a product in bfloat16 would tell 300 as 298
            return pairs @ self.bins[half + 1 :]

    def loss(self, target: Tensor) -> Tensor:
        """Cross-entropy with the two-hot target, which gets no gradient: (...)."""
        return self.loss_to(target[..., None])

    def loss_to(self, targets: Tensor, shares: Sequence[float] = (1.0,)) -> Tensor:
        """The sum of the losses to several targets (..., n), each with its share: (...)."""
        below, weight = self.split(targets)
        weights = torch.cat([1 - weight, weight], -1)
        if set(shares) != {1.0}:
            weights = weights * weights.new_tensor([*shares, *shares])
        picked = F.log_softmax(self.logits, -1).gather(-1, torch.cat([below, below + 1], -1))
        return -(picked * weights).sum(-1)

    def split(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """The bin below (...) int64 and the weight of the bin above (...), of a target clipped to the end bins."""
        target = target.detach().to(self.bins.dtype).clamp(self.bins[0], self.bins[-1])
        below = (torch.searchsorted(self.bins, target.contiguous(), right=True) - 1).clamp(0, len(self.bins) - 2)
        low, high = self.bins[below], self.bins[below + 1]
        return below, (target - low) / (high - low)


class SettledTwoHot(TwoHot):
    """A two-hot whose mean is climbed: what counts as the same in it has no gradient either.

    A far pair of equal probabilities has the gradient of their difference, times up to 4.85e8. It is zero as long as what
    leads to the two logits is equal, and a difference in its last digit is, early in training, most of the gradient: over
    400 updates of R2I on Pendulum's observations, 100 times what the other bins give the critic's.

    >>> weight = torch.ones(1, 255)
    >>> weight[0, -1] += 1e-5
    >>> slopes = []
    >>> for kind in (TwoHot, SettledTwoHot):
    ...     x = torch.zeros(1, requires_grad=True)
    ...     slopes.append(torch.autograd.grad(kind(x * weight).mode().sum(), x)[0].item())
    >>> slopes[0] > 0.1, abs(slopes[1]) < 1e-3
    (True, True)
    """

    def mode(self) -> Tensor:
        pairs, same = self.pairs()
        far = same.shape[-1]
        return self.of_pairs(torch.cat([pairs[..., :-far], pairs[..., -far:] * ~same], -1))
