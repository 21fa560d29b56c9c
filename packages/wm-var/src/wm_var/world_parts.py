"""A critic and a generator -> what a world model takes to learn with value alignment: the loss, and how the prior is drawn."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
from torch import nn

from wm_var.alignment import ValueAlignment
from wm_var.drawing import probabilities, sample


def world_parts(
    critic: nn.Module,
    generator: torch.Generator,
    *,
    state: Literal["sample", "probabilities"] = "sample",
    weight: float = 0.0,
    detach: tuple[str, ...] = (),
    **numbers: Any,
) -> dict[str, Any]:
    """What value alignment adds to `wm_core.WorldModel`, by the names of its arguments: `regularisers` and `draw`.

    Args:
        critic: whose values are aligned, see `ValueAlignment`, which refuses some.
        generator: that nothing else draws from, see `sample`.
        state: the prior's stochastic state: a sample of its logits (..., S, K), or their probabilities.
        weight: a constant in the place of the adaptive beta; 0: adaptive.
        detach: features whose gradient is cut.
        numbers: `warmup`, `unit`, `dyn` and `rep` of `ValueAlignment`.

    >>> parts = world_parts(nn.Linear(4, 3), torch.Generator().manual_seed(0), warmup=10)
    >>> list(parts["regularisers"]), parts["draw"](torch.zeros(2, 5, 4, 3)).shape
    (['var'], torch.Size([2, 5, 4, 3]))
    """
    term = ValueAlignment(critic, weight=weight or None, detach=detach, **numbers)
    draw = {"sample": partial(sample, generator=generator), "probabilities": probabilities}[state]
    return {"regularisers": {"var": term}, "draw": draw}
