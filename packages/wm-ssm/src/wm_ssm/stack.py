"""S5 layers with gated outputs, residuals and norms; a stack of them is a backbone for wm-core's `Parallel`.

A backbone is `initial(*lead)`, `(carry, tokens, first) -> out, hidden, carry, each`, and `starts(each, last)`.
Sizes: B batch, T time, H width, P complex states of a layer, L layers, D output.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wm_ssm.s5 import S5, Product


class S5Block(nn.Module):
    """A backbone, one S5 layer: s = GELU(S5(u)); s = (W1 s + b1) * sigmoid(W2 s + b2); LayerNorm(u + s).

    Args:
        width: H, of tokens and output.
        state: P, of the layer; a multiple of twice its blocks.
        dropout: on s, in training mode.
        product: makes all products, those of the layer too.
        layer: what else `S5` takes.

    Raises:
        ValueError: as `S5`.

    >>> block = S5Block(width=8, state=16)
    >>> out, hidden, carry, each = block(block.initial(3), torch.randn(3, 5, 8), torch.zeros(3, 5, dtype=torch.bool))
    >>> out.shape, carry.shape
    (torch.Size([3, 5, 8]), torch.Size([3, 32]))
    """

    def __init__(
        self, width: int, state: int, *, dropout: float = 0.0, product: Product = F.linear, **layer: Any
    ) -> None:
        super().__init__()
        self.s5, self.hidden_width = S5(width, state, product=product, **layer), 2 * state
        self.gate = _Linear(width, 2 * width, product)  # W1 and W2 in one product
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.dropout = nn.Dropout(dropout)

    def initial(self, *lead: int) -> Tensor:
        """The state before any token: (*lead, 2P)."""
        return self.s5.initial(*lead)

    def __call__(self, carry: Tensor, tokens: Tensor, first: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """tokens (B, T, H), first (B, T) bool -> out (B, T, H), hidden (B, T, 2P), carry (B, 2P), each."""
        return super().__call__(carry, tokens, first)

    def forward(self, carry: Tensor, tokens: Tensor, first: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        mixed, hidden, carry, each = self.s5(carry, tokens, first)
        gated = F.glu(self.gate(F.gelu(mixed, approximate="tanh")))
        return self.norm(tokens + self.dropout(gated)), hidden, carry, each

    def starts(self, each: Tensor, last: int) -> Tensor:
        """The carry after each of the last `last` tokens: (B * last, 2P)."""
        return self.s5.starts(each, last)

    def left(self, carry: Tensor) -> float:
        """How many tokens may still follow: as many as one likes."""
        return math.inf


class S5Stack(nn.Module):
    """A backbone of L blocks, one after the other.

    Args:
        width: H, of tokens and between blocks.
        state: P of each layer; a multiple of twice its blocks.
        layers: L.
        out: D; appends R2I's SiLU(Linear(H, D)). Without it the output is the last block's, (B, T, H).
        product: makes all products.
        block: what else `S5Block` takes.

    Raises:
        ValueError: as `S5`.

    `hidden` is the state of every layer, (B, T, 2LP), and the carry is its last step: what a policy reads as "hidden"
    is exactly what the model remembers.

    >>> stack = S5Stack(width=8, state=16, layers=3, out=20)
    >>> out, hidden, carry, each = stack(stack.initial(2), torch.randn(2, 5, 8), torch.zeros(2, 5, dtype=torch.bool))
    >>> out.shape, hidden.shape, stack.hidden_width
    (torch.Size([2, 5, 20]), torch.Size([2, 5, 96]), 96)
    """

    def __init__(
        self,
        width: int,
        state: int,
        layers: int,
        *,
        out: int | None = None,
        product: Product = F.linear,
        **block: Any,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([S5Block(width, state, product=product, **block) for _ in range(layers)])
        self.out: nn.Module = nn.Identity() if out is None else nn.Sequential(_Linear(width, out, product), nn.SiLU())
        self.width, self.hidden_width = out or width, 2 * state * layers

    def initial(self, *lead: int) -> Tensor:
        """The state before any token: (*lead, 2LP)."""
        blocks = cast("Iterator[S5Block]", iter(self.blocks))
        return torch.cat([block.initial(*lead) for block in blocks], -1)

    def __call__(self, carry: Tensor, tokens: Tensor, first: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """tokens (B, T, H), first (B, T) bool -> out (B, T, D), hidden (B, T, 2LP), carry (B, 2LP), each."""
        return super().__call__(carry, tokens, first)

    def forward(self, carry: Tensor, tokens: Tensor, first: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        states = []
        for block, own in zip(self.blocks, carry.chunk(len(self.blocks), -1), strict=True):
            tokens, state, _, _ = block(own, tokens, first)
            states.append(state)
        hidden = torch.cat(states, -1)
        return self.out(tokens), hidden, hidden[:, -1], hidden

    def starts(self, each: Tensor, last: int) -> Tensor:
        """The carry after each of the last `last` tokens: (B * last, 2LP)."""
        return each[:, -last:].flatten(0, 1)

    def left(self, carry: Tensor) -> float:
        """How many tokens may still follow: as many as one likes."""
        return math.inf


class _Linear(nn.Linear):
    """Weights normal, cut at two deviations, of variance 1 / inputs; biases 0."""

    def __init__(self, inputs: int, outputs: int, product: Product) -> None:
        super().__init__(inputs, outputs)
        self.product = product
        std = inputs**-0.5 / 0.87962566103423978
        nn.init.trunc_normal_(self.weight, std=std, a=-2 * std, b=2 * std)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.product(x, self.weight, self.bias)
