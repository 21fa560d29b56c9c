"""Which earlier tokens a token may see, and at which position it stands: through episode ends, or within one episode.

Sizes: B rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Sight = Callable[[Tensor], tuple[Tensor, Tensor | None]]
"""first (B, T) bool -> positions (B, T) int64, and who sees whom (B, T, T) bool, or None where all see all before."""


def across_episodes(first: Tensor) -> tuple[Tensor, None]:
    """Attention runs across episode ends and positions count from the first token, as in STORM's public code.

    >>> across_episodes(torch.tensor([[True, False, True]]))
    (tensor([[0, 1, 2]]), None)
    """
    return torch.arange(first.shape[1], device=first.device).expand(first.shape), None


def within_episode(first: Tensor) -> tuple[Tensor, Tensor]:
    """A token sees its own episode alone, and positions begin again with it: what precedes a reset is gone.

    >>> position, visible = within_episode(torch.tensor([[True, False, True]]))
    >>> position.tolist(), visible[0].int().tolist()
    ([[0, 1, 0]], [[1, 0, 0], [1, 1, 0], [0, 0, 1]])
    """
    index = torch.arange(first.shape[1], device=first.device)
    episode = first.long().cumsum(1)  # (B, T)
    visible = (index <= index[:, None]) & (episode[:, None] == episode[..., None])
    return visible.long().sum(-1) - 1, visible
