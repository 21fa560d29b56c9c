"""Latents of a team -> representations that know of each other -> actions, one agent's after the other: MAT on rows.

Read `wm_marl.plain.mat` first. Sizes: B teams, N agents, F features, D width, A numbers of an action.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn
from wm_core import Latent
from wm_core.contracts import ActionDistribution

from wm_marl.across import apart, joined
from wm_marl.mat_actions import Rearranged, in_order
from wm_marl.mat_networks import MATDecoder, MATEncoder
from wm_marl.order import Order


class MATPolicy(nn.Module):
    """The Multi-Agent Transformer on rows of agents; it stands where a `wm_core.heads.PolicyHead` does.

    Rows are as everywhere in wm-marl: agents of one team and moment are neighbours on axis 0, whatever follows. It **acts
    centrally**: an agent's action depends on the latents of all, and on the actions of those before it, which somebody has
    to tell it. The decentralised alternative, MAT-Dec, is a `PolicyHead` beside a critic of the team: `PPO(policy=PolicyHead
    (...), critic=team_critic(...))`.

    Args:
        discrete, continuous, unimix, reads: as of a PolicyHead; `widths` the sizes of what is read.
        agents: N.
        width, blocks, heads, hidden: of encoder and decoder alike; `hidden` is that of the MLPs, `width` where it is None.
        identity: whether the encoder is told which of the agents is which.
        order: "fixed", the environment's, or "random", drawn anew by `follow`.

    >>> import torch
    >>> policy = MATPolicy(discrete=(5,), continuous=0, widths={"deter": 8, "stoch": 6}, agents=3)
    >>> latent = Latent(torch.ones(6, 4, 8), torch.zeros(6, 4, 2, 3))  # two teams, four moments
    >>> action = policy(latent).sample()
    >>> action.shape, policy(latent).log_prob(action).shape
    (torch.Size([6, 4, 5]), torch.Size([6, 4]))
    """

    def __init__(
        self,
        *,
        discrete: tuple[int, ...],
        continuous: int,
        widths: Mapping[str, int],
        agents: int,
        width: int = 64,
        blocks: int = 1,
        heads: int = 1,
        hidden: int | None = None,
        unimix: float = 0.01,
        reads: tuple[str, ...] = ("deter", "stoch"),
        identity: bool = False,
        order: Literal["fixed", "random"] = "fixed",
    ) -> None:
        super().__init__()
        if order not in ("fixed", "random"):
            raise ValueError(f"agents choose in an order that is fixed or random, not {order!r}")
        sizes: dict[str, Any] = {"width": width, "blocks": blocks, "heads": heads, "hidden": hidden}
        self.agents, self.reads = agents, reads
        inputs = sum(widths[name] for name in reads)
        self.encoder = MATEncoder(inputs, agents=agents, identity=identity, **sizes)
        self.decoder = MATDecoder(discrete=discrete, continuous=continuous, unimix=unimix, **sizes)
        self.order = Order(agents) if order == "random" else None

    def forward(self, latent: Latent, mask: Tensor | None = None) -> ActionDistribution:
        return self.from_features(latent.read(*self.reads), mask)

    def from_features(self, features: Tensor, mask: Tensor | None = None) -> ActionDistribution:
        """features (B*N, ..., F), mask (B*N, ..., A) -> a distribution of rows (B*N, ...), see `MATActions`."""
        return self.from_encoded(self.encoded(features), mask)

    def encoded(self, features: Tensor) -> Tensor:
        """What policy and critic share, of rows (B*N, ..., F), as teams: (B, ..., N, D)."""
        found: Tensor = self.encoder(self.teams(features))
        return found

    def from_encoded(self, encoded: Tensor, mask: Tensor | None = None) -> ActionDistribution:
        """The distribution of rows from what `encoded` gave."""
        allowed = None if mask is None else self.teams(mask)
        return Rearranged(in_order(self.decoder, encoded, allowed, self.order), self.teams, joined)

    def parts(self) -> list[tuple[nn.Module, str]]:
        """What is worth compiling; agents that choose one after the other are too small for it."""
        return [(self.encoder, "forward"), (self.decoder, "forward")]

    def teams(self, rows: Tensor) -> Tensor:
        """(B*N, ..., X) -> (B, ..., N, X)."""
        return apart(rows, self.agents)

    def follow(self) -> None:
        """After an update: another order, where it is random. What it draws is from the source in force, which a learner
        names (`wm_core.draws.drawing`) if a run is to be resumed to the bit."""
        if self.order is not None:
            self.order.draw()
