"""Which steps a memory chose -> how old they are, and how many lie in earlier episodes.

Sizes: B rows, T queries, K chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

EDGES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)  # an age counts in the last span whose edge it has reached


def recalled(age: Tensor, earlier: Tensor, ok: Tensor, edges: Sequence[int] = EDGES) -> dict[str, Any]:
    """Of ages in steps (B, T, K), whether a step lies in an earlier episode, and which of the K were chosen at all: the share
    of the chosen in each span of ages, their median, the share from earlier episodes, and how many are chosen at a time.

    >>> found = recalled(torch.tensor([[[1, 5, 9]]]), torch.tensor([[[0, 1, 1]]]) > 0, torch.tensor([[[1, 1, 0]]]) > 0)
    >>> found["share"][:4], found["earlier"], found["median_age"], found["found"]
    ([0.5, 0.0, 0.5, 0.0], 0.5, 1.0, 2.0)
    """
    ages, count = age[ok], int(ok.sum())
    place = torch.bucketize(ages, torch.tensor(edges, device=ages.device), right=True) - 1
    share = torch.bincount(place.clamp(min=0), minlength=len(edges)) / max(count, 1)
    return {
        "edges": list(edges),
        "share": share.tolist(),
        "median_age": float(ages.float().median()) if count else None,
        "earlier": float((earlier & ok).sum()) / count if count else None,
        "found": ok.sum(-1).float().mean().item(),
    }
