"""encode -> z ~ q(e) for all steps at once -> shift by one -> backbone -> prior: the skeleton R2I and STORM share.

Sizes: B batch, T time, M starts, A action, E embed, D deter, S x K stochastic.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from wm_core import draws
from wm_core.blocks import MLP, linear
from wm_core.contracts import Backbone
from wm_core.distributions import straight_through, unimix_logits
from wm_core.rssm import Prior
from wm_core.types import Carry, Latent, Past, Start, Trace


class Parallel(nn.Module):
    """A `Dynamics` whose posterior does not see its own state, so that time runs in parallel.

    z_t ~ q(z | e_t); token_t = f(z_{t-1}, a_t), both zero at a reset; deter_{1:T}, hidden = backbone(tokens);
    prior p(z_t | deter_t). It stores nothing: sample with past=0. The carry is the last z and the backbone's own.

    Args:
        backbone: tokens (B, T, D) -> deter (B, T, D), and hidden (B, T, X) if it has any.
        deter: D.
        stoch: (S, K), S latents of K classes each.
        embed: E of embed["obs"].
        action: A.
        hidden: width of the hidden layers of posterior and prior.
        unimix: share of the uniform mixed into posterior and prior alike.
        token: in the place of one layer [z, a] (..., S*K + A) -> (..., D).
        posterior: in the place of one hidden layer, embed (..., E) -> logits (..., S*K).
        prior: in the place of `wm_core.rssm.Prior`, deter (..., D) -> logits (..., S*K).

    >>> parallel = Parallel(GRUBackbone(16), deter=16, stoch=(4, 3), embed=5, action=2, hidden=8)
    >>> embed = {"obs": torch.zeros(2, 6, 5)}
    >>> trace = parallel.observe(parallel.initial(2), embed, torch.zeros(2, 6, 2), torch.zeros(2, 6, dtype=torch.bool))
    >>> trace.latent.deter.shape
    torch.Size([2, 6, 16])
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        deter: int,
        stoch: tuple[int, int],
        embed: int,
        action: int,
        hidden: int,
        unimix: float = 0.01,
        token: nn.Module | None = None,
        posterior: nn.Module | None = None,
        prior: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.shape, self.unimix = backbone, stoch, unimix
        flat = stoch[0] * stoch[1]
        self.widths = {"deter": deter, "stoch": flat}
        self.widths |= {"hidden": backbone.hidden_width} if backbone.hidden_width else {}
        self.stores: dict[str, int] = {}
        self.token = token or MLP(flat + action, deter, 1)
        self.posterior = posterior or nn.Sequential(MLP(embed, hidden, 1), linear(hidden, flat))
        self.prior = prior or Prior(deter, flat, hidden=hidden)

    def initial(self, *lead: int) -> Carry:
        where = next(self.parameters())
        return {"stoch": torch.zeros(*lead, *self.shape, device=where.device), "backbone": self.backbone.initial(*lead)}

    def prefill(self, carry: Carry, past: Past) -> Carry:
        """Nothing is stored, so nothing is known of the past: the carry as it is."""
        return carry

    def observe(self, carry: Carry, embed: Mapping[str, Tensor], action: Tensor, reset: Tensor) -> Trace:
        post = self.logits(self.posterior(embed["obs"]))
        stoch = straight_through(post, draws.gumbel(post.shape, post.device))
        before = torch.cat([carry["stoch"][:, None], stoch[:, :-1]], 1).flatten(-2)
        tokens = self.token(self.beginning(before, action, reset[..., None]))
        deter, hidden, after, each = self.backbone(carry["backbone"], tokens, reset)
        latent = Latent(deter, stoch, hidden)
        return Trace(latent, post, self.prior_logits(deter), {"stoch": stoch[:, -1], "backbone": after}, each)

    def beginning(self, before: Tensor, action: Tensor, reset: Tensor) -> Tensor:
        """What tokens are made of: [z_{t-1}, a_t] (B, T, S*K + A), zeros where `reset` (B, T, 1) says so."""
        return torch.cat([before, action], -1) * (~reset).float()

    def stored(self, trace: Trace) -> dict[str, Tensor]:
        return {}

    def imagine(self, start: Start, action: Tensor) -> tuple[Start, Latent]:
        token = self.token(torch.cat([start["stoch"].flatten(-2), action], -1))[:, None]
        reset = torch.zeros(token.shape[:2], dtype=torch.bool, device=token.device)
        deter, hidden, after, _ = self.backbone(start["backbone"], token, reset)
        logits = self.prior_logits(deter[:, 0])
        stoch = straight_through(logits, draws.gumbel(logits.shape, logits.device))
        latent = Latent(deter[:, 0], stoch, None if hidden is None else hidden[:, 0])
        return {"stoch": stoch, "backbone": after}, latent

    def starts(self, trace: Trace, last: int) -> tuple[Start, Latent]:
        latent = trace.latent.rows(last)
        return {"stoch": latent.stoch, "backbone": self.backbone.starts(trace.each, last)}, latent

    def left(self, carry: Carry) -> float:
        """As many more steps, observed or imagined, as the backbone can hold."""
        return float(self.backbone.left(carry["backbone"]))

    def prior_logits(self, deter: Tensor) -> Tensor:
        return self.logits(self.prior(deter))

    def logits(self, flat: Tensor) -> Tensor:
        """(..., S*K) -> normalised log-probabilities (..., S, K) with the uniform mixed in, float32."""
        return unimix_logits(flat.unflatten(-1, self.shape), self.unimix)


class GRUBackbone(nn.Module):
    """The plainest `Backbone`: h_t = GRU(h_{t-1}, token_t), h zero at a reset, by torch's cell; h is output and carry.

    Args:
        width: D, of tokens, state and output.

    >>> gru = GRUBackbone(4)
    >>> out, hidden, carry, each = gru(gru.initial(2), torch.zeros(2, 5, 4), torch.zeros(2, 5, dtype=torch.bool))
    >>> out.shape, hidden, carry.shape, gru.starts(each, last=3).shape
    (torch.Size([2, 5, 4]), None, torch.Size([2, 4]), torch.Size([6, 4]))
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width, self.cell, self.hidden_width = width, nn.GRUCell(width, width), 0

    def initial(self, *lead: int) -> Tensor:
        return torch.zeros(*lead, self.width, device=self.cell.weight_hh.device)

    def __call__(self, carry: Tensor, tokens: Tensor, reset: Tensor) -> tuple[Tensor, None, Tensor, Tensor]:
        return super().__call__(carry, tokens, reset)

    def forward(self, carry: Tensor, tokens: Tensor, reset: Tensor) -> tuple[Tensor, None, Tensor, Tensor]:
        outs = []
        for token, keep in zip(tokens.unbind(1), (~reset)[..., None].float().unbind(1), strict=True):
            carry = self.cell(token, carry * keep)
            outs.append(carry)
        out = torch.stack(outs, 1)
        return out, None, carry, out

    def starts(self, each: Any, last: int) -> Tensor:
        return each[:, -last:].flatten(0, 1)

    def left(self, carry: Tensor) -> float:
        return math.inf
