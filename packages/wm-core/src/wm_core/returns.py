"""Returns and their scale: lambda returns with arrived rewards, and the running 5th to 95th percentile range.

Rewards and continuations are indexed by arrival: reward[:, t+1] is what action t earned. Sizes: M rows, H horizon.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wm_core.precision import wide
from wm_core.ranks import ranks


def lambda_return(reward: Tensor, cont: Tensor, value: Tensor, lam: float) -> Tensor:
    """R_t = r_{t+1} + c_{t+1} [(1 - lam) V_{t+1} + lam R_{t+1}], R_H = V_H.

    All inputs (M, H+1), the discount inside cont; the result is (M, H), for t = 0 .. H-1.

    >>> lambda_return(torch.tensor([[9., 1., 2.]]), torch.tensor([[1., 0.5, 0.5]]), torch.tensor([[0., 4., 8.]]), 0.5)
    tensor([[3.5000, 6.0000]])
    """
    base = torch.addcmul(reward[:, 1:], cont[:, 1:], value[:, 1:], value=1 - lam)
    return accumulate(base, lam * cont[:, 1:], value[:, -1:])


def gae(reward: Tensor, cont: Tensor, value: Tensor, lam: float | Tensor) -> Tensor:
    """Generalised advantage estimates, A_t = d_t + lam c_{t+1} A_{t+1}, d_t = r_{t+1} + c_{t+1} V_{t+1} - V_t, A_H = 0:
    `lambda_return` minus the value.

    reward, cont, value (M, H+1), the discount inside cont; the result is (M, H). lam may be (M, H), of each step: 0 where
    a recorded row breaks off and the return ends with the value there.

    >>> gae(torch.tensor([[9., 1., 2.]]), torch.tensor([[1., 0.5, 0.5]]), torch.tensor([[0., 4., 8.]]), 0.5)
    tensor([[3.5000, 2.0000]])
    """
    error = reward[:, 1:] + cont[:, 1:] * value[:, 1:] - value[:, :-1]
    return accumulate(error, lam * cont[:, 1:], torch.zeros_like(error[:, :1]))


def replay_return(
    reward: Tensor, last: Tensor, terminal: Tensor, boot: Tensor, *, discount: float, lam: float
) -> Tensor:
    """R_t = r_{t+1} + g (1 - terminal_{t+1}) [(1 - lam m) boot_{t+1} + lam m R_{t+1}], m = 1 - last_{t+1}, R_T = boot_T.

    All inputs (B, T), boot the imagined return from each step; the result is (B, T-1). Bootstraps instead of crossing
    an episode's end.
    """
    cont, mix = discount * ~terminal[:, 1:], lam * ~last[:, 1:]
    return accumulate(torch.addcmul(reward[:, 1:], cont * (1 - mix), boot[:, 1:]), cont * mix, boot[:, -1:])


def accumulate(base: Tensor, decay: Tensor, last: Tensor) -> Tensor:
    """R_t = base_t + decay_t R_{t+1} backwards from R_T = last (M, 1); base, decay and the result (M, T).

    `wm_core.plain.accumulate` is the loop. Composing neighbours doubles the reach of every step, so T steps take log2 T rounds and no loop over time.

    >>> accumulate(torch.tensor([[1., 2.]]), torch.tensor([[0.5, 0.5]]), torch.tensor([[8.]]))
    tensor([[4., 6.]])
    """
    steps, reach = base.shape[1], 1
    base, decay = torch.cat([base, last], 1), F.pad(decay, (0, 1))
    while reach <= steps:
        base = torch.addcmul(base, decay, F.pad(base[:, reach:], (0, reach)))
        if 2 * reach <= steps:
            decay = decay * F.pad(decay[:, reach:], (0, reach))
        reach *= 2
    return base[:, :-1]


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
        ordered = ranks().gather(wide(returns.detach()).flatten()).sort().values
        low, high = (quantile(ordered, q) for q in self.quantiles)
        self.low.lerp_(low, self.rate)
        self.high.lerp_(high, self.rate)
        return (self.high - self.low).clamp(min=self.least)


def quantile(ordered: Tensor, q: float) -> Tensor:
    """Of sorted values (n,), interpolated linearly, as torch.quantile, which reads q from the host each time: 0-d.

    >>> quantile(torch.tensor([0.0, 10.0, 20.0]), 0.25).item()
    5.0
    """
    place = q * (len(ordered) - 1)
    below = min(int(place), max(len(ordered) - 2, 0))
    return torch.lerp(ordered[below], ordered[min(below + 1, len(ordered) - 1)], place - below)
