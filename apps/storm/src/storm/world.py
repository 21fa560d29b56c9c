"""A world model whose policy sees the state that was predicted, not the one that was observed, as in STORM's public code.

Sizes: B batch, T time.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor
from wm_core import draws
from wm_core.distributions import straight_through
from wm_core.types import Carry, Latent, Steps, Trace
from wm_core.world import WorldModel


class PriorWorld(WorldModel):
    """Acting and dreams begin at a draw of the prior at the last step: its frame is not looked at.

    In the public code (train.py of STORM) the current frame joins the context after the action is chosen, and a dream
    starts from the prediction of the step after its context.
    """

    def latest(self, trace: Trace) -> Latent:
        return Latent(trace.latent.deter[:, -1], _drawn(trace.prior[:, -1]))

    def starts(self, trace: Trace, last: int | None = None) -> tuple[Carry, Latent]:
        carry, latent = super().starts(trace, last)
        count = trace.prior.shape[1] if last is None else last
        latent = replace(latent, stoch=_drawn(trace.prior[:, -count:]).flatten(0, 1))
        return carry | {"stoch": latent.stoch.view_as(carry["stoch"])}, latent


def _drawn(logp: Tensor) -> Tensor:
    return straight_through(logp, draws.gumbel(logp.shape, logp.device))


def rows(steps: Steps) -> Steps:
    """Steps (B, T) as STORM learns from them: the first gives its z alone, and a lost life ends the return."""
    weight = steps["weight"].clone()
    weight[:, 0] = 0
    lost = steps.get("life_loss", steps["terminal"])
    return steps | {"weight": weight, "terminal": steps["terminal"] | lost}
