"""Returns and their scale: lambda returns with arrived rewards, and the running 5th to 95th percentile range.

Rewards and continuations are indexed by arrival: reward[:, t+1] is what action t earned. Sizes: M rows, H horizon.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wm_core.precision import wide


def lambda_return(reward: Tensor, cont: Tensor, value: Tensor, lam: float) -> Tensor:
    """R_t = r_{t+1} + c_{t+1} [(1 - lam) V_{t+1} + lam R_{t+1}], R_H = V_H.

    All inputs (M, H+1), the discount inside cont; the result is (M, H), for t = 0 .. H-1.

    >>> lambda_return(torch.tensor([[9., 1., 2.]]), torch.tensor([[1., 0.5, 0.5]]), torch.tensor([[0., 4., 8.]]), 0.5)
    tensor([[3.5000, 6.0000]])
    """
    base = reward[:, 1:] + (1 - lam) * cont[:, 1:] * value[:, 1:]
    decay = (lam * cont[:, 1:]).unbind(1)
    last = value[:, -1]
    out = []
    for b, d in zip(reversed(base.unbind(1)), reversed(decay), strict=True):
        last = torch.addcmul(b, d, last)
        out.append(last)
    return torch.stack(out[::-1], 1)


def replay_return(
    reward: Tensor, last: Tensor, terminal: Tensor, boot: Tensor, *, discount: float, lam: float
) -> Tensor:
    """R_t = r_{t+1} + g (1 - terminal_{t+1}) [(1 - lam m) boot_{t+1} + lam m R_{t+1}], m = 1 - last_{t+1}, R_T = boot_T.

    All inputs (B, T), boot the imagined return from each step; the result is (B, T-1). Bootstraps instead of crossing
    an episode's end.
    """
    cont = discount * (1 - terminal[:, 1:].float())
    mix = lam * (1 - last[:, 1:].float())
    base = reward[:, 1:] + cont * (1 - mix) * boot[:, 1:]
    decay = (cont * mix).unbind(1)
    after = boot[:, -1]
    out = []
    for b, d in zip(reversed(base.unbind(1)), reversed(decay), strict=True):
        after = torch.addcmul(b, d, after)
        out.append(after)
    return torch.stack(out[::-1], 1)


class Percentiles(nn.Module):
    """Running 5th and 95th percentile of returns: averages of rate 0.01 from 0, no debiasing.

    >>> scale = Percentiles()
    >>> round(scale(torch.linspace(0, 100, 101)).item(), 3)  # max(1, 0.01 * (95 - 5))
    1.0
    """

    low: Tensor
    high: Tensor

    def __init__(self, rate: float = 0.01, low: float = 0.05, high: float = 0.95, least: float = 1.0) -> None:
        super().__init__()
        self.rate, self.quantiles, self.least = rate, (low, high), least
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))

    @torch.no_grad()
    def forward(self, returns: Tensor) -> Tensor:
        """Take the batch in, then give the scale max(least, high - low): a 0-d tensor without gradient."""
        flat = wide(returns.detach()).flatten()
        low, high = torch.quantile(flat, torch.tensor(self.quantiles, device=flat.device, dtype=flat.dtype)).unbind()
        self.low.lerp_(low, self.rate)
        self.high.lerp_(high, self.rate)
        return (self.high - self.low).clamp(min=self.least)
