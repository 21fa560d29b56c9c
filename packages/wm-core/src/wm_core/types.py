"""What flows between the parts: steps from the environment, latents from the model, dreams from imagination.

Sizes: B batch, T time, N agents (optional), P past, M starts, H horizon, A action, D deter, S x K stochastic.
A step is what arrived together: the action that led here, the reward and the observation it brought.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.export import register_dataclass

Carry = Any  # nested tensors, batch first; only the dynamics that made it looks inside
Start = Any  # where a dream goes on from: what `Dynamics.starts` gives, a carry without what only observing needs
Steps = dict[str, Tensor]  # every value (B, T, ...), or (B, T, N, ...) with agents


@dataclass(frozen=True)
class Latent:
    """The state of a world model, as named features.

    deter (..., D) is the deterministic state, stoch (..., S, K) one-hot samples with straight-through gradients,
    hidden (..., X) a recurrent state that is not deter (a state-space model's), or None.

    >>> latent = Latent(deter=torch.zeros(2, 8), stoch=torch.zeros(2, 4, 3))
    >>> latent.read("deter", "stoch").shape
    torch.Size([2, 20])
    """

    deter: Tensor
    stoch: Tensor
    hidden: Tensor | None = None

    def read(self, *names: str) -> Tensor:
        """The named features, flattened and joined in the order asked: (..., F).

        Raises ValueError for a feature that this latent does not carry.
        """
        key = (names, torch.is_grad_enabled())  # joined once for all heads; what was joined without gradient has none
        cache: dict[Any, Tensor] = self.__dict__.setdefault("_joined", {})
        if key in cache:
            return cache[key]
        parts = []
        for name in names:
            value = getattr(self, name, None)
            if value is None:
                raise ValueError(f"this world model has no latent feature {name!r}; choose among {self.names()}")
            parts.append(value.flatten(-2) if name == "stoch" else value)
        cache[key] = parts[0] if len(parts) == 1 else torch.cat(parts, -1)
        return cache[key]

    def at(self, t: int) -> Latent:
        """The latent (B, ...) of one step of (B, T, ...)."""
        return Latent(self.deter[:, t], self.stoch[:, t], None if self.hidden is None else self.hidden[:, t])

    def rows(self, last: int) -> Latent:
        """The last `last` steps of (B, T, ...) as rows: (B*last, ...), row b*last + t."""

        def flat(feature: Tensor) -> Tensor:
            return feature[:, -last:].flatten(0, 1)

        return Latent(flat(self.deter), flat(self.stoch), None if self.hidden is None else flat(self.hidden))

    def names(self) -> tuple[str, ...]:
        """The features this latent carries."""
        return tuple(f.name for f in fields(self) if getattr(self, f.name) is not None)


@dataclass(frozen=True)
class Trace:
    """What a dynamics makes of observed steps."""

    latent: Latent  # (B, T, ...) posterior features
    post: Tensor  # (B, T, ..., S, K) posterior logits
    prior: Tensor  # (B, T, ..., S, K) prior logits
    carry: Carry  # after step T
    each: Any = None  # private to `starts`
    targets: dict[str, Tensor] = field(default_factory=dict)  # targets born in the model, each (B, T, ...)


@dataclass(frozen=True)
class Dream:
    """A rollout in imagination from M starts over H steps. Index 0 is the start, taken from replay."""

    latent: Latent  # (M, H+1, ...)
    action: Tensor  # (M, H, A): action[:, t] leads from t to t+1
    reward: Tensor  # (M, H+1) predicted on arrival; reward[:, 0] belongs to the start
    cont: Tensor  # (M, H+1) predicted probability of going on, with the discount inside
    mask: Tensor | None = None  # (M, H+1, A) bool, actions allowed, where the world predicts it
    taken: tuple[Tensor, ...] = ()  # H leaves (M, A), by which the rest has a gradient; see `wm_core.pathwise`


@dataclass(frozen=True)
class Recollection:
    """Which past steps each of T observed steps recalls, in K places: every value (B, T, K).

    What is not `taken` means nothing; the weights of what is taken sum to 1.
    """

    age: Tensor  # steps ago: 1 is the step before
    episodes: Tensor  # episodes ago: 0 is the step's own
    weight: Tensor  # float32: how much of what is recalled it is
    taken: Tensor  # bool


@dataclass(frozen=True)
class Past:
    """What replay kept of the P steps before a batch, oldest first and right-aligned.

    stored[name] is (B, min(P, n), ...) for the n last steps that the dynamics wants of it; action (B, P, A);
    first and valid (B, P). valid is False where the stream holds no such step; the padding there is zero.
    """

    stored: dict[str, Tensor]
    action: Tensor
    first: Tensor
    valid: Tensor


@dataclass(frozen=True)
class Index:
    """Where the rows of a batch lie: stream (B,) and the absolute position (B,) of each row's first step."""

    stream: Tensor
    start: Tensor


@dataclass(frozen=True)
class Batch:
    """Rows of consecutive steps, each from one stream.

    steps holds the stored entries (B, T, ...) with `weight` (B, T), ones, and `reset` (B, T): `first`, and True at a
    row's first step when nothing precedes it. The dynamics follows `reset`; losses and returns follow `first`.
    """

    steps: Steps
    past: Past | None
    index: Index


def moved(batch: Batch, move: Callable[[Tensor], Tensor]) -> Batch:
    """Every tensor of a batch moved; the index stays where replay reads it."""
    steps, past = {key: move(value) for key, value in batch.steps.items()}, batch.past
    if past is not None:
        stored = {key: move(value) for key, value in past.stored.items()}
        past = Past(stored, move(past.action), move(past.first), move(past.valid))
    return replace(batch, steps=steps, past=past)


for _type in (Latent, Trace, Dream, Past, Index, Batch):
    register_dataclass(_type)
