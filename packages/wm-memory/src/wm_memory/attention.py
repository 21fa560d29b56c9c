"""One block of the memory encoder: few selected keys out of many columns are attended to, then a small MLP (Eq. 5).

Read `wm_memory.plain.attend` first: one query, in straight lines.
Sizes: B batch, T queries, C columns, K selected keys per query, E embed, H heads, d = E / H, R rows of positions.
Two ways to the same numbers: `attend_folded` projects every column once and selects among scalars, `attend_gathered`
collects the selected tokens first. The second is cheaper when T * K is below C, as it is when acting.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from wm_core import draws
from wm_core.blocks import linear
from wm_core.precision import wide


@dataclass(frozen=True)
class Chosen:
    """The keys selected for each query, in order of time, oldest first; the slots that are not `ok` come last.

    index (B, T, K) columns, all different within a query; ok (B, T, K) bool; rows (B, T, K) rows of the positions.
    """

    index: Tensor
    ok: Tensor
    rows: Tensor


class Dropout(nn.Module):
    """Dropout whose noise comes from `wm_core.draws`, so that a run with it can be resumed bit by bit.

    >>> Dropout(0.5).eval()(torch.ones(3)).tolist()
    [1.0, 1.0, 1.0]
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"a dropout rate lies in [0, 1), not {rate}")
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        return x * ((draws.uniform(x.shape, x.device) >= self.rate).to(x.dtype) / (1 - self.rate))

    def extra_repr(self) -> str:
        return str(self.rate)


class RecallBlock(nn.Module):
    """x = norm(x + attention(x, keys)); x = norm(x + MLP(x)), with dropout on the weights and on both branches.

    `hidden` is the MLP's width. The paper says "hidden dimension 512", which is E: taken literally.
    """

    def __init__(self, width: int, *, heads: int = 8, hidden: int | None = None, dropout: float = 0.1) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"{width} features cannot be split among {heads} attention heads")
        hidden = hidden or width
        self.heads = heads
        self.query, self.keyvalue, self.out = linear(width, width), linear(width, 2 * width), linear(width, width)
        self.norm, self.last = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential(linear(width, hidden), nn.ReLU(), linear(hidden, width))
        self.weights_dropout, self.dropout = Dropout(dropout), Dropout(dropout)

    def queries(self, x: Tensor) -> Tensor:
        """x (B, T, E) -> scaled queries (B, H, T, d)."""
        q = self.query(x).unflatten(-1, (self.heads, -1)).transpose(-3, -2)
        return q * q.shape[-1] ** -0.5

    def keys_values(self, tokens: Tensor, bias: bool = True) -> tuple[Tensor, Tensor]:
        """tokens (..., N, E) -> keys and values, each (..., H, N, d). What is added to a token goes in without bias."""
        both = F.linear(tokens, self.keyvalue.weight, self.keyvalue.bias if bias else None)
        k, v = both.unflatten(-1, (2, self.heads, -1)).unbind(-3)
        return k.transpose(-3, -2), v.transpose(-3, -2)

    def alone(self, query: Tensor) -> Tensor:
        """What attending to the query itself, as the only key, gives: (B, T, E). Its weight is one, so just its value."""
        width = query.shape[-1]
        return F.linear(query, self.keyvalue.weight[width:], self.keyvalue.bias[width:])

    def finish(self, x: Tensor, heard: Tensor) -> Tensor:
        """x (B, T, E) and what attention brought, before its output layer (B, T, E) -> the next x."""
        x = self.norm(x + self.dropout(self.out(heard)))
        return self.last(x + self.dropout(self.mlp(x)))


def masked_softmax(logits: Tensor, ok: Tensor) -> Tensor:
    """Softmax over the slots that are ok, not in half precision; uniform, and to be discarded, where none is."""
    logits = wide(logits)
    return F.softmax(logits.masked_fill(~ok, torch.finfo(logits.dtype).min), -1)


def attend_folded(
    block: RecallBlock, x: Tensor, tokens: Tensor, chosen: Chosen, table: Tensor
) -> tuple[Tensor, Tensor]:
    """x (B, T, E), tokens (B, C, E), table (R, E) of positions -> heard (B, T, E), weights (B, H, T, K).

    A position is added to the token, and keys and values are linear, so
    q . (W_K (x_j + p_r)) = q . W_K x_j + q . W_K p_r, and likewise for values: columns and positions are projected once
    each, and only scalars are picked and put back.
    """
    q = block.queries(x)
    k, v = block.keys_values(tokens)  # (B, H, C, d)
    pk, pv = block.keys_values(table, bias=False)  # (H, R, d)
    index = chosen.index[:, None].expand(-1, block.heads, -1, -1)  # (B, H, T, K)
    rows = chosen.rows[:, None].expand_as(index)
    by_column, by_row = q @ k.mT, q @ pk.mT  # (B, H, T, C), (B, H, T, R)
    logits = by_column.gather(-1, index) + by_row.gather(-1, rows)
    weights = masked_softmax(logits, chosen.ok[:, None])
    kept = block.weights_dropout(weights)
    columns = torch.zeros(by_column.shape, dtype=kept.dtype, device=kept.device).scatter(-1, index, kept)
    positions = torch.zeros(by_row.shape, dtype=kept.dtype, device=kept.device).scatter_add(-1, rows, kept)
    heard = columns.to(v.dtype) @ v + positions.to(v.dtype) @ pv
    return heard.transpose(1, 2).flatten(-2), weights


def attend_gathered(block: RecallBlock, x: Tensor, tokens: Tensor, ok: Tensor) -> tuple[Tensor, Tensor]:
    """x (B, T, E), tokens (B, T, K, E) with their positions added -> heard (B, T, E), weights (B, H, T, K)."""
    q = block.queries(x).transpose(1, 2)[..., None, :]  # (B, T, H, 1, d)
    k, v = block.keys_values(tokens)  # (B, T, H, K, d)
    weights = masked_softmax(q @ k.mT, ok[..., None, None, :])  # (B, T, H, 1, K)
    heard = block.weights_dropout(weights).to(v.dtype) @ v
    return heard.flatten(-3), weights[..., 0, :].transpose(1, 2)
