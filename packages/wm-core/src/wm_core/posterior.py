"""q(z | h, e) in two halves: what the embedding adds is computed for all steps at once, the rest inside the loop over time.

Sizes: N rows, D deter, E embed, S x K stochastic.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wm_core.blocks import MLP, linear
from wm_core.fast import product
from wm_core.norm import norm_silu


class Posterior(nn.Module):
    """[deter, embed] -> one hidden layer -> logits (..., S*K), `wm_core.plain.posterior` in two halves.

    The embedding's half of the first layer does not depend on the state: `drive(embed)` runs it for all steps at
    once, outside the time loop.
    """

    def __init__(self, deter: int, embed: int, stoch: int, *, hidden: int) -> None:
        super().__init__()
        self.deter = deter
        self.mix, self.out = MLP(deter + embed, hidden, 1), linear(hidden, stoch)

    def drive(self, embed: Tensor) -> Tensor:
        """What the embedding (..., E) adds before the norm, and the bias: (..., hidden)."""
        first = self.mix[0]
        return product.linear(embed, first.weight[:, self.deter :], first.bias)  # type: ignore[arg-type,index]

    def forward(self, deter: Tensor, driven: Tensor) -> Tensor:
        """deter (N, D), driven (N, hidden) -> logits (N, S*K)."""
        weight = self.mix[0].weight[:, : self.deter]  # type: ignore[index]
        return self.out(norm_silu(torch.addmm(driven, deter, weight.t()), self.mix[1]))  # type: ignore[arg-type]
