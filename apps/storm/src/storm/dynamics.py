"""STORM's indices: a row's first step gives its z alone, and no token stands for the start of an episode.

The public code's h_t is made from (z_1..t, a_1..t) and predicts z_{t+1} and the reward that a_t earns. Here a step's
action is the one that led to it, so h_t is `deter` of step t+1, next to the z_{t+1}, the reward and the end it predicts.
Sizes: B batch, T time, M starts, D deter, S x K stochastic.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F
from wm_core import draws
from wm_core.distributions import straight_through
from wm_core.parallel import Parallel
from wm_core.types import Carry, Latent, Start, Trace

from storm.padded import PaddedUnbroken


class Unbroken(Parallel):
    """Parallel without resets: token_t = f(z_{t-1}, a_t) at every step that has a predecessor, across episode ends too.

    The carry's `stoch` (B, 0 or 1, S, K) is the last step's, if there was any. The very first step has no token; its
    deter is zero, and its losses want a weight of zero.
    """

    def initial(self, *lead: int) -> Carry:
        carry = super().initial(*lead)
        return carry | {"stoch": carry["stoch"].new_zeros(*lead, 0, *self.shape)}

    def observe(self, carry: Carry, embed: Mapping[str, Tensor], action: Tensor, reset: Tensor) -> Trace:
        post = self.logits(self.posterior(embed["obs"]))
        stoch = straight_through(post, draws.gumbel(post.shape, post.device))
        before = torch.cat([carry["stoch"], stoch], 1)[:, :-1].flatten(-2)
        begun = action.shape[1] - before.shape[1]  # 1 where the first step has no predecessor, else 0
        tokens = self.token(torch.cat([before, action[:, begun:]], -1))
        deter, hidden, after, each = self.backbone(carry["backbone"], tokens, reset[:, begun:])
        deter = F.pad(deter, (0, 0, begun, 0))
        latent = Latent(deter, stoch, hidden)
        return Trace(latent, post, self.prior_logits(deter), {"stoch": stoch[:, -1:], "backbone": after}, each)

    def imagine(self, start: Start, action: Tensor) -> tuple[Start, Latent]:
        after, latent = super().imagine(start | {"stoch": start["stoch"][:, 0]}, action)
        return after | {"stoch": latent.stoch[:, None]}, latent

    def left(self, carry: Carry) -> float:
        return super().left(carry) + (1 - carry["stoch"].shape[1])  # the very first step has no token

    def starts(self, trace: Trace, last: int) -> tuple[Start, Latent]:
        start, latent = super().starts(trace, last)
        return start | {"stoch": latent.stoch[:, None]}, latent

    def exportable(self) -> PaddedUnbroken:
        """The same with a carry of one size, as soon as the backbone has one."""
        return PaddedUnbroken(
            self.backbone,
            deter=self.widths["deter"],
            stoch=self.shape,
            unimix=self.unimix,
            embed=0,  # these three size what is given here
            action=0,
            hidden=0,
            token=self.token,
            posterior=self.posterior,
            prior=self.prior,
        )
