"""Attention as the Multi-Agent Transformer has it: among all agents, and from each agent back to those before it.

Layers are orthogonal with a gain of .01, or that of a ReLU where an activation follows, and norms come after the sum (MAT's
public code). Sizes: M teams, N agents, D width, H heads, d = D / H.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from wm_core.blocks import linear

SMALL, RELU = 0.01, 2**0.5  # gains

Known = tuple[Tensor, Tensor]  # keys and values, each (M, H, N, d)


def orthogonal(layer: Any, gain: float, parts: int = 1) -> Any:
    """The layer with an orthogonal weight of that gain, and no bias; of `parts` layers in one, each by itself.

    >>> import torch
    >>> weight = orthogonal(nn.Linear(2, 4), 3.0, parts=2).weight
    >>> torch.allclose(weight[2:] @ weight[2:].mT, 9 * torch.eye(2), atol=1e-5)
    True
    """
    for part in layer.weight.chunk(parts):
        nn.init.orthogonal_(part, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class Attention(nn.Module):
    """Attention whose queries are made of other tokens than its keys and values, or of the same.

    Raises ValueError for a width that the heads do not divide.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"{width} features cannot be split among {heads} attention heads")
        self.heads = heads
        self.query = orthogonal(linear(width, width), SMALL)
        self.keys_values = orthogonal(linear(width, 2 * width), SMALL, parts=2)
        self.out = orthogonal(linear(width, width), SMALL)

    def queries(self, x: Tensor) -> Tensor:
        """(M, N, D) -> (M, H, N, d)."""
        return self.query(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def known(self, x: Tensor) -> Known:
        """(M, N, D) -> what others may learn of these tokens."""
        keys, values = self.keys_values(x).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return keys, values

    def forward(self, queries: Tensor, known: Known, causal: bool = False) -> Tensor:
        """queries (M, H, N, d) -> (M, N, D); `causal`: each of the tokens up to and with its own."""
        heard = F.scaled_dot_product_attention(queries, *known, is_causal=causal)
        return self.out(heard.transpose(1, 2).flatten(-2))


class EncoderBlock(nn.Module):
    """x = norm(x + attention(x)); x = norm(x + MLP(x)), the MLP one hidden GELU layer: every agent hears of every other."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.attend, self.mlp = Attention(width, heads), mlp(width, hidden)
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """(M, N, D) -> (M, N, D)."""
        x = self.first(x + self.attend(self.attend.queries(x), self.attend.known(x)))
        return self.second(x + self.mlp(x))


class DecoderBlock(nn.Module):
    """x = norm(x + attention(x)); x = norm(seen + attention of seen to x); x = norm(x + MLP(x)), both attentions causal.

    x is the stream of actions, `seen` what the encoder says of every agent: the query of the second attention is the agent,
    its keys and values are what was done so far.
    """

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.own, self.cross, self.mlp = Attention(width, heads), Attention(width, heads), mlp(width, hidden)
        self.first, self.second, self.third = (nn.LayerNorm(width) for _ in range(3))

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """All agents at once: x, seen (M, N, D) -> (M, N, D)."""
        x = self.first(x + self.own(self.own.queries(x), self.own.known(x), causal=True))
        x = self.second(seen + self.cross(self.cross.queries(seen), self.cross.known(x), causal=True))
        return self.third(x + self.mlp(x))

    def step(self, x: Tensor, seen: Tensor, queries: Tensor, before: tuple[Cache, Cache]) -> Tensor:
        """The same of one agent, x and seen (M, 1, D), by what was kept of those before it. queries: `cross.queries(seen)`."""
        own, cross = before
        x = self.first(x + self.own(self.own.queries(x), own.with_(self.own.known(x))))
        x = self.second(seen + self.cross(queries, cross.with_(self.cross.known(x))))
        return self.third(x + self.mlp(x))


class Cache:
    """Keys and values of the tokens so far, in memory that is taken once. Its writes carry no gradient."""

    kept: Tensor  # (2, M, H, N, d)

    def __init__(self, agents: int) -> None:
        self.agents, self.count = agents, 0

    def with_(self, known: Known) -> Known:
        """Those of one more token (M, H, 1, d), and of all before it: (M, H, count, d)."""
        if not self.count:
            teams, heads, _, size = known[0].shape
            self.kept = known[0].new_empty(2, teams, heads, self.agents, size)
        for kept, one in zip(self.kept, known, strict=True):
            kept[:, :, self.count] = one[:, :, 0]
        self.count += 1
        keys, values = self.kept[..., : self.count, :]
        return keys, values


def mlp(width: int, hidden: int) -> nn.Sequential:
    """Linear, GELU, Linear."""
    return nn.Sequential(orthogonal(linear(width, hidden), RELU), nn.GELU(), orthogonal(linear(hidden, width), SMALL))
