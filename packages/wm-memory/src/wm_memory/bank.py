"""The last M steps of a stream, in a carry: keys, the actions between them, and where episodes begin.

Sizes: B batch, M window, T new steps, C = M + T columns, E embed, A action, P past.
Columns run oldest first: M remembered steps, then the T new ones. Query t, which lies in column M + t, may see the M
columns before it (tau in the paper), never its own. A step carries the action that LED to it; the action taken AT a
column is therefore the next column's, and the newest column has none until the next step arrives.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from wm_core.types import Past

Bank = dict[str, Tensor]  # key (B, C, E) float32, action (B, C, A), first (B, C) bool, valid (B, C) bool
Sight = Callable[[Bank, int], Tensor]  # columns, window -> which columns each new step may see: (B, T, C) bool


def empty(lead: tuple[int, ...], *, window: int, width: int, action: int, device: torch.device | str = "cpu") -> Bank:
    """A bank that remembers nothing: M columns, none valid.

    >>> {name: tuple(value.shape) for name, value in empty((2,), window=5, width=8, action=3).items()}
    {'key': (2, 5, 8), 'action': (2, 5, 3), 'first': (2, 5), 'valid': (2, 5)}
    """
    return {
        "key": torch.zeros(*lead, window, width, device=device),
        "action": torch.zeros(*lead, window, action, device=device),
        "first": torch.zeros(*lead, window, dtype=torch.bool, device=device),
        "valid": torch.zeros(*lead, window, dtype=torch.bool, device=device),
    }


def extend(bank: Bank, key: Tensor, action: Tensor, first: Tensor) -> Bank:
    """The columns of a bank (B, M, ...) followed by T new, valid steps: (B, M + T, ...). No gradient passes."""
    new = {"key": key, "action": action, "first": first, "valid": torch.ones_like(first)}
    return {name: torch.cat([bank[name], value.to(bank[name].dtype)], 1).detach() for name, value in new.items()}


def newest(columns: Bank, window: int) -> Bank:
    """The bank after these columns: the last M of them."""
    return {name: columns[name][:, -window:] for name in ("key", "action", "first", "valid")}


def load(bank: Bank, past: Past) -> Bank:
    """The bank after the P past steps, from the keys that replay kept of them. Rows without any valid past keep `bank`.

    From an empty bank and fresh keys this is the bank that observing those steps leaves, up to the float16 of replay.
    """
    key = past.stored["key"]
    last = key.shape[1]
    if last == 0:
        return bank
    window = bank["key"].shape[1]
    steps = {
        "key": key,
        "action": past.action[:, -last:],
        "first": past.first[:, -last:],
        "valid": past.valid[:, -last:],
    }
    any_valid = past.valid.any(1)
    found = {}
    for name, value in steps.items():
        joined = torch.cat([bank[name], value.to(bank[name].dtype)], 1)[:, -window:]
        found[name] = torch.where(any_valid.reshape(-1, *[1] * (joined.ndim - 1)), joined, bank[name])
    return found


def taken(columns: Bank) -> Tensor:
    """The action taken AT each column (B, C, A): the next column's `action`, zeros where that one begins an episode.

    >>> columns = {"action": torch.tensor([[[0.0], [7.0], [0.0], [9.0]]]), "first": torch.tensor([[1, 0, 1, 0]]) > 0}
    >>> taken(columns).flatten().tolist()
    [7.0, 0.0, 9.0, 0.0]
    """
    led = columns["action"] * (~columns["first"])[..., None].float()
    return torch.cat([led[:, 1:], torch.zeros_like(led[:, :1])], 1)


def ages(steps: int, columns: int, device: torch.device | str = "cpu") -> Tensor:
    """How many steps before query t each column lies (T, C): 1 is the step just before it, 0 the query's own.

    >>> ages(2, 5).tolist()
    [[3, 2, 1, 0, -1], [4, 3, 2, 1, 0]]
    """
    query = torch.arange(columns - steps, columns, device=device)
    return query[:, None] - torch.arange(columns, device=device)


def across_episodes(columns: Bank, window: int) -> Tensor:
    """The band: query t sees the valid ones among the M columns before it, whatever their episode: (B, T, C)."""
    count = columns["valid"].shape[1]
    age = ages(count - window, count, columns["valid"].device)
    return ((age > 0) & (age <= window)) & columns["valid"][:, None]


def this_episode(columns: Bank, window: int) -> Tensor:
    """The band without the columns of earlier episodes ("CE only" in the paper's Table 2): (B, T, C)."""
    episode = columns["first"].long().cumsum(1)
    return across_episodes(columns, window) & (episode[:, window:, None] == episode[:, None])
