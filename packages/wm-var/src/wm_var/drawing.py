"""The prior's logits -> its stochastic state for value alignment: a sample, or the probabilities.

Sizes: S latents of K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor


def sample(logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """One-hot samples with the gradient of the probabilities (straight-through): logits (..., S, K) -> the same shape.

    Give a generator that nothing else draws from: then a run with value alignment takes the same numbers elsewhere as
    one without, and equals it bit by bit until the warm-up ends.

    >>> sample(torch.zeros(2, 5, 4, 3), torch.Generator().manual_seed(0)).sum(-1).unique()
    tensor([1.])
    """
    probs = torch.softmax(logits, -1)
    noise = torch.empty_like(probs, requires_grad=False).exponential_(generator=generator)
    hard = torch.zeros_like(probs).scatter_(-1, (probs.detach() / noise).argmax(-1, keepdim=True), 1.0)
    return hard + (probs - probs.detach())


def probabilities(logits: Tensor) -> Tensor:
    """The probabilities in place of a sample: less noise, and no longer what the paper's Eq. 1 says.

    >>> probabilities(torch.zeros(2, 4)).tolist()
    [[0.25, 0.25, 0.25, 0.25], [0.25, 0.25, 0.25, 0.25]]
    """
    return torch.softmax(logits, -1)
