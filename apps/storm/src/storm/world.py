"""A world model whose policy sees the state that was predicted, not the one that was observed, as in STORM's public code.

Sizes: B batch, T time.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from torch import Tensor
from torch.nn import functional as F
from wm_core import draws
from wm_core.distributions import straight_through
from wm_core.types import Latent, Start, Steps, Trace
from wm_core.world import WorldModel, bound_action, resets


class StormWorld(WorldModel):
    """Dreams begin after contexts of their own."""

    def context(self, steps: Steps) -> Trace:
        """What `starts` needs of rows (M, C+1) to dream on from their last step."""
        return self.observe(self.prefill(None, len(steps["action"])), steps)


class PriorWorld(StormWorld):
    """Acting and dreams begin at a draw of the prior at the last step: its frame is not looked at.

    In the public code (train.py of STORM) the current frame joins the context after the action is chosen, and a dream
    starts from the prediction of the step after its context.
    """

    def context(self, steps: Steps) -> Trace:
        """The same; a row's last frame is not encoded, and the trace's posterior at it says nothing."""
        seen = self.encoder({key: value[:, :-1] for key, value in steps.items()})
        embed = {key: F.pad(value, (0, 0, 0, 1)) for key, value in seen.items()}
        carry = self.prefill(None, len(steps["action"]))
        return self.dynamics.observe(carry, embed, bound_action(steps["action"]), resets(steps))

    def latest(self, trace: Trace) -> Latent:
        return Latent(trace.latent.deter[:, -1], _drawn(trace.prior[:, -1]))

    def starts(self, trace: Trace, last: int = 0) -> tuple[Start, Latent]:
        start, latent = super().starts(trace, last)
        latent = replace(latent, stoch=_drawn(trace.prior[:, -last:]).flatten(0, 1))
        return start | {"stoch": latent.stoch.view_as(start["stoch"])}, latent


def _drawn(logp: Tensor) -> Tensor:
    return straight_through(logp, draws.gumbel(logp.shape, logp.device))


def rows(steps: Steps, observed: Collection[str] = ()) -> Steps:
    """Steps (B, T) as STORM learns from them: the first gives its z alone, and a lost life ends the return.

    A life is lost where the signal `life_loss` says so; an entry of that name among the `observed` is none.
    """
    weight = steps["weight"].clone()
    weight[:, 0] = 0
    signalled = "life_loss" in steps and "life_loss" not in observed
    lost = steps["life_loss" if signalled else "terminal"]
    return steps | {"weight": weight, "terminal": steps["terminal"] | lost}
