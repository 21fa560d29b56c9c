"""The GRU of the paper's S-size nets: one dense layer, then gates normalised together. Called like wm_core's BlockGRU.

Sizes: N rows, A action, D deter.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from wm_core.blocks import linear
from wm_core.norm import RMSNorm, norm_silu


class NormGRU(nn.Module):
    """x = SiLU(norm(Linear([state, action]))); gates = norm(Linear([x, deter]));
    deter' = u tanh(r c) + (1 - u) deter with u = sigmoid(update - 1).

    state: the widths of the parts of the state that x reads. One fewer than are handed to it: the last of them, so that
    (S*K,) reads z and not h, as DreamerV3 of 2023 does.

    >>> cell = NormGRU(deter=16, state=(16, 6), action=3, hidden=8)
    >>> deter, stoch, action = torch.zeros(2, 16), torch.zeros(2, 6), torch.zeros(2, 3)
    >>> cell(deter, (deter, stoch), cell.drive(action)).shape
    torch.Size([2, 16])
    """

    def __init__(self, *, deter: int, state: Sequence[int], action: int, hidden: int) -> None:
        super().__init__()
        self.state, self.parts = sum(state), len(state)
        self.inputs, self.norm = linear(self.state + action, hidden), RMSNorm(hidden)
        self.gates = nn.Linear(hidden + deter, 3 * deter, bias=False)
        with torch.no_grad():
            self.gates.weight.copy_(linear(hidden + deter, 3 * deter).weight)
        self.gates_norm = RMSNorm(3 * deter)

    def drive(self, action: Tensor) -> Tensor:
        """What the action (..., A) adds before the norm, and the bias: (..., hidden)."""
        return F.linear(action, self.inputs.weight[:, self.state :], self.inputs.bias)

    def forward(self, deter: Tensor, state: Sequence[Tensor], driven: Tensor) -> Tensor:
        """deter (N, D), state parts (N, width), driven (N, hidden) from `drive` -> the next deter (N, D)."""
        x = torch.addmm(driven, torch.cat(list(state)[-self.parts :], -1), self.inputs.weight[:, : self.state].t())
        x = norm_silu(x, self.norm)
        reset, cand, update = self.gates_norm(self.gates(torch.cat([x, deter], -1))).chunk(3, -1)
        update = torch.sigmoid(update - 1)
        return update * torch.tanh(torch.sigmoid(reset) * cand) + (1 - update) * deter

    def advance(self, deter: Tensor, state: Sequence[Tensor], action: Tensor) -> Tensor:
        """A single step with action (N, A): `forward` of its `drive`."""
        return self(deter, state, self.drive(action))
