"""The gradient of every tensor of an update, and how far that in half precision lies from that in float32.

Samples are forced: noise alone decides every class, so that rounding changes no sample and a difference is one of gradients.
"""

from __future__ import annotations

from typing import Any

import torch
from bench.cases import Case, fill, prepare
from torch import Tensor
from wm_core import draws
from wm_core.ranks import Alone, learning_with

SMALL = 1e-2  # of the root mean square of all entries: what lies below is rounding


class Forced(draws.Generator):
    """A source by which one class of each categorical is drawn whatever its probability, unless it is below e^-15."""

    def _classes(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        return torch.zeros(shape, device=device).scatter_(
            -1, super().uniform(shape, device).argmax(-1, keepdim=True), 1
        )

    def uniform(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """Of which Gumbel noise is made: 16 for one class, -4.5 for the others."""
        return self._classes(shape, device) * (1 - 1e-7)

    def exponential(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """1e-9 for one class, 1 for the others; never 0, which is no such number and would choose what a mask forbids."""
        return 1e-9 ** self._classes(shape, device)


class Seen(Alone):
    """One process that keeps what it is asked to average over all: every gradient passes there."""

    def __init__(self) -> None:
        self.gradients: list[Tensor] = []

    def average(self, tensors: list[Tensor]) -> None:
        self.gradients += [tensor.detach().clone() for tensor in tensors]


def of_update(case: Case) -> dict[str, Tensor]:
    """By the names of the weights; one update is made."""
    agent, seen = case.agent, Seen()
    agent.source = Forced(0, agent.device)
    rules = getattr(agent.optimiser, "rules", {"all": agent.optimiser}).values()
    names = {id(weight): name for name, weight in agent.named_parameters()}
    torch.manual_seed(0)  # dropout draws from the global generator
    lit(agent)
    with learning_with(seen):
        agent.learn(fill(case))
    return dict(zip((names[id(weight)] for rule in rules for weight in rule.params), seen.gradients, strict=True))


@torch.no_grad()
def lit(agent: Any) -> None:
    """Last layers of zeros let no gradient through: small numbers, and where they are bins a peak at their middle."""
    for name, weight in agent.named_parameters():
        if name.endswith("out.weight") and not weight.any():
            weight += 0.05 * torch.randn(weight.shape).to(weight.device)
            bins = agent.get_parameter(name.removesuffix("weight") + "bias")
            bins -= (torch.arange(len(bins)) - len(bins) // 2).abs().to(weight.device) * 0.5


def errors(app: str, options: list[str]) -> dict[str, float]:
    """|g - g32| / |g32| of every tensor, which is 1 where half precision gives none.

    A gradient far below all others is rounding, as that of a bias before a batch norm: it is measured by `SMALL`.
    """
    half, exact = (of_update(prepare(app, [*options, "--precision", kind])) for kind in ("bf16", "fp32"))
    least = {part: SMALL * rms([g for name, g in exact.items() if of(name) == part]) for part in set(map(of, exact))}
    return {
        name: float(norm(half[name] - g) / norm(g).clamp(min=least[of(name)] * g.numel() ** 0.5))
        for name, g in exact.items()
    }


def of(name: str) -> str:
    """Whose gradient it is: those of world model, actor and critic are of very different sizes."""
    first, second, *_ = name.split(".")
    return first if first in ("world", "actor", "critic") else second


def rms(gradients: list[Tensor]) -> float:
    """Of all their entries."""
    return float(norm(torch.stack([norm(g) for g in gradients]))) / sum(g.numel() for g in gradients) ** 0.5


def norm(x: Tensor) -> Tensor:
    """L2, in float64."""
    return torch.linalg.vector_norm(x.double())
