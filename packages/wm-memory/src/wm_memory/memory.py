"""bank -> recall -> bottleneck: what a dynamics needs to remember, in the carry it keeps.

Sizes: B batch, T time, P past, M window, C = M + T columns, E memory features, V bottleneck.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from wm_core.types import Carry, Past

from wm_memory import bank
from wm_memory.recall import Reading, Recall, cosine


@dataclass(frozen=True)
class Recalled:
    """f (B, T, E), its bottleneck's value (B, T, V), the bank after the last step, and each step's key (B, T, E)."""

    f: Tensor
    value: Tensor
    bank: bank.Bank
    key: Tensor


def learning_content(key: Tensor, memory: Tensor) -> Tensor:
    """What the columns say: stored keys for the prefix, the frames as they train for the T steps of the chunk."""
    return torch.cat([key[:, : -memory.shape[1]], memory.to(key.dtype)], 1)


def stored_content(key: Tensor, memory: Tensor) -> Tensor:
    """What the columns say, without gradient anywhere: the keys alone."""
    return key


CONTENTS = {"chunk": learning_content, "none": stored_content}


class Memory(nn.Module):
    """Everything up to f^v, for all steps at once and outside the time loop: it needs no recurrent state.

    window (tau) steps are remembered, those of earlier episodes too unless `sight` is `bank.this_episode`. Embeddings:
    "memory" is the query and the content of the keys within the chunk (with gradient, unless content is "none");
    "key", without gradient, is what similarity is measured on, what the bank keeps and what replay stores.
    `bottleneck` maps f (..., E) to (..., V); its `width` attribute is V, or E where it has none (nn.Identity).

    >>> memory = Memory(Recall(width=16, action=3, count=4), action=3, window=10)
    >>> embed = {"memory": torch.zeros(2, 5, 16), "key": torch.zeros(2, 5, 16)}
    >>> carry = memory.initial(2)
    >>> memory(carry, embed, torch.zeros(2, 5, 3), torch.zeros(2, 5, dtype=torch.bool)).value.shape
    torch.Size([2, 5, 16])
    """

    def __init__(
        self,
        recall: Recall,
        *,
        action: int,
        window: int = 800,
        bottleneck: nn.Module | None = None,
        sight: bank.Sight = bank.across_episodes,
        content: Literal["chunk", "none"] = "chunk",
    ) -> None:
        super().__init__()
        self.recall, self.bottleneck = recall, bottleneck or nn.Identity()
        self.action, self.window, self.sight = action, window, sight
        self.content = CONTENTS[content]
        self.width = int(getattr(bottleneck, "width", recall.width))
        self.stores = {"key": window}

    def initial(self, *lead: int) -> bank.Bank:
        """The empty bank, for leading sizes (B,); several agents are folded into B, each with a memory of its own."""
        device = next(self.parameters()).device
        return bank.empty(lead, window=self.window, width=self.recall.width, action=self.action, device=device)

    def prefill(self, carry: Carry, past: Past) -> bank.Bank:
        """The bank after the past steps; see `bank.load`."""
        return bank.load(carry, past)

    def forward(self, carry: Carry, embed: Mapping[str, Tensor], action: Tensor, reset: Tensor) -> Recalled:
        columns, reading, _ = self.look(carry, embed, action, reset)
        return Recalled(reading.f, self.bottleneck(reading.f), bank.newest(columns, self.window), embed["key"].detach())

    def look(
        self, carry: Carry, embed: Mapping[str, Tensor], action: Tensor, reset: Tensor
    ) -> tuple[bank.Bank, Reading, Tensor]:
        """The columns, what was read from them, and the similarity (B, T, C) it was chosen by."""
        columns = bank.extend(carry, embed["key"], action, reset)
        content = self.content(columns["key"], embed["memory"])
        mask = self.sight(columns, self.window)
        similarity = cosine(embed["key"], columns["key"])
        age = bank.ages(reset.shape[1], columns["first"].shape[1], reset.device)
        taken = bank.taken(columns)
        reading = self.recall.read(embed["memory"], content, taken, mask, similarity=similarity, age=age)
        return columns, reading, similarity
