"""Rows of a batch whose recurrent state begins as an episode's does, although something lies before them.

DreamerV3 of 2023 begins each row so, that of 2025 with what replay keeps of the step before. Sizes: B batch, T time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from wm_core.rssm import RSSM
from wm_core.types import Carry, Latent, Past, Start, Trace

BEGINS = "begins"  # in a carry (B,): the next step begins a row, and for the recurrent state an episode


def begun(carry: Carry) -> Carry:
    """The carry with the next step as its beginning."""
    where = carry["deter"]
    return carry | {BEGINS: torch.ones(len(where), dtype=torch.bool, device=where.device)}


def resets(carry: Carry, reset: Tensor) -> Tensor:
    """Where the recurrent state begins anew (B, T): with every episode, and where the carry says so.

    >>> reset = torch.tensor([[False, False, True]])
    >>> carry = begun({"deter": torch.zeros(1, 4)})
    >>> resets(carry, reset).tolist(), resets({}, reset) is reset
    ([[True, False, True]], True)
    """
    if BEGINS not in carry:
        return reset
    return torch.cat([reset[:, :1] | carry[BEGINS][:, None], reset[:, 1:]], 1)


class Around(nn.Module):
    """What a `Dynamics` around an RSSM leaves to it: dreams. How rows begin and what they see is its own."""

    rssm: RSSM

    def imagine(self, start: Start, action: Tensor) -> tuple[Start, Latent]:
        return self.rssm.imagine(start, action)

    def starts(self, trace: Trace, last: int) -> tuple[Start, Latent]:
        return self.rssm.starts(trace, last)

    def left(self, carry: Carry) -> float:
        return math.inf

    def prior_logits(self, deter: Tensor) -> Tensor:
        return self.rssm.prior_logits(deter)


class InitialRows(Around):
    """A `Dynamics`: an RSSM that stores nothing, since rows begin with its initial state.

    Args:
        rssm: the model itself.

    >>> model = InitialRows(RSSM(deter=16, stoch=(4, 3), embed=5, action=2, hidden=8, blocks=2))
    >>> model.stores, model.stored(model.observe(model.initial(1), {"obs": torch.zeros(1, 2, 5)}, torch.zeros(1, 2, 2),
    ...     torch.zeros(1, 2, dtype=torch.bool)))
    ({}, {})
    """

    def __init__(self, rssm: RSSM) -> None:
        super().__init__()
        self.rssm, self.widths = rssm, rssm.widths
        self.stores: dict[str, int] = {}

    def initial(self, *lead: int) -> Carry:
        return self.rssm.initial(*lead)

    def prefill(self, carry: Carry, past: Past) -> Carry:
        return begun(self.rssm.initial(len(past.valid)))

    def observe(self, carry: Carry, embed: Mapping[str, Tensor], action: Tensor, reset: Tensor) -> Trace:
        return self.rssm.observe(carry, embed, action, resets(carry, reset))

    def stored(self, trace: Trace) -> dict[str, Tensor]:
        return {}
