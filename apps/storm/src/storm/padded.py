"""STORM's dynamics with a carry of one size, step after step: what a file for other runtimes can hold.

Sizes: B rows, S x K stochastic.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from wm_core import draws
from wm_core.distributions import straight_through
from wm_core.parallel import Parallel
from wm_core.types import Carry, Latent, Trace


class PaddedUnbroken(Parallel):
    """`Unbroken` on steps (B, 1): that there is none before the very first is said by a flag and no empty tensor.

    Its backbone has a carry of one size, too, see `wm_tssm.padded`.
    """

    def initial(self, *lead: int) -> Carry:
        carry = super().initial(*lead)
        return carry | {"begun": torch.zeros(*lead, dtype=torch.bool, device=carry["stoch"].device)}

    def observe(self, carry: Carry, embed: Mapping[str, Tensor], action: Tensor, reset: Tensor) -> Trace:
        post = self.logits(self.posterior(embed["obs"]))
        stoch = straight_through(post, draws.gumbel(post.shape, post.device))
        token = self.token(torch.cat([carry["stoch"].flatten(-2)[:, None], action], -1))
        deter, hidden, after, _ = self.backbone(carry["backbone"], token, reset)
        begun = carry["begun"]
        deter = deter * begun[:, None, None].to(deter.dtype)
        after = after | {"count": after["count"] * begun.long()}  # what was written is nothing, and is written over
        carry = {"stoch": stoch[:, -1], "backbone": after, "begun": torch.ones_like(begun)}
        return Trace(Latent(deter, stoch, hidden), post, self.prior_logits(deter), carry, after)
