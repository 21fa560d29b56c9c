"""The seams of the workbench: what an encoder, a dynamics, a backbone, a head and a behaviour promise each other.

All are structural (typing.Protocol): a class fits by shape and name, without importing this file.
Sizes: B batch, T time, P past, M starts, H horizon, A action, E embed, D deter, S x K stochastic.
Laws every Dynamics obeys are in `wm_core.testing.check_dynamics`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray
from torch import Tensor, nn

from wm_core.types import Batch, Carry, Dream, Index, Latent, Past, Recollection, Start, Steps, Trace

Metrics = dict[str, Tensor]  # 0-d, on the device until the logger fetches them
Notes = dict[str, Tensor]  # what replay keeps of steps, (B, T, ...), by the names of its entries
Update = tuple[Metrics, Notes]  # what one update gives


@runtime_checkable
class Encoder(Protocol):
    """Observations -> named embeddings."""

    @property
    def width(self) -> int:
        """E of "obs", which a dynamics is built for."""

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

    def observe(self, carry: Carry, embed: Mapping[str, Tensor], action: Tensor, reset: Tensor, /) -> Trace:
        """Posterior over T >= 1 steps: embed values (B, T, E), action (B, T, A) that led here, bounded to [-1, 1], and
        reset (B, T) bool: what precedes such a step is forgotten."""

    def stored(self, trace: Trace) -> dict[str, Tensor]:
        """Exactly the names in `stores`, each (B, T, ...), compact (indices as uint8, floats as float16)."""

    def imagine(self, start: Start, action: Tensor, /) -> tuple[Start, Latent]:
        """One prior step from M starts, or from a carry, with action (M, A), bounded to [-1, 1]."""

    def starts(self, trace: Trace, last: int) -> tuple[Start, Latent]:
        """The last `last` steps of a trace as starts of imagination: (B*last, ...), row b*last + t."""

    def left(self, carry: Carry) -> float:
        """How many more steps a row from this carry, or a dream from this start, can have; `math.inf` where nothing
        bounds it."""

    def prior_logits(self, deter: Tensor) -> Tensor:
        """p(z | deter) of deter (..., D): normalised log-probabilities (..., S, K), the uniform share inside."""


@runtime_checkable
class Remembering(Protocol):
    """A dynamics that recalls steps which it observed, and can say which."""

    def recalled(
        self, carry: Carry, embed: Mapping[str, Tensor], action: Tensor, reset: Tensor, /
    ) -> Recollection | None:
        """What each step of `observe`, called with the same, recalls, without gradient or draws: values (B, T, K); None where
        it is of a dynamics that recalls nothing."""


@runtime_checkable
class Backbone(Protocol):
    """A sequence model over tokens, what wm-ssm and wm-tssm provide to `Parallel`."""

    @property
    def hidden_width(self) -> int:
        """X of the `hidden` that it gives; 0 where it gives None."""

    def initial(self, *lead: int) -> Carry:
        """The carry before any token."""

    def __call__(self, carry: Carry, tokens: Tensor, reset: Tensor, /) -> tuple[Tensor, Tensor | None, Carry, Any]:
        """tokens (B, T, D), reset (B, T) -> out (B, T, D), hidden (B, T, X) or None, carry, each (for `starts`)."""

    def starts(self, each: Any, last: int) -> Start:
        """Where to go on from after each of the last `last` tokens: (B*last, ...)."""

    def left(self, carry: Carry) -> float:
        """How many more tokens may follow this carry or start; `math.inf` where nothing bounds it."""


class Distribution(Protocol):
    """What a head or a policy returns."""

    def mode(self) -> Tensor:
        """The prediction (..., event): for two-hot the mean (...), for an image the image (..., H, W, C)."""

    def loss(self, target: Tensor) -> Tensor:
        """Negative log-likelihood or the loss that stands for it, reduced over the event alone: (B, T)."""


class ScalarDistribution(Distribution, Protocol):
    """Of a number, as critics and rewards have it: a categorical over bins."""

    logits: Tensor  # (..., bins)

    def loss_to(self, targets: Tensor, shares: Sequence[float] = ...) -> Tensor:
        """The losses to each of the targets (..., N), summed by their shares: (...)."""


class MaskDistribution(Distribution, Protocol):
    """Of the head "action_mask": which actions (..., A) are allowed."""

    def allowed(self) -> Tensor:
        """(..., A) bool, with at least one allowed: the mode, a sample, or all as long as predictions are not to be
        trusted."""


class ActionDistribution(Protocol):
    """A policy's distribution over action vectors (..., A)."""

    def sample(self) -> Tensor:
        """An action (..., A) by the draws in force (`wm_core.draws`)."""

    def mode(self) -> Tensor:
        """The likeliest action (..., A), one-hot in each of its discrete parts."""

    def tempered(self, temperature: float) -> ActionDistribution:
        """The density to the power of 1 / temperature, normalised."""

    def log_prob(self, action: Tensor) -> Tensor:
        """Of actions (..., A), in nats: (...), summed over the parts of an action."""

    def entropy(self) -> Tensor:
        """In nats: (...), summed over the parts of an action."""


@runtime_checkable
class Head(Protocol):
    """Latent -> distribution; `reads` names the features it looks at."""

    reads: tuple[str, ...]

    def __call__(self, latent: Latent) -> Distribution:
        """At latents (...)."""

    def from_features(self, features: Tensor) -> Distribution:
        """The same from what `Latent.read(*reads)` gave: (..., F)."""


@runtime_checkable
class Behaviour(Protocol):
    """Policy and values, learned in imagination."""

    def policy(self, latent: Latent, mask: Tensor | None = None) -> ActionDistribution:
        """At a latent (...). mask (..., A) bool: what may be chosen; what it forbids has probability exactly 0."""

    def networks(self) -> Mapping[str, nn.Module]:
        """Policy, critics and what else has weights, by name; a critic, if there is one, is "critic"."""

    def follow(self) -> None:
        """What moves after each update: the slow critic, without gradient."""


@runtime_checkable
class JointBehaviour(Behaviour, Protocol):
    """One whose losses join the world model's, all learned by one step (`wm_core.joint.joint_update`)."""

    def evaluate(self, dream: Dream) -> Any:
        """What losses, replay value and metrics share of a dream of M starts and H steps, made once."""

    def losses(self, dream: Dream, evaluation: Any = None) -> dict[str, Tensor]:
        """Each (M, H), weighted; an evaluation that is not given is made."""

    def replay_value(self, trace: Trace, steps: Steps, evaluation: Any) -> dict[str, Tensor]:
        """The critic's loss (B, ...) on the replayed steps, of trace and steps (B, T, ...), that the dream began at,
        weighted by what each record counts."""

    def metrics(self, dream: Dream, evaluation: Any) -> Metrics:
        """How returns, values and policy stand in this dream: 0-d, without gradient."""


@runtime_checkable
class OptimisingBehaviour(Behaviour, Protocol):
    """One that takes its own steps on a finished dream: PPO's epochs, a second optimiser."""

    def optimise(self, dream: Dream) -> Metrics:
        """Learn from a dream of M starts and H steps, which stays as it is: 0-d metrics of the steps taken."""


@runtime_checkable
class Regulariser(Protocol):
    """An extra loss on posterior and prior latents; value alignment is one."""

    def __call__(self, posterior: Latent, prior: Latent, kl: Tensor, clock: Any) -> Tensor:
        """(B, T), weighted."""

    def metrics(self, weight: Tensor | None = None) -> Metrics:
        """Of the last call; weight (B, T) says how much each record counts in means."""


@runtime_checkable
class Probing(Protocol):
    """A regulariser that wants to see once, on the host, whether it can work at all."""

    def due(self, clock: Any) -> bool:
        """Whether it is time to look."""

    def probe(self, posterior: Latent, prior: Latent, kl: Tensor) -> bool:
        """Look, at latents (B, T, ...) and the KL between them (B, T). Raises what a run must stop for."""


class Experience(Protocol):
    """What an agent's `learn` asks of a replay, or of a feed before it."""

    def ready(self, length: int) -> bool:
        """Whether a row of `length` steps can be sampled."""

    def sample(self, batch: int, length: int, past: int = 0) -> Batch:
        """B rows of T steps, every entry (B, T, ...), and what was stored of at most `past` steps before each row. Raises
        where `ready` would be False."""

    def annotate(self, index: Index, **arrays: NDArray[Any] | Tensor) -> None:
        """Write notes (B, T, ...) back to the steps of a batch, which `index` names, by the names of their entries."""
