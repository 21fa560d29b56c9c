"""Observations of every agent -> its policy; state and observations -> the value of each: one set of weights for all.

Layers touch the last axis, so that agents are one more leading axis. Where the critic sees the others, it sees them here.
Sizes: R rows, T time, N agents, E features of an observation, S state, U units, A actions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from wm_core.contracts import ActionDistribution
from wm_core.heads import PolicyHead
from wm_core.images import StridedEncoder
from wm_core.observations import Observations
from wm_core.precision import wide
from wm_core.types import Carry, Steps
from wm_marl.attention import RELU, orthogonal

from mappo.memory import GRUMemory, NoMemory


class Sight(nn.Module):
    """All that an agent observes as one vector: numbers as they are, values as one-hots, images through convolutions.

    steps hold every observation (R, T, N, ...); -> (R, T, N, E). `width` is E.
    """

    def __init__(self, observations: Observations, *, depth: int) -> None:
        super().__init__()
        self.seen = observations
        values = (size for sizes in observations.discretes.values() for size in sizes)
        self.width = sum(observations.vectors.values()) + sum(values)
        if observations.images:
            height, width, _ = next(iter(observations.images.values()))
            channels = sum(shape[2] for shape in observations.images.values())
            self.conv = StridedEncoder((height, width, channels), depth=depth)
            self.width += self.conv.width

    def forward(self, steps: Steps) -> Tensor:
        lead = steps["alive"].shape
        parts = [wide(steps[key]).reshape(*lead, -1) for key in self.seen.vectors]
        for key, sizes in self.seen.discretes.items():
            entries = steps[key].long().reshape(*lead, -1).unbind(-1)
            parts += [F.one_hot(entry, size).float() for entry, size in zip(entries, sizes, strict=True)]
        if self.seen.images:
            parts.append(self.conv(torch.cat([steps[key] for key in self.seen.images], -1)))
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)


class Perceptron(nn.Sequential):
    """LayerNorm, then `layers` times [Linear, ReLU, LayerNorm], orthogonal: (..., I) -> (..., U)."""

    def __init__(self, inputs: int, units: int, layers: int) -> None:
        parts: list[nn.Module] = [nn.LayerNorm(inputs)]
        for _ in range(layers):
            parts += [orthogonal(nn.Linear(inputs, units), RELU), nn.ReLU(), nn.LayerNorm(units)]
            inputs = units
        super().__init__(*parts)


class Actor(nn.Module):
    """What each agent has seen -> the distribution of its action; what it may not do has probability 0.

    Args:
        sight: of one agent's observations.
        memory: `NoMemory` or `GRUMemory`, of the width of the layers.
        agents: N, told to the network as a one-hot; 0 where agents are not told who they are.
        discrete, continuous: of one agent's action, as an ActionSpec has them.
    """

    def __init__(
        self,
        sight: Sight,
        memory: NoMemory | GRUMemory,
        *,
        agents: int,
        units: int,
        layers: int,
        discrete: tuple[int, ...],
        continuous: int,
    ) -> None:
        super().__init__()
        self.sight, self.memory, self.agents = sight, memory, agents
        self.body = Perceptron(sight.width + agents, units, layers)
        widths = {"deter": units}
        self.head = PolicyHead(
            discrete=discrete, continuous=continuous, widths=widths, units=units, layers=0, unimix=0.0, reads=("deter",)
        )
        orthogonal(self.head.out, 0.01)

    def forward(self, steps: Steps, carry: Carry) -> tuple[ActionDistribution, dict[str, Tensor]]:
        """steps (R, T, N, ...) with `action_mask`, `first` (R, T); carry, what was known before the first of them. ->
        policies (R, T, N), and what is known after each step (R, T, N, ...)."""
        seen = self.sight(steps)
        body = self.body(named(seen) if self.agents else seen)
        out, known = self.memory(carry, body, steps["first"])
        return self.head.from_features(out, steps["action_mask"]), known

    def read(self, steps: Steps) -> Steps:
        """The steps, with what policy and values share of them: nothing."""
        return steps

    def follow(self) -> None:
        """After an update: nothing moves but weights."""


class Critic(nn.Module):
    """What is known of each agent's lot -> its value, in units of `ValueNorm`: (R, T, N).

    Args:
        sight: of one agent's observations.
        agents: N.
        state: S, or None where there is none: then everybody's observations stand for it.
        central: whether the critic sees the others at all.
        identity: whether it is told whose value it gives.
    """

    def __init__(
        self,
        sight: Sight,
        *,
        agents: int,
        state: int | None,
        central: bool,
        identity: bool,
        units: int,
        layers: int,
    ) -> None:
        super().__init__()
        self.sight, self.state, self.central, self.identity = sight, state, central, identity
        own = sight.width + (agents if identity else 0)
        # everybody's observations hold the agent's own
        width = own if not central else own + state if state is not None else own + (agents - 1) * sight.width
        self.body = Perceptron(width, units, layers)
        self.out = orthogonal(nn.Linear(units, 1), 1.0)

    def forward(self, steps: Steps) -> Tensor:
        return wide(self.out(self.body(self.input(steps)))).squeeze(-1)

    def input(self, steps: Steps) -> Tensor:
        """(R, T, N, I): of a dead agent only who it is ("death masking")."""
        alive, own = steps["alive"], self.sight(steps)
        if not self.central:
            seen = own
        elif self.state is not None:
            seen = torch.cat([for_each(wide(steps["state"]), alive), own], -1)
        else:
            seen = for_each(own.flatten(-2), alive)
        seen = seen * alive[..., None]
        return named(seen) if self.identity else seen


def for_each(value: Tensor, alive: Tensor) -> Tensor:
    """What is the team's, (R, T, X), for each agent of `alive` (R, T, N): (R, T, N, X), a view."""
    return value[:, :, None].expand(*alive.shape, value.shape[-1])


def named(value: Tensor) -> Tensor:
    """With the one-hot of the agent behind it: (R, T, N, X) -> (R, T, N, X + N).

    >>> named(torch.zeros(1, 1, 2, 1)).flatten(0, 2).tolist()
    [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    who = torch.eye(value.shape[2], dtype=value.dtype, device=value.device)
    return torch.cat([value, who.expand(*value.shape[:2], -1, -1)], -1)
