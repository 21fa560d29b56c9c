"""Two recurrent states over one latent: one follows the observation, one what it recalls (PO-Dreamer, Eq. 1, 2, 7-9).

Sizes: B batch, T time, M starts, A action, E embed, V recalled, D deter of one branch, S x K stochastic of one branch.
The two branches are one latent of 2D and 2S factors: deter = [h_co, h_mg], stoch = [z_co, z_mg]. Heads, KL, policy and
critic need not know of them. Read `wm_core.plain` first, its loop over steps with two branches, and `wm_memory.plain`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn
from wm_core import draws
from wm_core.blocks import BlockGRU
from wm_core.distributions import mixed_logits, unimix_logits
from wm_core.fast.scan import posterior_scan
from wm_core.posterior import Posterior
from wm_core.rssm import RSSM, Prior, draw_latent, remembered, stoch_index
from wm_core.types import Carry, Latent, Past, Recollection, Start, Trace

from wm_memory.diagnostics import diagnose, recollection
from wm_memory.memory import Memory
from wm_memory.norm_gru import NormGRU
from wm_memory.pair import PairAttention
from wm_memory.rows import Around, begun, resets

Cell = BlockGRU | NormGRU  # or any module of the same two calls: drive(action), forward(deter, state, driven)


class Branch(nn.Module):
    """One recurrent state: its cell, its posterior and its prior."""

    def __init__(self, cell: Cell, posterior: Posterior, prior: nn.Module) -> None:
        super().__init__()
        self.cell, self.posterior, self.prior = cell, posterior, prior


class FusedRSSM(nn.Module):
    """A `Dynamics`, and `Remembering`: the fused recurrent state-space model, whose carry also holds a bank of what was seen (Eq. 1, 2, 7-9).

    h_t = [cell(h_{t-1}, z_{t-1}, a_t) of either branch], each of which reads the whole state; z_co ~ q(z | h_co, e_t),
    z_mg ~ q(z | h_mg, what `memory` recalled); the priors read the pair (h_co, h_mg) after `attention`.

    Args:
        memory: what recalls, and keeps the bank.
        deter: D, of ONE branch; `widths` tells the latent's.
        stoch: (S, K), of ONE branch.
        embed: E of embed["obs"].
        action: A.
        hidden: width of the hidden layers of cells, posteriors and priors.
        blocks: of the BlockGRUs; they divide D.
        layers: hidden layers of each prior.
        unimix: share of the uniform mixed into posteriors and priors alike.
        attention: deter (..., 2, D) -> (..., 2, D); PairAttention by default, CrossAttention, nn.Identity().
        cells: (co, mg) in the place of BlockGRUs; NormGRUs of state=(2 * D, 2 * S * K) for the paper's S-size nets.
        stored: are h and z stored, beside the memory's keys? If not, the recurrent states of a row begin with the initial
            one (`rows`).

    Raises:
        ValueError: `blocks` do not divide D.

    Recall happens for all T steps before the time loop; imagination uses the priors alone and its carry holds deter
    and stoch only. `prefill` from fresh stored entries equals observe(past).carry, the bank included, up to float16.
    Trace.targets["memory"] is f (B, T, E) without gradient, for the memory decoder.

    >>> from wm_memory import Gaussian, Memory, Recall
    >>> memory = Memory(Recall(width=16, action=3, count=4), action=3, window=10, bottleneck=Gaussian(16))
    >>> model = FusedRSSM(memory=memory, deter=16, stoch=(4, 3), embed=5, action=3, hidden=8, blocks=2)
    >>> embed = {"obs": torch.zeros(2, 6, 5), "memory": torch.zeros(2, 6, 16), "key": torch.zeros(2, 6, 16)}
    >>> trace = model.observe(model.initial(2), embed, torch.zeros(2, 6, 3), torch.zeros(2, 6, dtype=torch.bool))
    >>> trace.latent.read("deter", "stoch").shape, trace.prior.shape
    (torch.Size([2, 6, 56]), torch.Size([2, 6, 8, 3]))
    >>> carry, latent = model.imagine(*model.starts(trace, last=6)[:1], torch.zeros(12, 3))
    """

    def __init__(
        self,
        *,
        memory: Memory,
        deter: int,
        stoch: tuple[int, int],
        embed: int,
        action: int,
        hidden: int,
        blocks: int = 8,
        layers: int = 2,
        unimix: float = 0.01,
        attention: nn.Module | None = None,
        cells: tuple[Cell, Cell] | None = None,
        stored: bool = True,
    ) -> None:
        super().__init__()
        self.memory, self.unimix, self.keeps = memory, unimix, stored
        flat = stoch[0] * stoch[1]
        self.deter, self.shape = 2 * deter, (2 * stoch[0], stoch[1])
        self.widths = {"deter": self.deter, "stoch": 2 * flat}
        self.stores = {**({"deter": 1, "stoch": 1} if stored else {}), **memory.stores}

        def cell() -> Cell:
            return BlockGRU(deter=deter, state=(2 * deter, 2 * flat), action=action, hidden=hidden, blocks=blocks)

        def branch(cell: Cell, embed: int) -> Branch:
            posterior = Posterior(deter, embed, flat, hidden=hidden)
            return Branch(cell, posterior, Prior(deter, flat, hidden=hidden, layers=layers))

        co, mg = cells or (cell(), cell())
        self.co, self.mg = branch(co, embed), branch(mg, memory.width)
        self.attention = attention or PairAttention(deter)

    def initial(self, *lead: int) -> Carry:
        where = next(self.parameters())
        deter = torch.zeros(*lead, self.deter, device=where.device)
        stoch = torch.zeros(*lead, *self.shape, device=where.device)
        return {"deter": deter, "stoch": stoch, **self.memory.initial(*lead)}

    def prefill(self, carry: Carry, past: Past) -> Carry:
        if not self.keeps:
            return begun({**carry, **self.memory.prefill(carry, past)})
        if past.valid.shape[1] == 0:
            return carry
        return {**remembered(carry, past), **self.memory.prefill(carry, past)}

    def observe(self, carry: Carry, embed: Mapping[str, Tensor], action: Tensor, reset: Tensor) -> Trace:
        recalled = self.memory(carry, embed, action, reset)
        keep = (~resets(carry, reset)).t()[..., None].to(carry["deter"].dtype)  # (T, B, 1); time leads in the scan
        driven = torch.stack(self.drive(action * keep.transpose(0, 1)), 2).transpose(0, 1)
        seen = [self.co.posterior.drive(embed["obs"]), self.mg.posterior.drive(recalled.value)]
        noise = draws.exponential((*keep.shape[:2], *self.shape), action.device).to(keep.dtype)
        state = torch.cat([carry["deter"], carry["stoch"].flatten(-2)], -1)
        found = posterior_scan(
            [self.co, self.mg], state, driven, torch.stack(seen, 2).transpose(0, 1), keep, noise, self.unimix
        )
        prior = self.prior_logits(found[0]).transpose(0, 1)
        deter, stoch, probs = (x.transpose(0, 1).contiguous() for x in found)
        latent, post = Latent(deter, stoch), mixed_logits(probs, self.unimix)
        carry = {"deter": deter[:, -1], "stoch": stoch[:, -1], **recalled.bank}
        each = {"key": recalled.key, "recalled": recalled.f}
        targets = {"memory": recalled.f.detach()}
        return Trace(latent, post, prior, carry, each, targets)

    def stored(self, trace: Trace) -> dict[str, Tensor]:
        key = {"key": trace.each["key"].half()}
        if not self.keeps:
            return key
        return {"deter": trace.latent.deter.detach().half(), "stoch": stoch_index(trace.latent.stoch), **key}

    def imagine(self, start: Start, action: Tensor) -> tuple[Start, Latent]:
        deter, stoch = start["deter"], start["stoch"].flatten(-2)
        parts = zip((self.co, self.mg), deter.chunk(2, -1), strict=True)
        deter = torch.cat([branch.cell.advance(part, (deter, stoch), action) for branch, part in parts], -1)
        latent = Latent(deter, draw_latent(self.prior(deter), self.shape, self.unimix))
        return {"deter": latent.deter, "stoch": latent.stoch}, latent

    def starts(self, trace: Trace, last: int) -> tuple[Start, Latent]:
        latent = trace.latent.rows(last)
        return {"deter": latent.deter, "stoch": latent.stoch}, latent

    def drive(self, action: Tensor) -> tuple[Tensor, Tensor]:
        """What the action (..., A) adds to either cell, for all steps at once: see `wm_core.rssm.Cell`."""
        return self.co.cell.drive(action), self.mg.cell.drive(action)

    def prior(self, deter: Tensor) -> Tensor:
        """deter (..., 2D) -> logits (..., 2S*K), after the pair has looked at each other (Eq. 8, 9)."""
        co, mg = self.attention(deter.unflatten(-1, (2, -1))).unbind(-2)
        return torch.cat([self.co.prior(co), self.mg.prior(mg)], -1)

    def left(self, carry: Carry) -> float:
        return math.inf

    def prior_logits(self, deter: Tensor) -> Tensor:
        return self.logits(self.prior(deter))

    def logits(self, flat: Tensor) -> Tensor:
        """(..., 2S*K) -> normalised log-probabilities (..., 2S, K) with the uniform mixed in, float32."""
        return unimix_logits(flat.unflatten(-1, self.shape), self.unimix)

    def diagnose(self, carry: Carry, embed: Mapping[str, Tensor], action: Tensor, reset: Tensor) -> dict[str, Tensor]:
        """What recall did on these steps, as 0-d tensors; see `diagnostics.diagnose`."""
        return diagnose(self.memory, carry, embed, action, reset)

    def recalled(self, carry: Carry, embed: Mapping[str, Tensor], action: Tensor, reset: Tensor) -> Recollection:
        """Which past steps each step recalls, (B, T, K); see `diagnostics.recollection`."""
        return recollection(self.memory, carry, embed, action, reset)

    def nats(self, trace: Trace) -> Tensor:
        """KL of the bottleneck to a standard normal (B, T), for a loss that the paper does not have; Gaussian only."""
        return self.memory.bottleneck.nats(trace.each["recalled"])  # type: ignore[operator]


class RecalledRSSM(Around):
    """A `Dynamics`, and `Remembering`: an RSSM that sees only what it recalls ("MG only").

    Args:
        memory: what recalls, and keeps the bank.
        rssm: built with embed = memory.width.
        stored: as in `FusedRSSM`.

    >>> from wm_memory import Memory, Recall
    >>> memory = Memory(Recall(width=16, action=3, count=4), action=3, window=10)
    >>> model = RecalledRSSM(memory, RSSM(deter=16, stoch=(4, 3), embed=16, action=3, hidden=8, blocks=2))
    >>> embed = {"memory": torch.zeros(2, 6, 16), "key": torch.zeros(2, 6, 16)}
    >>> trace = model.observe(model.initial(2), embed, torch.zeros(2, 6, 3), torch.zeros(2, 6, dtype=torch.bool))
    >>> trace.latent.read("deter").shape
    torch.Size([2, 6, 16])
    """

    def __init__(self, memory: Memory, rssm: RSSM, *, stored: bool = True) -> None:
        super().__init__()
        self.memory, self.rssm, self.keeps = memory, rssm, stored
        self.widths = rssm.widths
        self.stores = {**(rssm.stores if stored else {}), **memory.stores}

    def initial(self, *lead: int) -> Carry:
        return {**self.rssm.initial(*lead), **self.memory.initial(*lead)}

    def prefill(self, carry: Carry, past: Past) -> Carry:
        if not self.keeps:
            return begun({**carry, **self.memory.prefill(carry, past)})
        if past.valid.shape[1] == 0:
            return carry
        return {**self.rssm.prefill(carry, past), **self.memory.prefill(carry, past)}

    def observe(self, carry: Carry, embed: Mapping[str, Tensor], action: Tensor, reset: Tensor) -> Trace:
        recalled = self.memory(carry, embed, action, reset)
        trace = self.rssm.observe(carry, {"obs": recalled.value}, action, resets(carry, reset))
        return replace(
            trace,
            carry={**trace.carry, **recalled.bank},
            each={"key": recalled.key, "recalled": recalled.f},
            targets={"memory": recalled.f.detach()},
        )

    def stored(self, trace: Trace) -> dict[str, Tensor]:
        return {**(self.rssm.stored(trace) if self.keeps else {}), "key": trace.each["key"].half()}

    def diagnose(self, carry: Carry, embed: Mapping[str, Tensor], action: Tensor, reset: Tensor) -> dict[str, Tensor]:
        """What recall did on these steps, as 0-d tensors; see `diagnostics.diagnose`."""
        return diagnose(self.memory, carry, embed, action, reset)

    def recalled(self, carry: Carry, embed: Mapping[str, Tensor], action: Tensor, reset: Tensor) -> Recollection:
        """Which past steps each step recalls, (B, T, K); see `diagnostics.recollection`."""
        return recollection(self.memory, carry, embed, action, reset)
