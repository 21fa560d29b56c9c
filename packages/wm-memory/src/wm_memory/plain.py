"""Recall for one query after another, in straight lines and above each line its shape: read this first.

`recall` is what `wm_memory.recall.Recall` computes in evaluation mode, whichever way it takes: columns projected once
and scalars selected (`attend_folded`), or tokens collected first (`attend_gathered`). The tests hold both to these
lines, values and gradients, in float64.
Sizes: B batch, T queries, C columns (keys, oldest first), K chosen, E embed, A action, H heads, d = E / H.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from wm_memory.attention import RecallBlock
    from wm_memory.recall import Recall


def recall(network: Recall, query: Tensor, keys: Tensor, actions: Tensor, mask: Tensor) -> Tensor:
    """query (B, T, E), keys (B, C, E), actions (B, C, A) taken at them, mask (B, T, C) bool -> f (B, T, E).

    By a Recall's parameters; the last key is taken to lie one step before every query.

    >>> from wm_memory import Recall
    >>> _ = torch.manual_seed(0)
    >>> network = Recall(width=16, action=3, count=4, heads=2).eval()
    >>> query, keys, actions = torch.randn(2, 5, 16), torch.randn(2, 30, 16), torch.zeros(2, 30, 3)
    >>> mask = torch.rand(2, 5, 30) < 0.5
    >>> fast = network(query, keys, actions, mask)
    >>> torch.allclose(recall(network, query, keys, actions, mask), fast, atol=1e-4)
    True
    """
    rows, steps = mask.shape[:2]
    each = [
        [remember(network, query[b, t], keys[b], actions[b], mask[b, t]) for t in range(steps)] for b in range(rows)
    ]
    return torch.stack([torch.stack(row) for row in each])


def remember(network: Recall, query: Tensor, keys: Tensor, actions: Tensor, mask: Tensor) -> Tensor:
    """One query (E,), keys (C, E), actions (C, A), mask (C,) -> f (E,)."""
    # (C,): Eq. 4
    similarity = keys @ query / (keys.norm(dim=-1) * query.norm())
    # (K,)
    chosen = choose(similarity.detach(), mask, network.count)
    if len(chosen):
        # (K, E): where each lies, by its age in steps
        positions = network.positions.table[network.positions(len(keys) - chosen)]
        # (K, E): F^c_k = f_o(o_k) + f_a(a_k) + Pos_k
        tokens = keys[chosen] + network.actions(actions[chosen]) + positions
    else:
        # (1, E): with nothing to remember a query attends to itself
        tokens = query[None]
    # (E,)
    x = query
    for block in network.stack():
        x = attend(block, x, tokens)
    return x


def choose(similarity: Tensor, mask: Tensor, count: int) -> Tensor:
    """similarity (C,) and mask (C,) -> the `count` most similar of those allowed, or all, in order of time: (K,).

    >>> choose(torch.tensor([0.9, 0.1, 0.5, 0.9, 0.5]), torch.tensor([True, True, True, False, True]), count=2).tolist()
    [0, 4]
    """
    # (allowed,): the latest first, for among equals it wins
    allowed = mask.nonzero()[:, 0].flip(0)
    # (allowed,)
    order = similarity[allowed].sort(descending=True, stable=True).indices
    # (K,)
    return allowed[order[:count]].sort().values


def attend(block: RecallBlock, x: Tensor, tokens: Tensor) -> Tensor:
    """One block (Eq. 5): x (E,), tokens (K, E) -> the next x (E,)."""
    # (E,)
    query = block.query(x)
    # (K, E), (K, E)
    keys, values = block.keyvalue(tokens).chunk(2, -1)
    heard = []
    for q, k, v in zip(*(part.chunk(block.heads, -1) for part in (query, keys, values)), strict=True):
        # (K,)
        weight = torch.softmax(k @ q / math.sqrt(len(q)), 0)
        # (d,)
        heard.append(weight @ v)
    # (E,)
    x = block.norm(x + block.out(torch.cat(heard)))
    # (E,)
    return block.last(x + block.mlp(x))
