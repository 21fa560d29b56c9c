"""Keys and values of the tokens so far, in memory taken once: a step of imagination computes one token and reads the rest.

Read `wm_tssm.plain.dream` first: the same numbers, all computed anew for every token.
Sizes: M rollouts, P tokens before the dream, L layers, C capacity, H heads, d features of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

KeysValues = tuple[Tensor, Tensor]  # each (M, H, tokens, d)


class Memory:
    """The keys and values of every layer, (L, 2, M, H, C, d); `filled` tokens of it are some cache's."""

    def __init__(self, held: Tensor, filled: int) -> None:
        self.held, self.filled = held, filled


@dataclass(frozen=True)
class Cache:
    """What M rollouts remember after their last token.

    position (M,) is that of the next token; visible (M, P) says which of the tokens before the dream a rollout sees,
    None: all. To go on by one token: `reserve`, `write` and `read` in each layer, `advance`. This cache stays as it is:
    the newest writes into the memory that all share, one that is gone on from a second time copies.
    """

    memory: Memory
    used: int
    position: Tensor
    visible: Tensor | None = None

    @classmethod
    def of(cls, layers: list[KeysValues], *, room: int, position: Tensor, visible: Tensor | None = None) -> Cache:
        """A cache that holds the keys and values (M, H, P, d) of every layer and has room for `room` more tokens."""
        held = torch.stack([torch.stack(pair) for pair in layers])
        used = held.shape[-2]
        if not held.requires_grad:
            held = _with_room(held, used, used + room)
        return cls(Memory(held, used), used, position, visible)

    def reserve(self) -> Cache:
        """The same with memory of its own for the next token."""
        memory, used = self.memory, self.used
        if memory.filled == used < memory.held.shape[-2]:
            memory.filled += 1
            return self
        length = memory.held.shape[-2]
        longer = length if used < length else 2 * length
        return replace(self, memory=Memory(_with_room(memory.held, used, longer), used + 1))

    def write(self, layer: int, keys: Tensor, values: Tensor) -> Cache:
        """Put the next token's keys and values (M, H, 1, d) of one layer into what `reserve` gave.

        Memory that gradient flows through is replaced instead, for what was computed from it may be asked for again.
        """
        memory, at = self.memory, slice(self.used, self.used + 1)
        if keys.requires_grad or memory.held.requires_grad:
            memory = Memory(memory.held.clone(), memory.filled)
        memory.held[layer, 0, :, :, at], memory.held[layer, 1, :, :, at] = keys, values
        return replace(self, memory=memory)

    def read(self, layer: int) -> KeysValues:
        """Keys and values (M, H, used + 1, d) of a layer, with those just written."""
        keys, values = self.memory.held[layer, :, :, :, : self.used + 1].unbind(0)
        return keys, values

    def advance(self) -> Cache:
        """The cache after the token that was written in every layer."""
        return replace(self, used=self.used + 1, position=self.position + 1)

    def mask(self) -> Tensor | None:
        """What the next token sees, (M, 1, 1, used + 1), itself included; None: everything."""
        return None if self.visible is None else self.seen(1)[:, None, None]

    def rows(self, index: Tensor) -> Cache:
        """The rollouts `index` (K,) in memory of their own, which begins with the first token that one of them sees."""
        held, seen = self.memory.held[:, :, index, :, : self.used], self.seen()[index]
        begin = int((~seen).all(0).long().cumprod(0).sum())  # tokens that only others saw
        room = max(1, self.memory.held.shape[-2] - self.used)
        held = _with_room(held[..., begin:, :], self.used - begin, self.used - begin + room)
        visible = None if self.visible is None else seen[:, begin:]
        return Cache(Memory(held, self.used - begin), self.used - begin, self.position[index], visible)

    def joined(self, others: Sequence[Cache]) -> Cache:
        """These rollouts and, after them, those of the others. What came before a shorter memory is seen by nobody in it."""
        caches = (self, *others)
        used = max(cache.used for cache in caches)
        held = torch.cat([F.pad(one.memory.held[..., : one.used, :], (0, 0, used - one.used, 0)) for one in caches], 2)
        room = max(1, *(one.memory.held.shape[-2] - one.used for one in caches))
        alike = all(one.used == used and one.visible is None for one in caches)
        visible = None if alike else torch.cat([F.pad(one.seen(), (used - one.used, 0)) for one in caches])
        memory = Memory(_with_room(held, used, used + room), used)
        return Cache(memory, used, torch.cat([one.position for one in caches]), visible)

    def seen(self, more: int = 0) -> Tensor:
        """(M, used + more) which tokens, and which of as many more, a rollout sees."""
        if self.visible is None:
            return torch.ones(len(self.position), self.used + more, dtype=torch.bool, device=self.position.device)
        dreamt = self.visible.new_ones(len(self.visible), self.used + more - self.visible.shape[1])
        return torch.cat([self.visible, dreamt], 1)


def _with_room(held: Tensor, used: int, length: int) -> Tensor:
    """A copy of the first `used` tokens in memory for `length`."""
    longer = held.new_empty(*held.shape[:-2], length, held.shape[-1])
    longer[..., :used, :] = held[..., :used, :]
    return longer
