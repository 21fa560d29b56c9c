"""posterior and prior features -> the critic's value distribution of both -> a KL that the world model lessens.

Value alignment (Var): a world model that predicts badly what it does not need for the value is forgiven, and one that
predicts badly what the value depends on is not. Sizes: B batch, T time, V bins.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call


class BlindCritic(ValueError):
    """The critic does not see the stochastic state, so that value alignment would be zero for ever."""


class ValueAlignment(nn.Module):
    """A `Regulariser`, and `Probing`: beta (dyn KL[sg V(s) || V(s~)] + rep KL[V(s) || sg V(s~)]), beta = 1 / max(1, sg KL[q || p]), after a warm-up.

    V(s) is the critic's categorical over its bins, s the posterior features, s~ the prior's with the same deterministic
    part (paper: Eq. 4 and 5). Gradient goes through the critic to its inputs and never to its parameters: the critic is
    no submodule of this, and is called with its parameters detached.

    Args:
        critic: a module, features -> logits (..., V), or a distribution with `logits`; features are handed to it untouched,
            plain tensors as well as structures. Keep dropout and batch norm out of it. The slow critic may take its place.
        warmup: nothing happens until more than so many `unit`s have passed.
        unit: "steps", the clock's agent steps, or "updates", its updates.
        dyn: scale of the first term.
        rep: scale of the second.
        weight: None for the adaptive beta, or a constant in its place.
        detach: features of a dataclass whose gradient is cut in s and s~, for example ("deter",).

    Raises:
        BlindCritic: here where critic.reads names features and "stoch" is not among them, else once, after the warm-up,
            when `probe` finds it out.
        TypeError: the critic is no torch module.

    >>> critic = nn.Linear(4, 3)
    >>> var = ValueAlignment(critic, warmup=100)
    >>> s, prior = torch.randn(2, 5, 4), torch.randn(2, 5, 4, requires_grad=True)
    >>> var(s, prior, kl=torch.full((2, 5), 8.0), clock=100).sum().item()  # not yet
    0.0
    >>> loss = var(s, prior, kl=torch.full((2, 5), 8.0), clock=101)
    >>> loss.mean().backward()
    >>> loss.shape, prior.grad is None, critic.weight.grad is None
    (torch.Size([2, 5]), False, True)
    """

    updates: Tensor

    def __init__(
        self,
        critic: nn.Module,
        *,
        warmup: int = 10_000,
        unit: Literal["steps", "updates"] = "steps",
        dyn: float = 0.5,
        rep: float = 0.1,
        weight: float | None = None,
        detach: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        if not isinstance(critic, nn.Module):
            raise TypeError(f"the critic must be a torch module, whose parameters can be held still, not {critic!r}")
        reads = getattr(critic, "reads", None)
        if reads is not None and "stoch" not in reads:
            raise BlindCritic(
                f"the critic reads {tuple(reads)} and not 'stoch', so value alignment would be zero for ever: let it read "
                "'stoch' too, or leave value alignment out"
            )
        self._critic = (critic,)  # a tuple, so that torch does not register it: it is another optimiser's
        self.warmup, self.unit, self.detach = warmup, unit, detach
        self.dyn, self.rep, self.weight = dyn, rep, weight
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.noted: tuple[Tensor, Tensor] | None = None  # beta and distance of the last call's records, (B, T)
        self.probed, self.calls = False, 0

    def forward(self, posterior: Any, prior: Any, kl: Tensor, clock: Any) -> Tensor:
        """posterior, prior: features (B, T, ...); kl (B, T) or 0-d, unclipped; clock: an object with 0-d tensors `steps`
        and `updates`, or the number itself. -> (B, T), exactly 0 during the warm-up.

        A number is compared on the host, and nothing is computed during the warm-up; a tensor is compared where it is.
        """
        now = getattr(clock, self.unit, clock)
        if not isinstance(now, Tensor) and now <= self.warmup:
            shape = kl.shape or next(_leaves(posterior)).shape[:2]
            return kl.new_zeros(shape, dtype=torch.promote_types(kl.dtype, torch.float32))
        if not torch.compiler.is_compiling() and not _recording(now) and self.due(clock):
            self.probe(posterior, prior, kl)
        seen, dreamt = self.value(self._cut(posterior)), self.value(self._cut(prior))
        loss = self.dyn * _kl(seen.detach(), dreamt) + self.rep * _kl(seen, dreamt.detach())
        beta = self._beta(kl, loss)
        active = torch.as_tensor(now, device=loss.device) > self.warmup
        self._note(active, beta, _kl(seen.detach(), dreamt.detach()))
        return torch.where(active, beta * loss, torch.zeros((), dtype=loss.dtype, device=loss.device))

    def value(self, features: Any) -> Tensor:
        """log V(s), (..., V), of features; gradient reaches them and not the critic's parameters."""
        (critic,) = self._critic
        still = {name: parameter.detach() for name, parameter in critic.named_parameters()}
        out = functional_call(critic, still, (features,))
        logits = out if isinstance(out, Tensor) else out.logits
        return torch.log_softmax(logits.double() if logits.dtype == torch.float64 else logits.float(), -1)

    @torch.no_grad()
    def metrics(self, weight: Tensor | None = None) -> dict[str, Tensor]:
        """Of the last call, 0-d, not read by the host: mean beta, mean unscaled KL between the values (both 0 during the
        warm-up), and the number of calls so far in which alignment was active.

        weight: (B, T), how much each record counts in the means; None: all alike. Give the weight of the loss, so that
        a record without any is not spoken of.
        """
        zero = torch.zeros((), device=self.updates.device)
        beta, distance = self.noted or (zero, zero)
        if weight is None or self.noted is None:
            beta, distance = beta.mean(), distance.mean()
        else:
            beta, distance = (beta * weight).sum() / weight.sum(), (distance * weight).sum() / weight.sum()
        return {"beta": beta, "distance": distance, "updates": self.updates.clone()}

    @torch.no_grad()
    def probe(self, posterior: Any, prior: Any, kl: Tensor) -> bool:
        """Whether the critic is seen to tell s (B, T, ...) from s~, kl (B, T); False where these cannot decide. Reads from the device.

        A critic that gives one value everywhere (zero at initialisation) decides nothing. Raises BlindCritic for one
        that does not, although the features differ, or for features that are the same although the KL is above 1 nat.
        Called by itself once the warm-up is over; where updates are recorded as graphs, which run no Python, call it
        outside of them when it is `due`.
        """
        one, other = self.value(posterior), self.value(prior)
        if bool((one != other).any()):
            self.probed = True
            return True
        flat = one.flatten(0, -2)
        if bool((flat == flat[:1]).all()):
            return False
        alike = all(bool((a == b).all()) for a, b in zip(_leaves(posterior), _leaves(prior), strict=True))
        if alike and not bool(kl.mean() > 1):
            return False
        raise BlindCritic(
            "the critic gives posterior and prior the same values, so value alignment is zero for ever: its features must "
            "contain the stochastic state, drawn from the posterior and from the prior"
        )

    def due(self, clock: Any) -> bool:
        """Whether it is time to `probe`: the warm-up is over, and the critic has not been seen to see. For the host: a
        clock on a GPU is read at every 256th call, until it has.

        >>> var = ValueAlignment(nn.Linear(4, 3), warmup=100)
        >>> var.due(100), var.due(101)
        (False, True)
        """
        if self.probed:
            return False
        now = getattr(clock, self.unit, clock)
        self.calls += 1
        if isinstance(now, Tensor) and now.is_cuda and self.calls % 256:
            return False
        return bool(now > self.warmup)

    def _beta(self, kl: Tensor, loss: Tensor) -> Tensor:
        if self.weight is not None:
            return torch.full_like(loss, self.weight)
        return (1 / kl.detach().to(loss.dtype).clamp(min=1)).expand_as(loss)  # trust it where the model already fits

    @torch.no_grad()
    def _note(self, active: Tensor, beta: Tensor, distance: Tensor) -> None:
        self.updates += active
        self.noted = (beta * active, distance * active)

    def _cut(self, features: Any) -> Any:
        if not self.detach:
            return features
        if not is_dataclass(features) or isinstance(features, type):
            raise TypeError(f"detach={self.detach} needs features with these names; detach plain tensors yourself")
        return replace(features, **{name: getattr(features, name).detach() for name in self.detach})


def _recording(now: Any) -> bool:
    """Whether a graph is recorded, in which nothing can be read."""
    return isinstance(now, Tensor) and now.is_cuda and torch.cuda.is_current_stream_capturing()


def _kl(left: Tensor, right: Tensor) -> Tensor:
    """KL[left || right] of log-probabilities (..., V): (...)."""
    return (left.exp() * (left - right)).sum(-1)


def _leaves(features: Any) -> Iterator[Tensor]:
    """Every tensor of nested dataclasses, mappings and sequences."""
    if isinstance(features, Tensor):
        yield features
    elif is_dataclass(features):
        for field in fields(features):
            yield from _leaves(getattr(features, field.name))
    elif isinstance(features, Mapping):
        for value in features.values():
            yield from _leaves(value)
    elif isinstance(features, (list, tuple)):
        for value in features:
            yield from _leaves(value)
