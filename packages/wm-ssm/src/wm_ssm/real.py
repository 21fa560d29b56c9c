"""An S5 layer without complex numbers, step after step: what a file for other runtimes can hold.

Sizes: B batch, T time, H width of tokens, P complex states.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from wm_ssm.s5 import S5


class RealS5(nn.Module):
    """A backbone, the numbers of an `S5` as its parameters are now: every complex number is a pair of real ones.

    (a + ib)(x + iy) = (ax - by) + i(ay + bx); decay, B and C are discretised once. `tests` hold it to the layer in float64.

    Args:
        layer: whose parameters these are; they are not followed.

    >>> from wm_ssm.s5 import S5
    >>> layer = S5(width=6, state=16)
    >>> tokens, first = torch.randn(2, 5, 6), torch.zeros(2, 5, dtype=torch.bool)
    >>> torch.allclose(layer.exportable()(layer.initial(2), tokens, first)[0], layer(layer.initial(2), tokens, first)[0])
    True
    """

    start: Tensor
    decay: Tensor
    into: Tensor
    outof: Tensor
    skip: Tensor

    def __init__(self, layer: S5) -> None:
        super().__init__()
        self.width, self.state, self.hidden_width = layer.width, layer.state, layer.hidden_width
        with torch.no_grad():
            decay, gain = layer.decay()
            into = torch.view_as_real(gain[:, None] * torch.view_as_complex(layer.B))  # (P, H, 2)
            real, imaginary = layer.C.unbind(-1)
            self.register_buffer("start", layer.start.detach().clone())  # (P, 2)
            self.register_buffer("decay", torch.view_as_real(decay).clone())  # (P, 2)
            self.register_buffer("into", into.transpose(1, 2).flatten(0, 1).clone())  # (2P, H)
            self.register_buffer("outof", torch.stack([real, -imaginary], -1).flatten(1))  # (H, 2P)
            self.register_buffer("skip", layer.D.detach().clone())  # (H,)

    def initial(self, *lead: int) -> Tensor:
        """The state before any token: (*lead, 2P), real and imaginary parts in turn."""
        return self.start.flatten().expand(*lead, -1)

    def forward(self, carry: Tensor, tokens: Tensor, first: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """tokens (B, T, H), first (B, T) bool -> out (B, T, H), hidden (B, T, 2P), carry (B, 2P), each for `starts`."""
        driven = (tokens @ self.into.t()).unflatten(-1, (-1, 2))  # (B, T, P, 2)
        state, states = carry.unflatten(-1, (-1, 2)), []
        a, b = self.decay.unbind(-1)
        for given, begins in zip(driven.unbind(1), first.unbind(1), strict=True):
            x, y = torch.where(begins[:, None, None], self.start, state).unbind(-1)  # each (B, P)
            state = given + torch.stack([a * x - b * y, a * y + b * x], -1)
            states.append(state)
        hidden = torch.stack(states, 1).flatten(-2)  # (B, T, 2P)
        return hidden @ self.outof.t() + self.skip * tokens, hidden, hidden[:, -1], hidden

    def starts(self, each: Tensor, last: int) -> Tensor:
        """The carry after each of the last `last` tokens: (B * last, 2P)."""
        return each[:, -last:].flatten(0, 1)

    def left(self, carry: Tensor) -> float:
        """How many tokens may still follow: as many as one likes."""
        return math.inf
