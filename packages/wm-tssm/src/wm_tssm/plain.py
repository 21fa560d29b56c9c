"""The transformer without cache or window, in straight lines and above each line its shape: read this first.

`stack` is what `wm_tssm.stack.TransformerStack` computes of whole rows in evaluation mode; `dream` is what it computes
token by token from a `Cache`, here by looking at everything anew for each. The tests hold both to these lines, values
and gradients, in float64.
Sizes: B rows, T tokens, P tokens before a dream, D width, H heads, d = D / H.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

if TYPE_CHECKING:
    from wm_tssm.attention import Attention, Block
    from wm_tssm.stack import TransformerStack


def stack(network: TransformerStack, tokens: Tensor, first: Tensor) -> Tensor:
    """tokens (B, T, D), first (B, T) bool -> out (B, T, D), by a TransformerStack's parameters.

    >>> from wm_tssm import TransformerStack
    >>> network = TransformerStack(16, layers=2, heads=4, hidden=32).eval()
    >>> tokens, first = torch.randn(2, 9, 16), torch.zeros(2, 9, dtype=torch.bool)
    >>> torch.allclose(stack(network, tokens, first), network(network.initial(2), tokens, first)[0], atol=1e-4)
    True
    """
    # (B, T), and (B, T, T) or None
    position, visible = network.sight(first)
    if visible is None:
        # (T, T): every token sees itself and all before it
        visible = torch.ones(position.shape[1], position.shape[1], dtype=torch.bool, device=first.device).tril()
    # (B, T, D)
    x = network.norm(tokens + network.positions.weight[position])
    for one in network.blocks:
        x = block(cast("Block", one), x, visible)
    return x


def dream(network: TransformerStack, context: Tensor, first: Tensor, tokens: Tensor) -> Tensor:
    """What follows a context (B, P, D), first (B, P): tokens (B, T, D), no episode's first among them -> out (B, T, D)."""
    outs = []
    for t in range(1, tokens.shape[1] + 1):
        # (B, P + t, D)
        so_far = torch.cat([context, tokens[:, :t]], 1)
        # (B, P + t)
        begins = torch.cat([first, first.new_zeros(len(first), t)], 1)
        # (B, D): the newest token's
        out = stack(network, so_far, begins)[:, -1]
        outs.append(out)
    return torch.stack(outs, 1)


def block(network: Block, x: Tensor, visible: Tensor) -> Tensor:
    """x (B, T, D), visible (B, T, T) or (T, T) -> the next x (B, T, D): post-norm attention, post-norm MLP."""
    # (B, T, D)
    x = network.norm(x + attention(network.attention, x, visible))
    # (B, T, D)
    return network.last(x + network.mlp(x))


def attention(network: Attention, x: Tensor, visible: Tensor) -> Tensor:
    """x (B, T, D), visible (B, T, T) or (T, T) -> what each token heard of those it sees, (B, T, D)."""
    # three times (B, T, D)
    query, key, value = (x @ part.weight.mT for part in (network.query, network.key, network.value))
    heard = []
    for q, k, v in zip(*(part.chunk(network.heads, -1) for part in (query, key, value)), strict=True):
        # (B, T, T)
        score = q @ k.mT / math.sqrt(q.shape[-1])
        # (B, T, T)
        weight = torch.softmax(score.masked_fill(~visible, -math.inf), -1)
        # (B, T, d)
        heard.append(weight @ v)
    # (B, T, D)
    return torch.cat(heard, -1) @ network.out.weight.mT
