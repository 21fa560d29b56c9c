"""Predicted against arrived: bins of alike predictions, what was meant in each and what came.

Sizes: N predictions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

BINS = 10


def reliability(probability: Tensor, happened: Tensor) -> dict[str, Any]:
    """Of a probability (N,) and whether it happened (N,) bool: ten equal spans of [0, 1], each with its mean prediction, the
    share that happened and its count; `brier`, the mean squared error, and `ece`, the mean gap of the bins by count.

    >>> found = reliability(torch.tensor([0.95, 0.95, 0.05, 0.05]), torch.tensor([True, True, False, True]))
    >>> found["count"][0], found["came"][0], round(found["ece"], 3), round(found["brier"], 4)
    (2, 0.5, 0.25, 0.2275)
    """
    probability, came = probability.double(), happened.double()
    place = (probability * BINS).long().clamp(0, BINS - 1)
    found = _bins(place, probability, came)
    gap = sum(n * abs(a - b) for n, a, b in zip(found["count"], found["said"], found["came"], strict=True) if n)
    brier = (probability - came).square().mean().item() if len(came) else None
    return found | {"brier": brier, "ece": gap / len(came) if len(came) else None, "rate": _mean(came)}


def numbers(said: Tensor, came: Tensor) -> dict[str, Any]:
    """Of predicted and arrived numbers (N,): bias (said - came), mae, rmse, and ten bins of equally many predictions in
    their order, fewer where predictions are alike.

    >>> found = numbers(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 2.0]))
    >>> found["bias"], found["mae"], round(found["rmse"], 3), found["said"]
    (0.5, 0.5, 0.707, [1.0, 2.0])
    """
    said, came = said.double(), came.double()
    error = said - came
    if not len(said):
        return {"bias": None, "mae": None, "rmse": None, "correlation": None, "count": [], "said": [], "came": []}
    cuts = said.sort().values[torch.arange(1, BINS) * len(said) // BINS].unique()
    found = _bins(torch.bucketize(said, cuts, right=True), said, came)
    there = [i for i, n in enumerate(found["count"]) if n]
    both = torch.stack([said, came])
    spread = both.std(1, unbiased=False)
    alike = (
        ((both - both.mean(1, keepdim=True)).prod(0).mean() / spread.prod()).item() if spread.min() > 1e-12 else None
    )
    return {
        "bias": error.mean().item(),
        "mae": error.abs().mean().item(),
        "rmse": error.square().mean().sqrt().item(),
        "correlation": alike,
        **{name: [values[i] for i in there] for name, values in found.items()},
    }


def _bins(place: Tensor, said: Tensor, came: Tensor) -> dict[str, list[Any]]:
    count = torch.zeros(BINS, dtype=torch.float64).index_add_(0, place, torch.ones_like(said))

    def means(values: Tensor) -> list[float]:
        return (torch.zeros_like(count).index_add_(0, place, values) / count.clamp(min=1)).tolist()

    return {"count": [int(n) for n in count.tolist()], "said": means(said), "came": means(came)}


def _mean(values: Tensor) -> float | None:
    return values.mean().item() if len(values) else None
