"""cosine -> the 40 most similar steps -> attention over them, with what was done there and in which order (Eq. 4, 5).

Read `wm_memory.plain` first: the same for one query, in straight lines.
Sizes: B batch, T queries, C columns (keys, oldest first), K selected, E embed, A action, R rows of positions.
Selection carries no gradient: it is the paper's "adaptive dropout", a hard choice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from wm_core.blocks import linear
from wm_core.precision import wide

from wm_memory.attention import Chosen, RecallBlock, attend_folded, attend_gathered
from wm_memory.bank import ages
from wm_memory.norms import BatchNorm


@torch.no_grad()
def cosine(query: Tensor, keys: Tensor) -> Tensor:
    """Cosine similarity in float32, without gradient: (B, T, E), (B, C, E) -> (B, T, C) (Eq. 4).

    >>> cosine(torch.tensor([[[3.0, 0.0]]]), torch.tensor([[[2.0, 0.0], [0.0, 5.0], [-1.0, 0.0]]])).tolist()
    [[[1.0, 0.0, -1.0]]]
    """
    with torch.autocast(query.device.type, enabled=False):
        query, keys = wide(query), wide(keys)
        query = query / query.norm(dim=-1, keepdim=True).clamp(min=1e-8)
        return (query @ keys.mT) / keys.norm(dim=-1).clamp(min=1e-8)[:, None]


@torch.no_grad()
def select(similarity: Tensor, mask: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` most similar columns among those the mask allows, in order of time: index and ok, each (B, T, K).

    K is the smaller of count and C. Slots beyond the allowed columns are not ok and come last. Among equals (to
    about 1e-6, what float32 leaves of a cosine) the latest wins, so that the choice does not depend on how the steps
    were cut into pieces, and repeated observations are remembered at their last visits.

    >>> index, ok = select(torch.tensor([[[0.9, 0.1, 0.5, 0.9]]]), torch.tensor([[[True, True, True, False]]]), count=2)
    >>> index.tolist(), ok.tolist()
    ([[[0, 2]]], [[[True, True]]])
    """
    columns = similarity.shape[-1]
    resolution = 2 ** min(20, 30 - columns.bit_length())  # similarity and column together fit 31 bits
    level = (similarity.clamp(-1, 1) * resolution).round().int() * columns
    level = level + torch.arange(columns, device=level.device, dtype=torch.int32)  # unique within a query
    level = level.masked_fill(~mask, torch.iinfo(torch.int32).min)
    index = level.topk(min(count, columns), -1, sorted=False).indices
    order = (index + columns * ~mask.gather(-1, index)).sort(-1).values
    return order % columns, order < columns


def sinusoids(count: int, width: int) -> Tensor:
    """The sinusoidal table of positions 1 to `count`: (count, width)."""
    position = torch.arange(1, count + 1, dtype=torch.float64)[:, None]
    rate = torch.exp(torch.arange(0, width, 2, dtype=torch.float64) * (-torch.log(torch.tensor(1e4)) / width))
    table = torch.zeros(count, width, dtype=torch.float64)
    table[:, 0::2] = torch.sin(position * rate)
    table[:, 1::2] = torch.cos(position * rate[: width // 2])
    return table.float()


class Positions(nn.Module):
    """Where a key lies, as an addend: `table` (R, E), and the row of it for each selected key."""

    table: Tensor

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.register_buffer("table", table, persistent=False)

    def forward(self, age: Tensor) -> Tensor:
        """age (B, T, K) in steps, oldest first -> rows of `table` (B, T, K)."""
        raise NotImplementedError(f"{type(self).__name__} does not say which row a key takes")


class RankPositions(Positions):
    """Sinusoids by rank in time among the selected keys, 1 the oldest: the paper's "preserves temporal order"."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__(sinusoids(count, width))

    def forward(self, age: Tensor) -> Tensor:
        return torch.arange(age.shape[-1], device=age.device).expand_as(age)


class AgePositions(Positions):
    """Sinusoids by age: how many steps ago a key was seen, up to the window."""

    def __init__(self, window: int, width: int) -> None:
        super().__init__(sinusoids(window, width))

    def forward(self, age: Tensor) -> Tensor:
        return (age - 1).clamp(0, len(self.table) - 1)


class NoPositions(Positions):
    """Keys without order ("w/o Pos")."""

    def __init__(self, width: int) -> None:
        super().__init__(torch.zeros(1, width))

    def forward(self, age: Tensor) -> Tensor:
        return torch.zeros_like(age)


class ActionEncoder(nn.Sequential):
    """f_a: action (..., A) -> (..., E), two times [Linear, norm, ReLU]."""

    def __init__(self, action: int, width: int, *, norm: Callable[[int], nn.Module] = BatchNorm) -> None:
        super().__init__(linear(action, width), norm(width), nn.ReLU(), linear(width, width), norm(width), nn.ReLU())

    def forward(self, action: Tensor, seen: Tensor | None = None) -> Tensor:
        """action (..., A); `seen` (...) bool says which of them batch statistics are of, None all."""
        if seen is None:
            for layer in self:
                action = layer(action)
            return action
        return self.encode(action.flatten(0, -2), seen.flatten().to(action.dtype)).unflatten(0, action.shape[:-1])

    def encode(self, x: Tensor, count: Tensor) -> Tensor:
        """Rows (R, A), which stand for `count` (R,) equal ones each -> (R, E)."""
        for layer in self:
            x = layer.weighted(x, count) if isinstance(layer, BatchNorm) else layer(x)
        return x


class OneHotActionEncoder(ActionEncoder):
    """The same function of the same weights for actions that are one-hot or zero: only A + 1 of them exist, so each is
    encoded once and looked up, and batch statistics weigh it by how often it occurs.

    >>> OneHotActionEncoder(4, 8)(torch.eye(4)[None, [0, 2, 2, 1, 3]]).shape
    torch.Size([1, 5, 8])
    """

    def forward(self, action: Tensor, seen: Tensor | None = None) -> Tensor:
        which = torch.cat([action, 1 - action.sum(-1, keepdim=True)], -1)  # the last column: no action
        found = which.detach() if seen is None else which.detach() * seen[..., None]
        count = found.flatten(0, -2).sum(0)
        x = torch.cat(
            [torch.eye(len(count) - 1, dtype=action.dtype, device=action.device), action.new_zeros(1, len(count) - 1)]
        )
        x = self.encode(x, count)
        return which.to(x.dtype) @ x


class NoActions(nn.Module):
    """Keys without what was done there ("w/o Act")."""

    def forward(self, action: Tensor, seen: Tensor | None = None) -> Tensor:
        return action.new_zeros(*action.shape[:-1], 1)


@dataclass(frozen=True)
class Reading:
    """What was recalled and how: f (B, T, E), the chosen keys, and each block's weights (B, H, T, K)."""

    f: Tensor
    chosen: Chosen
    weights: list[Tensor]


class Recall(nn.Module):
    """The memory encoder up to f_t: usable alone, on plain tensors. Read `wm_memory.plain.recall` first.

    f = recall(query, keys, actions, mask): query (B, T, E), keys (B, C, E) oldest first, actions (B, C, A) taken at the
    keys, mask (B, T, C) bool of the keys that each query may see -> (B, T, E). A query that may see none attends to
    itself. Similarity is the cosine of query and keys, or what the caller passes; it lies in [-1, 1].
    `positions` (default by rank) and `actions` (default f_a) are modules, to be replaced by others of the same call.

    >>> recall = Recall(width=16, action=3, count=4, heads=2).eval()
    >>> query, keys, actions = torch.randn(2, 5, 16), torch.randn(2, 30, 16), torch.zeros(2, 30, 3)
    >>> recall(query, keys, actions, torch.ones(2, 5, 30, dtype=torch.bool)).shape
    torch.Size([2, 5, 16])
    """

    def __init__(
        self,
        *,
        width: int,
        action: int,
        count: int = 40,
        blocks: int = 3,
        heads: int = 8,
        hidden: int | None = None,
        dropout: float = 0.1,
        positions: Positions | None = None,
        actions: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.width, self.count = width, count
        self.positions = positions or RankPositions(count, width)
        self.actions = actions or ActionEncoder(action, width)
        self.blocks = nn.ModuleList(
            [RecallBlock(width, heads=heads, hidden=hidden, dropout=dropout) for _ in range(blocks)]
        )

    def stack(self) -> list[RecallBlock]:
        """The blocks in order."""
        return cast(list[RecallBlock], list(self.blocks))

    def forward(
        self,
        query: Tensor,
        keys: Tensor,
        actions: Tensor,
        mask: Tensor,
        *,
        similarity: Tensor | None = None,
        age: Tensor | None = None,
    ) -> Tensor:
        return self.read(query, keys, actions, mask, similarity=similarity, age=age).f

    def read(
        self,
        query: Tensor,
        keys: Tensor,
        actions: Tensor,
        mask: Tensor,
        *,
        similarity: Tensor | None = None,
        age: Tensor | None = None,
    ) -> Reading:
        """As the call, with the selection and the attention weights. `age` (T, C): steps from key to query; when not
        given, the last key is taken to lie one step before every query."""
        steps, columns = mask.shape[-2:]
        similarity = cosine(query, keys) if similarity is None else similarity
        age = ages(1, columns + 1, mask.device)[:, :-1].expand(steps, -1) if age is None else age
        index, ok = select(similarity, mask, self.count)
        chosen = Chosen(index, ok, self.positions(age.expand(len(mask), -1, -1).gather(-1, index)))
        found = ok.any(-1, keepdim=True)
        gathered = self.gathers(steps, columns)
        if self.training:  # batch statistics are of the columns that any query may see, whichever way is taken
            acted = self.actions(actions, mask.any(1))
            tokens = self.near(keys + acted, chosen) if gathered else keys + acted
        else:
            tokens = self.near(keys, chosen, actions) if gathered else keys + self.actions(actions)
        x, weights = query, []
        for block in self.stack():
            if gathered:
                heard, weight = attend_gathered(block, x, tokens, ok)
            else:
                heard, weight = attend_folded(block, x, tokens, chosen, self.positions.table)
            x = block.finish(x, torch.where(found, heard, block.alone(query).to(heard.dtype)))
            weights.append(weight)
        return Reading(x, chosen, weights)

    def gathers(self, steps: int, columns: int) -> bool:
        """Whether the selected tokens are collected before they are projected: whichever projects fewer. Acting does, a
        batch does not."""
        return steps * min(self.count, columns) <= columns

    def near(self, keys: Tensor, chosen: Chosen, actions: Tensor | None = None) -> Tensor:
        """The selected keys (B, C, E), what `actions` (B, C, A) add where they are not in them yet, and positions: tokens
        F^c_k = f_o(o_k) + f_a(a_k) + Pos_k (B, T, K, E)."""
        row = torch.arange(len(keys), device=keys.device)[:, None, None]
        picked = keys[row, chosen.index]
        if actions is not None:
            picked = picked + self.actions(actions[row, chosen.index])
        return picked + self.positions.table[chosen.rows]


class Repeat(Recall):
    """Forty copies of the query as the only keys, without action and position ("CO+CO"): the same weights as Recall,
    and attention a constant map of the query: every copy gets the same weight.

    >>> recall = Repeat(width=16, action=3, count=4, heads=2).eval()
    >>> query, keys, actions = torch.randn(2, 5, 16), torch.randn(2, 30, 16), torch.zeros(2, 30, 3)
    >>> recall(query, keys, actions, torch.ones(2, 5, 30, dtype=torch.bool)).shape
    torch.Size([2, 5, 16])
    """

    def read(
        self,
        query: Tensor,
        keys: Tensor,
        actions: Tensor,
        mask: Tensor,
        *,
        similarity: Tensor | None = None,
        age: Tensor | None = None,
    ) -> Reading:
        slots = (*mask.shape[:-1], self.count)
        nothing = torch.zeros(slots, dtype=torch.int64, device=mask.device)
        chosen = Chosen(nothing, torch.zeros(slots, dtype=torch.bool, device=mask.device), nothing)
        x, weights = query, []
        for block in self.stack():
            q, (k, v) = block.queries(x), block.keys_values(query)  # each (B, H, T, d)
            logits = (q * k).sum(-1, keepdim=True).expand(-1, -1, -1, self.count)
            weight = wide(logits).softmax(-1)
            heard = block.weights_dropout(weight).sum(-1, keepdim=True).to(v.dtype) * v
            x = block.finish(x, heard.transpose(1, 2).flatten(-2))
            weights.append(weight)
        return Reading(x, chosen, weights)
