"""encode -> observe -> heads and KL -> losses (B, T); and dreams from any start: the world model of all agents.

Sizes: B batch, T time, M starts, H horizon.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from wm_core import draws, health, names
from wm_core.clock import Clock
from wm_core.contracts import (
    ActionDistribution,
    Distribution,
    Dynamics,
    Encoder,
    Head,
    Metrics,
    Probing,
    Regulariser,
    Remembering,
)
from wm_core.distributions import Bernoulli
from wm_core.fast.resting import resting
from wm_core.kl import BalancedKL
from wm_core.precision import wide
from wm_core.ranks import mean
from wm_core.types import Carry, Dream, Latent, Past, Recollection, Start, Steps, Trace

Policy = Callable[..., ActionDistribution]  # of a latent, and of a mask (..., A) where the world predicts one
MASK = "action_mask"  # the head that does
Decoder = Callable[[Latent], Mapping[str, Distribution]]


class WorldModel(nn.Module):
    """Encoder, dynamics, decoder and heads under one roof; losses stay un-reduced (B, T).

    `decoder(latent)` gives a distribution for every observation key; `heads` must hold "reward" and "cont", and may
    hold others whose targets are steps or `trace.targets`; of these "action_mask" gives a `MaskDistribution`, and acting
    and dreams then obey masks. `discount` sits inside the target of the continue head,
    (1 - terminal) * discount, so that imagination needs no other. `regularisers` are losses on posterior and prior
    latents; `draw` makes the prior's stoch from its logits, from a source that nothing else draws from.
    """

    def __init__(
        self,
        *,
        encoder: Encoder,
        dynamics: Dynamics,
        decoder: Decoder,
        heads: Mapping[str, Head],
        kl: BalancedKL,
        discount: float = 1 - 1 / 333,
        regularisers: Mapping[str, Regulariser] | None = None,
        draw: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        if missing := {"reward", "cont"} - set(heads):
            raise ValueError(f"a world model needs the heads {sorted(missing)}")
        self.encoder, self.dynamics, self.decoder = encoder, dynamics, decoder
        self.heads = nn.ModuleDict(heads)  # type: ignore[arg-type]
        self.kl, self.discount = kl, discount
        if regularisers and draw is None:
            raise ValueError("regularisers compare posterior and prior: say how the prior's stoch is drawn")
        self._terms: dict[str, Regulariser] = dict(regularisers or {})
        self.regularisers = nn.ModuleDict(self._terms)  # type: ignore[arg-type] # structural: each is a module too
        self.draw = draw

    def prefill(self, past: Past | None, batch: int) -> Carry:
        """The carry after the past of a batch of `batch` rows; without any, the initial one. No gradient."""
        carry = self.dynamics.initial(batch)
        if past is None:
            return carry
        with torch.no_grad():
            seen = replace(past, stored=names.notes(past.stored), action=bound_action(past.action))
            return self.dynamics.prefill(carry, seen)

    def observe(self, carry: Carry, steps: Steps) -> Trace:
        """Posterior over the steps. Here alone are resets chosen and actions bounded."""
        return self.dynamics.observe(carry, self.encoder(steps), bound_action(steps["action"]), resets(steps))

    @torch.no_grad()
    def recalled(self, carry: Carry, steps: Steps) -> Recollection | None:
        """Which past steps `observe` recalls at each of these; None where the dynamics recalls nothing."""
        if not isinstance(self.dynamics, Remembering):
            return None
        return self.dynamics.recalled(carry, self.encoder(steps), bound_action(steps["action"]), resets(steps))

    def imagine(self, start: Start, action: Tensor) -> tuple[Start, Latent]:
        """One prior step from M starts with action (M, A), of any size."""
        return self.dynamics.imagine(start, bound_action(action))

    @property
    def stores(self) -> Mapping[str, int]:
        """What the dynamics wants of past steps, by the names of a replay's entries."""
        return names.noted(self.dynamics.stores)

    def stored(self, trace: Trace) -> dict[str, Tensor]:
        """What a replay keeps of observed steps, (B, T, ...), by the names of its entries."""
        return names.noted(self.dynamics.stored(trace))

    def starts(self, trace: Trace, last: int = 0) -> tuple[Start, Latent]:
        """The last `last` steps of a trace, or all where it is 0 or has no more, as starts of a dream: row b*last + t."""
        length = trace.latent.deter.shape[1]
        return self.dynamics.starts(trace, min(last or length, length))

    def latest(self, trace: Trace) -> Latent:
        """The latent of a trace's last step: (B, ...)."""
        return trace.latent.at(-1)

    def losses(self, carry: Carry, steps: Steps, clock: Clock | None = None) -> tuple[dict[str, Tensor], Trace]:
        """Every loss of the world model (B, T), weighted by weight / mean(weight), and the trace they came from.

        Those of observations are called obs/<key>.
        """
        losses, raw, trace = self._predicted(carry, steps)
        if self.draw is not None:
            prior = replace(trace.latent, stoch=self.draw(trace.prior))
            terms = {name: term(trace.latent, prior, raw, clock) for name, term in self._terms.items()}
            losses = names.together(losses, terms)
        return _weighted(losses, steps["weight"]), trace

    @torch.no_grad()
    def measured(self, carry: Carry, steps: Steps) -> tuple[dict[str, Tensor], Trace]:
        """`losses` (B, T) of steps that are only looked at, without gradient: those of the regularisers, which keep something of
        their last call and draw from a source of their own, are left out."""
        losses, _, trace = self._predicted(carry, steps)
        return _weighted(losses, steps["weight"]), trace

    def _predicted(self, carry: Carry, steps: Steps) -> tuple[dict[str, Tensor], Tensor, Trace]:
        """Losses of observations, heads and both KL terms (B, T), not weighted; the KL itself; and the trace."""
        trace = self.observe(carry, steps)
        targets = steps | trace.targets | {"cont": ~steps["terminal"] * self.discount}  # of heads
        shown, predicted = self.decoder(trace.latent), {name: head(trace.latent) for name, head in self.heads.items()}
        seen = {key: distribution.loss(steps[key]) for key, distribution in shown.items()}
        heads = {name: distribution.loss(targets[name]) for name, distribution in predicted.items()}
        kl, raw = self.kl(trace.post, trace.prior, steps["weight"])
        return names.together(names.observed(seen), heads, kl), raw, trace

    @torch.no_grad()
    def probe(self, steps: Steps, clock: Clock) -> None:
        """Let the regularisers that are due look at these steps: for the host, where updates are recorded as graphs and
        run no Python. Draws nothing: posterior modes stand beside the prior's probabilities."""
        due = [term for term in self._terms.values() if isinstance(term, Probing) and term.due(clock)]
        if not due:
            return
        with draws.drawing(draws.Fixed()):
            trace = self.observe(self.prefill(None, len(steps["first"])), steps)
        raw = self.kl(trace.post, trace.prior, steps["weight"])[1]
        for term in due:
            term.probe(trace.latent, replace(trace.latent, stoch=trace.prior.exp()), raw)

    @resting()
    def dream(self, start: tuple[Start, Latent], policy: Policy, horizon: int) -> Dream:
        """`horizon` prior steps from M starts under the policy. Nothing here carries gradient."""
        at, latent = start
        latents, masks, actions = [latent], [self.mask(latent)], []
        with draws.ahead(horizon):
            for _ in range(horizon):
                actions.append(self.act(policy, latent, masks[-1]).sample())
                at, latent = self.imagine(at, actions[-1])
                latents.append(latent)
                masks.append(self.mask(latent))
        stacked = stack(latents)
        reward, cont = self.heads["reward"](stacked).mode(), self.heads["cont"](stacked).mode()
        allowed = torch.stack([one for one in masks if one is not None], 1) if self.masks else None
        return Dream(stacked, torch.stack(actions, 1), reward, cont, allowed)

    def going(self, latent: Latent) -> Tensor:
        """The probability that the episode goes on at a latent (...), without the discount that sits in the head: (...).

        A head of yes or no (`HardContinue`) dreams by its mode, and has the probability in its logit.
        """
        cont = self.heads["cont"](latent)
        likely = torch.sigmoid(cont.logits) if isinstance(cont, Bernoulli) else cont.mode()
        return (likely.float() / self.discount).clamp(0, 1)

    @property
    def masks(self) -> bool:
        """Whether this world says which actions are allowed."""
        return MASK in self.heads

    def mask(self, latent: Latent) -> Tensor | None:
        """Which actions are allowed in a latent (..., A) bool, as predicted; None where that is nobody's to say."""
        return self.heads[MASK](latent).allowed() if self.masks else None

    @staticmethod
    def act(policy: Policy, latent: Latent, mask: Tensor | None) -> ActionDistribution:
        """The policy in a latent (...), which is told of a mask (..., A) where there is one."""
        return policy(latent) if mask is None else policy(latent, mask)

    def regularised(self, weight: Tensor) -> Metrics:
        """What the regularisers tell of their last call, records counting by weight (B, T)."""
        found = {name: term.metrics(weight) for name, term in self._terms.items()}
        return {f"{name}/{key}": value for name, of in found.items() for key, value in of.items()}

    def metrics(self, trace: Trace, steps: Steps, dream: Dream) -> Metrics:
        """Health of the latents, and of the heads where the dream, which came from the last steps of every row, began."""
        return health.latents(trace.post, trace.prior) | health.dreamed(dream, steps, self.discount)


def _weighted(losses: Mapping[str, Tensor], weight: Tensor) -> dict[str, Tensor]:
    """Each loss times weight / mean(weight), so that its plain mean is the weighted one."""
    scaled = torch.stack([wide(loss) for loss in losses.values()]) * (weight / mean(weight))
    return dict(zip(losses, scaled.unbind(), strict=True))


def resets(steps: Steps) -> Tensor:
    """Where the dynamics forgets, (B, T): `reset` where a batch has it, else `first`."""
    return steps.get("reset", steps["first"])


def bound_action(action: Tensor) -> Tensor:
    """a / sg(max(1, |a|)), elementwise: a clamp to [-1, 1] that leaves what lies there untouched, and passes a gradient
    where it clamps.

    >>> action = torch.tensor([0.5, -4.0], requires_grad=True)
    >>> bound_action(action).sum().backward()
    >>> bound_action(action).tolist(), action.grad.tolist()
    ([0.5, -1.0], [1.0, 0.25])
    """
    if not (action.requires_grad and torch.is_grad_enabled()):
        return action.clamp(-1, 1)
    return action / action.detach().abs().clamp(min=1)


def stack(latents: list[Latent]) -> Latent:
    """Latents (M, ...) of successive steps -> one latent (M, H, ...), without gradient."""

    def join(name: str) -> Tensor:
        return torch.stack([getattr(latent, name).detach() for latent in latents], 1)

    hidden = None if latents[0].hidden is None else join("hidden")
    return Latent(join("deter"), join("stoch"), hidden)
