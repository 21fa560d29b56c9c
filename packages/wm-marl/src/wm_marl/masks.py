"""Available actions of a dream: drawn as well as taken by their mode, and held against those that were recorded.

Sizes: M starts, H horizon, R rows, T time, A actions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from wm_core.contracts import MaskDistribution, Metrics
from wm_core.distributions import Bernoullis, filled


class SampledBernoullis(Bernoullis):
    """Masks that are drawn, by which a policy meets what a young head holds for unlikely.

    >>> SampledBernoullis(torch.full((1000, 1), 0.0)).allowed().all().item()  # the only action is always allowed
    True
    """

    def allowed(self) -> Tensor:
        return filled(self.sample(), self.logits)


Masks = Callable[[Tensor], MaskDistribution]
MASKS: Mapping[str, Masks] = {"mode": Bernoullis, "sample": SampledBernoullis}  # what is made of a mask head's logits


@torch.no_grad()
def mask_metrics(predicted: Tensor | None, true: Tensor) -> Metrics:
    """Of dreams' first masks (M, H+1, A), rows in the batch's order, against the records' (R, T, A): health/mask_recall, the
    share of what was available that was said to be, and mask_precision.

    >>> true = torch.tensor([[[True, True, False]]])
    >>> {name: value.item() for name, value in mask_metrics(torch.tensor([[[True, False, False]]]), true).items()}
    {'health/mask_recall': 0.5, 'health/mask_precision': 1.0}
    """
    assert predicted is not None
    first = predicted[:, 0].unflatten(0, (len(true), -1))
    true = true[:, -first.shape[1] :]
    both = (first & true).sum()
    return {
        "health/mask_recall": both / true.sum().clamp(min=1),
        "health/mask_precision": both / first.sum().clamp(min=1),
    }
