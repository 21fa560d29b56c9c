"""Observations of every agent -> one encoder for policy and values -> actions, one agent's after the other: model-free MAT.

The networks of the Multi-Agent Transformer (Wen et al. 2022), `wm_marl.MATEncoder` and `MATDecoder`, where the app has its
own: `MATActor` stands for `Actor` and `MATCritic` for `Critic`. It acts centrally: an agent's choice depends on what all
see, and on what those before it chose. Sizes: R rows, T time, N agents, D width, A actions.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from wm_core.contracts import ActionDistribution
from wm_core.precision import wide
from wm_core.types import Carry, Steps
from wm_marl import MATDecoder, MATEncoder
from wm_marl.attention import RELU, SMALL, orthogonal
from wm_marl.mat_actions import in_order
from wm_marl.order import Order

from mappo.memory import NoMemory
from mappo.networks import Sight, named

ENCODED = "/encoded"  # the entry of what policy and values share, which no observation is called


class MATActor(nn.Module):
    """What all agents see -> the distribution of the team's actions; what an agent may not do has probability 0.

    Args:
        sight: of one agent's observations.
        agents: N.
        identity: whether agents are told who they are, as a one-hot beside what they see (SMAC's own observation has it).
        width, blocks, heads: of encoder and decoder.
        random_order: whether agents choose in an order that is drawn anew after each update.
        discrete, continuous: of one agent's action.
    """

    def __init__(
        self,
        sight: Sight,
        *,
        agents: int,
        identity: bool,
        width: int,
        blocks: int,
        heads: int,
        random_order: bool,
        discrete: tuple[int, ...],
        continuous: int,
    ) -> None:
        super().__init__()
        self.sight, self.identity, self.memory = sight, identity, NoMemory()
        sizes: dict[str, Any] = {"width": width, "blocks": blocks, "heads": heads}
        self.encoder = MATEncoder(sight.width + (agents if identity else 0), agents=agents, **sizes)
        self.decoder = MATDecoder(discrete=discrete, continuous=continuous, **sizes)
        self.order = Order(agents) if random_order else None

    def forward(self, steps: Steps, carry: Carry) -> tuple[ActionDistribution, dict[str, Tensor]]:
        """As of `Actor`: policies (R, T, N); nothing is known afterwards."""
        return in_order(self.decoder, self.encoded(steps), steps["action_mask"], self.order), {}

    def read(self, steps: Steps) -> Steps:
        """The steps, with what policy and values share of them."""
        return steps | {ENCODED: self.encoded(steps)}

    def encoded(self, steps: Steps) -> Tensor:
        """(R, T, N, D)."""
        if ENCODED in steps:
            return steps[ENCODED]
        seen = self.sight(steps)
        found: Tensor = self.encoder(named(seen) if self.identity else seen)
        return found

    def follow(self) -> None:
        """After an update: the next order, where it is random."""
        if self.order is not None:
            self.order.draw()


class MATCritic(nn.Module):
    """A value of each agent, (R, T, N), on the actor's encoder, whose weights are the actor's."""

    actor: MATActor

    def __init__(self, actor: MATActor) -> None:
        super().__init__()
        object.__setattr__(self, "actor", actor)  # no submodule of this one
        width = actor.encoder.width
        self.body = nn.Sequential(orthogonal(nn.Linear(width, width), RELU), nn.GELU(), nn.LayerNorm(width))
        self.out = orthogonal(nn.Linear(width, 1), SMALL)

    def forward(self, steps: Steps) -> Tensor:
        return wide(self.out(self.body(self.actor.encoded(steps)))).squeeze(-1)
