"""The seams of the workbench: what an encoder, a dynamics, a backbone, a head and a behaviour promise each other.

All are structural (typing.Protocol): a class fits by shape and name, without importing this file.
Sizes: B batch, T time, P past, M starts, H horizon, A action, E embed, D deter, S x K stochastic.
Laws every Dynamics obeys are in `wm_core.testing.check_dynamics`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray
from torch import Tensor

from wm_core.types import Batch, Carry, Dream, Index, Latent, Past, Steps, Trace

Metrics = dict[str, Tensor]  # 0-d, on the device until the logger fetches them


@runtime_checkable
class Encoder(Protocol):
    """Observations -> named embeddings."""

    def __call__(self, steps: Steps) -> dict[str, Tensor]:
        """{"obs": (B, T, E), ...}. PO-Dreamer adds "memory" (with gradient) and "key" (without)."""


@runtime_checkable
class Dynamics(Protocol):
    """The recurrent half of a world model. Acting is observing with T = 1."""

    @property
    def widths(self) -> Mapping[str, int]:
        """Of each latent feature: {"deter": D, "stoch": S*K, ...}."""

    @property
    def stores(self) -> Mapping[str, int]:
        """What replay keeps per step, and of how many of the last past steps `prefill` wants it."""

    def initial(self, *lead: int) -> Carry:
        """The carry before any step, for leading sizes (B,) or (B, N)."""

    def prefill(self, carry: Carry, past: Past) -> Carry:
        """The carry after the past steps, from what was stored of them; no gradient. Rows without any valid past
        keep `carry`."""

    def observe(self, carry: Carry, embed: Mapping[str, Tensor], action: Tensor, first: Tensor) -> Trace:
        """Posterior over T >= 1 steps: embed values (B, T, E), action (B, T, A) that led here, first (B, T) bool."""

    def stored(self, trace: Trace) -> dict[str, Tensor]:
        """Exactly the names in `stores`, each (B, T, ...), compact (indices as uint8, floats as float16)."""

    def imagine(self, carry: Carry, action: Tensor) -> tuple[Carry, Latent]:
        """One prior step from carry (M, ...) with action (M, A)."""

    def starts(self, trace: Trace, last: int) -> tuple[Carry, Latent]:
        """The last `last` steps of a trace as starts of imagination: (B*last, ...), row b*last + t."""


@runtime_checkable
class Backbone(Protocol):
    """A sequence model over tokens, what wm-ssm and wm-tssm provide to `Parallel`."""

    def initial(self, *lead: int) -> Carry:
        """The carry before any token."""

    def __call__(self, carry: Carry, tokens: Tensor, first: Tensor) -> tuple[Tensor, Tensor | None, Carry, Any]:
        """tokens (B, T, D), first (B, T) -> out (B, T, D), hidden (B, T, X) or None, carry, each (for `starts`)."""

    def starts(self, each: Any, last: int) -> Carry:
        """The carry after each of the last `last` tokens: (B*last, ...)."""


class Distribution(Protocol):
    """What a head or a policy returns."""

    def mode(self) -> Tensor:
        """The prediction: for two-hot the mean, for an image the image."""

    def loss(self, target: Tensor) -> Tensor:
        """Negative log-likelihood or the loss that stands for it, reduced over the event alone: (B, T)."""


class ActionDistribution(Protocol):
    """A policy's distribution over action vectors (..., A)."""

    def sample(self) -> Tensor: ...

    def mode(self) -> Tensor: ...

    def tempered(self, temperature: float) -> ActionDistribution:
        """The density to the power of 1 / temperature, normalised."""

    def log_prob(self, action: Tensor) -> Tensor: ...

    def entropy(self) -> Tensor: ...


@runtime_checkable
class Head(Protocol):
    """Latent -> distribution; `reads` names the features it looks at."""

    reads: tuple[str, ...]

    def __call__(self, latent: Latent) -> Distribution: ...


@runtime_checkable
class Behaviour(Protocol):
    """Policy and values, learned in imagination."""

    def policy(self, latent: Latent, mask: Tensor | None = None) -> ActionDistribution: ...

    def losses(self, dream: Dream) -> dict[str, Tensor]:
        """Each (M, H), weighted; joined to the world model's losses."""


@runtime_checkable
class Regulariser(Protocol):
    """An extra loss on posterior and prior latents; value alignment is one."""

    def __call__(self, posterior: Latent, prior: Latent, kl: Tensor, clock: Any) -> Tensor:
        """(B, T), weighted."""


@runtime_checkable
class Probing(Protocol):
    """A regulariser that wants to see once, on the host, whether it can work at all."""

    def due(self, clock: Any) -> bool:
        """Whether it is time to look."""

    def probe(self, posterior: Latent, prior: Latent, kl: Tensor) -> bool:
        """Look, at latents (B, T, ...) and the KL between them (B, T). Raises what a run must stop for."""


class Experience(Protocol):
    """What an agent's `learn` asks of a replay, or of a feed before it."""

    def ready(self, length: int) -> bool: ...

    def sample(self, batch: int, length: int, past: int = 0) -> Batch: ...

    def annotate(self, index: Index, **arrays: NDArray[Any] | Tensor) -> None: ...
