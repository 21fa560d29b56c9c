"""Tokens of a team's agents -> attention among them -> the same tokens, each knowing of the others.

Read `wm_marl.plain.block` first. Sizes: N agents, I features in, D width, H heads, d = D / H.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from wm_core.blocks import linear


class Block(nn.Module):
    """x = x + attention(norm(x)); x = x + MLP(norm(x)), the MLP one hidden GELU layer.

    Raises ValueError for a width that the heads do not divide.
    """

    def __init__(self, width: int, *, heads: int, hidden: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"{width} features cannot be split among {heads} attention heads")
        self.heads = heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.queries_keys_values, self.out = linear(width, 3 * width), linear(width, width)
        self.mlp = nn.Sequential(linear(width, hidden), nn.GELU(), linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        """x (M, N, D) -> (M, N, D): every agent of a team hears of every other, and of nobody else."""
        parts = self.queries_keys_values(self.first(x)).unflatten(-1, (3, self.heads, -1))  # (M, N, 3, H, d)
        query, key, value = parts.permute(2, 0, 3, 1, 4)  # each (M, H, N, d)
        x = x + self.out(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(-2))
        return torch.add(x, self.mlp(self.second(x)))


class AgentTransformer(nn.Module):
    """Linear, an embedding of who each agent is, `layers` pre-norm blocks, norm: (..., N, I) -> (..., N, D).

    Without `identity` it is equivariant: agents that change places change their outputs' places, and nothing else.

    >>> AgentTransformer(6, agents=3, width=16, layers=2, heads=4, hidden=32)(torch.zeros(5, 7, 3, 6)).shape
    torch.Size([5, 7, 3, 16])
    """

    def __init__(
        self, inputs: int, *, agents: int, width: int, layers: int, heads: int, hidden: int, identity: bool = True
    ) -> None:
        super().__init__()
        self.inputs, self.agents, self.width = inputs, agents, width
        self.begin = linear(inputs, width)
        self.identity = nn.Parameter(0.02 * torch.randn(agents, width)) if identity else None
        self.blocks = nn.ModuleList([Block(width, heads=heads, hidden=hidden) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.begin(tokens.reshape(-1, *tokens.shape[-2:]))
        if self.identity is not None:
            x = x + self.identity
        for block in self.blocks:
            x = block(x)
        return self.norm(x).view(*tokens.shape[:-1], -1)
