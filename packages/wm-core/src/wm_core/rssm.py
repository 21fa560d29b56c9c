"""h_t = GRU(h, z, a), z_t ~ q(h_t, e_t), prior p(z_t | h_t): the recurrent state-space model of DreamerV3.

Sizes: B batch, T time, M starts, A action, E embed, D deter, S x K stochastic.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wm_core import draws
from wm_core.blocks import MLP, BlockGRU, linear
from wm_core.distributions import mixed_logits, sample_mixed, unimix_logits
from wm_core.fast.scan import posterior_scan
from wm_core.posterior import Posterior
from wm_core.precision import wide
from wm_core.types import Carry, Latent, Past, Start, Trace


class Cell(Protocol):
    """A recurrent cell: BlockGRU, or any module of the same calls. Sizes: N rows, A action, D deter."""

    def drive(self, action: Tensor) -> Tensor:
        """What the action (..., A) adds, for all steps at once."""

    def __call__(self, deter: Tensor, state: Sequence[Tensor], driven: Tensor) -> Tensor:
        """deter (N, D), the state's parts (N, width) and what `drive` gave -> the next deter (N, D)."""

    def advance(self, deter: Tensor, state: Sequence[Tensor], action: Tensor) -> Tensor:
        """The same in one call, for a single step with action (N, A)."""


class Recognition(Protocol):
    """q(z | h, e) in two halves: `Posterior`, or any module of the same calls."""

    def drive(self, embed: Tensor) -> Tensor:
        """What the embedding (..., E) adds, for all steps at once."""

    def __call__(self, deter: Tensor, driven: Tensor) -> Tensor:
        """deter (N, D) and what `drive` gave -> logits (N, S*K)."""


class Prior(nn.Sequential):
    """deter (..., D) -> logits (..., S*K): `layers` hidden layers and an output."""

    def __init__(self, deter: int, stoch: int, *, hidden: int, layers: int = 2) -> None:
        super().__init__(MLP(deter, hidden, layers), linear(hidden, stoch))


def draw_latent(flat: Tensor, shape: tuple[int, int], unimix: float) -> Tensor:
    """Logits (..., S*K) -> a straight-through sample (..., S, K) of their softmax with the uniform mixed in."""
    probs = F.softmax(wide(flat.unflatten(-1, shape)), -1)
    return sample_mixed(probs, draws.exponential(probs.shape, probs.device), unimix)


def stoch_index(stoch: Tensor) -> Tensor:
    """One-hot (..., S, K) -> class indices (..., S), what replay keeps: uint8, or int16 where there are more than 256."""
    return stoch.detach().argmax(-1).to(torch.uint8 if stoch.shape[-1] <= 256 else torch.int16)


def stoch_onehot(index: Tensor, classes: int) -> Tensor:
    """Class indices (..., S) -> one-hot float32 (..., S, K)."""
    empty = torch.zeros(*index.shape, classes, device=index.device)
    return empty.scatter_(-1, index.long()[..., None], 1.0)


def remembered(carry: Carry, past: Past) -> Carry:
    """deter (B, D) and stoch (B, S, K) as they were stored at the last step of the past, or the carry's where that step is
    not valid; without a past the carry itself."""
    if past.valid.shape[1] == 0:
        return carry
    ok = past.valid[:, -1:]
    deter = past.stored["deter"][:, -1].float()
    stoch = stoch_onehot(past.stored["stoch"][:, -1], carry["stoch"].shape[-1])
    return {
        "deter": torch.where(ok, deter, carry["deter"]),
        "stoch": torch.where(ok[..., None], stoch, carry["stoch"]),
    }


class RSSM(nn.Module):
    """A `Dynamics`: the recurrent state-space model of DreamerV3 (Nature 2025, eq. 1). Read `wm_core.plain` first: one step,
    and the loop over steps, in straight lines.

    h_t = cell(h_{t-1}, z_{t-1}, a_t), all three zero at a reset; z_t ~ q(z | h_t, e_t) where e_t is seen, else p(z | h_t).
    Stored are deter (float16) and stoch (class indices) of one past step; with `prefill` from fresh entries the carry
    equals that of observing the past, up to float16.

    Args:
        deter: D, of h.
        stoch: (S, K), S latents of K classes each.
        embed: E of embed["obs"].
        action: A.
        hidden: width of the hidden layers of cell, posterior and prior.
        blocks: of the BlockGRU; they divide D.
        unimix: share of the uniform mixed into posterior and prior alike.
        cell: in the place of a BlockGRU with state (D, S*K).
        prior: in the place of `Prior`; any module deter (..., D) -> logits (..., S*K).
        posterior: in the place of `Posterior`; any module of its two calls.
        mode: z_t is the posterior's likeliest class, with straight-through gradients, instead of a sample; the posterior is
            then that class for certain, but for the uniform share.

    Raises:
        ValueError: `blocks` do not divide D.

    >>> rssm = RSSM(deter=16, stoch=(4, 3), embed=5, action=2, hidden=8, blocks=2)
    >>> embed = {"obs": torch.zeros(2, 6, 5)}
    >>> trace = rssm.observe(rssm.initial(2), embed, torch.zeros(2, 6, 2), torch.zeros(2, 6, dtype=torch.bool))
    >>> trace.latent.read("deter", "stoch").shape, trace.prior.shape
    (torch.Size([2, 6, 28]), torch.Size([2, 6, 4, 3]))
    >>> carry, latent = rssm.starts(trace, last=6)
    >>> carry, latent = rssm.imagine(carry, torch.zeros(12, 2))
    """

    def __init__(
        self,
        *,
        deter: int,
        stoch: tuple[int, int],
        embed: int,
        action: int,
        hidden: int,
        blocks: int = 8,
        unimix: float = 0.01,
        cell: Cell | None = None,
        prior: nn.Module | None = None,
        posterior: Recognition | None = None,
        mode: bool = False,
    ) -> None:
        super().__init__()
        self.deter, self.shape, self.unimix, self.mode = deter, stoch, unimix, mode
        flat = stoch[0] * stoch[1]
        self.widths = {"deter": deter, "stoch": flat}
        self.stores = {"deter": 1, "stoch": 1}
        self.cell: Cell = cell or BlockGRU(
            deter=deter, state=(deter, flat), action=action, hidden=hidden, blocks=blocks
        )
        self.posterior: Recognition = posterior or Posterior(deter, embed, flat, hidden=hidden)
        self.prior = prior or Prior(deter, flat, hidden=hidden)

    def initial(self, *lead: int) -> Carry:
        where = next(self.parameters())
        zeros = torch.zeros(*lead, self.deter, device=where.device)
        return {"deter": zeros, "stoch": torch.zeros(*lead, *self.shape, device=where.device)}

    def prefill(self, carry: Carry, past: Past) -> Carry:
        return remembered(carry, past)

    def observe(self, carry: Carry, embed: Mapping[str, Tensor], action: Tensor, reset: Tensor) -> Trace:
        keep = (~reset).t()[..., None].to(carry["deter"].dtype)  # (T, B, 1); time leads inside the scan
        driven = self.cell.drive(action * keep.transpose(0, 1)).transpose(0, 1)
        seen = self.posterior.drive(embed["obs"]).transpose(0, 1)
        shape = *keep.shape[:2], *self.shape
        noise = keep.new_ones(shape) if self.mode else draws.exponential(shape, action.device).to(keep.dtype)
        state = torch.cat([carry["deter"], carry["stoch"].flatten(-2)], -1)
        found = posterior_scan([self], state, driven[:, :, None], seen[:, :, None], keep, noise, self.unimix)
        prior = self.prior_logits(found[0]).transpose(0, 1)
        deter, stoch, probs = (x.transpose(0, 1).contiguous() for x in found)
        carry = {"deter": deter[:, -1], "stoch": stoch[:, -1]}
        return Trace(Latent(deter, stoch), mixed_logits(stoch if self.mode else probs, self.unimix), prior, carry)

    def stored(self, trace: Trace) -> dict[str, Tensor]:
        return {"deter": trace.latent.deter.detach().half(), "stoch": stoch_index(trace.latent.stoch)}

    def imagine(self, start: Start, action: Tensor) -> tuple[Start, Latent]:
        deter, stoch = start["deter"], start["stoch"].flatten(-2)
        deter = self.cell.advance(deter, (deter, stoch), action)
        latent = Latent(deter, draw_latent(self.prior(deter), self.shape, self.unimix))
        return {"deter": latent.deter, "stoch": latent.stoch}, latent

    def starts(self, trace: Trace, last: int) -> tuple[Start, Latent]:
        latent = trace.latent.rows(last)
        return {"deter": latent.deter, "stoch": latent.stoch}, latent

    def left(self, carry: Carry) -> float:
        return math.inf

    def prior_logits(self, deter: Tensor) -> Tensor:
        return self.logits(self.prior(deter))

    def logits(self, flat: Tensor) -> Tensor:
        """(..., S*K) -> normalised log-probabilities (..., S, K) with the uniform mixed in, float32."""
        return unimix_logits(flat.unflatten(-1, self.shape), self.unimix)
