"""What agents say to each other and what a policy learns of a dream, in straight lines: read these first.

| here | what runs |
|---|---|
| `block`, `transformer` | `wm_marl.transformer.Block`, `AgentTransformer` |

The tests hold the one to the other, values and gradients, in float64.
Sizes: N agents, D width, H heads, d = D / H.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from wm_marl.transformer import AgentTransformer


def transformer(network: AgentTransformer, tokens: Tensor) -> Tensor:
    """One team's tokens (N, I) -> (N, D), by an AgentTransformer's weights.

    >>> from wm_marl import AgentTransformer
    >>> network = AgentTransformer(6, agents=3, width=16, layers=2, heads=4, hidden=32)
    >>> tokens = torch.randn(3, 6)
    >>> torch.allclose(transformer(network, tokens), network(tokens), atol=1e-5)
    True
    """
    # (N, D)
    x = tokens @ network.begin.weight.mT + network.begin.bias
    if network.identity is not None:
        # (N, D): who is who
        x = x + network.identity
    for one in network.blocks:
        x = block(one, x)
    return norm(network.norm, x)


def block(network: Any, x: Tensor) -> Tensor:
    """One team's tokens (N, D) -> (N, D), by a Block's weights: pre-norm attention, pre-norm MLP."""
    # three times (N, D)
    layer = network.queries_keys_values
    query, key, value = (norm(network.first, x) @ layer.weight.mT + layer.bias).chunk(3, -1)
    heard = []
    for q, k, v in zip(*(part.chunk(network.heads, -1) for part in (query, key, value)), strict=True):
        # (N, N): how much agent i listens to agent j
        weight = torch.softmax(q @ k.mT / math.sqrt(q.shape[-1]), -1)
        # (N, d)
        heard.append(weight @ v)
    # (N, D)
    x = x + torch.cat(heard, -1) @ network.out.weight.mT + network.out.bias
    inner, _, outer = network.mlp
    # (N, hidden)
    y = norm(network.second, x) @ inner.weight.mT + inner.bias
    # (N, hidden): GELU
    y = y * 0.5 * (1 + torch.erf(y / math.sqrt(2)))
    # (N, D)
    return x + y @ outer.weight.mT + outer.bias


def norm(network: Any, x: Tensor) -> Tensor:
    """LayerNorm: (..., C) -> (..., C)."""
    # (..., C)
    centred = x - x.mean(-1, keepdim=True)
    # (..., C)
    return centred / torch.sqrt(centred.square().mean(-1, keepdim=True) + network.eps) * network.weight + network.bias
