"""Latents of a team -> one transformer -> reward, continuation and action mask of every agent (DMAWM, eq. 2 and A.3).

Rows are agents with those of one team and moment side by side on axis 0, whatever follows: (B*N, T, ...) in training, (M, ...)
at a step of a dream, (M, H+1, ...) of a whole one, M rows being in the order of `wm_marl.interleaved`.
Sizes: N agents, F features read, D width, A actions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic

import torch
from torch import Tensor, nn
from wm_core import Latent
from wm_core.blocks import MLP, linear
from wm_core.distributions import Bernoulli, Bernoullis
from wm_core.heads import Predicted
from wm_core.twohot import TwoHot

from wm_marl.across import AcrossAgents
from wm_marl.alone import Alone
from wm_marl.transformer import AgentTransformer


class Trunk(nn.Module):
    """What several heads share: a mixer over the agents' features, run once for all heads that read one latent."""

    def __init__(self, mixer: AgentTransformer | Alone, reads: tuple[str, ...] = ("deter",)) -> None:
        super().__init__()
        self.mix, self.reads, self.width = AcrossAgents(mixer, mixer.agents, rows=0), reads, mixer.width

    def forward(self, features: Tensor) -> Tensor:
        """features (B*N, ..., F) -> (B*N, ..., D)."""
        mixed: Tensor = self.mix(features)
        return mixed

    def of(self, latent: Latent) -> Tensor:
        """The same of a latent; it is kept beside it, as `Latent.read` keeps what it joined, until a weight has changed."""
        state = (torch.is_grad_enabled(), *(weight._version for weight in self.parameters()))  # noqa: SLF001
        kept: dict[Trunk, tuple[Any, Tensor]] = latent.__dict__.setdefault("_mixed", {})
        if self not in kept or kept[self][0] != state:
            kept[self] = state, self(latent.read(*self.reads))
        return kept[self][1]


class TeamHead(nn.Module, Generic[Predicted]):
    """A trunk, an MLP for each agent, and a distribution on top; a `wm_core.contracts.Head`. outscale 0 makes it predict
    zero at first.

    Of heads that share a trunk one `owns` it: there its weights are counted, saved and moved.

    >>> mixer = AgentTransformer(8, agents=3, width=16, layers=1, heads=2, hidden=32)
    >>> head = TeamHead(Trunk(mixer), TwoHot, 255, units=16, layers=1, outscale=0.0)
    >>> head(Latent(torch.ones(6, 5, 8), torch.zeros(6, 5, 2, 3))).mode().shape
    torch.Size([6, 5])
    """

    trunk: Trunk

    def __init__(
        self,
        trunk: Trunk,
        distribution: Callable[[Tensor], Predicted],
        outputs: int,
        *,
        units: int,
        layers: int,
        outscale: float = 1.0,
        owns: bool = True,
    ) -> None:
        super().__init__()
        if owns:
            self.trunk = trunk
        else:
            object.__setattr__(self, "trunk", trunk)  # no submodule of this one
        self.distribution, self.reads = distribution, trunk.reads
        self.mlp = MLP(trunk.width, units, layers)
        self.out = linear(self.mlp.width, outputs, outscale)

    def forward(self, latent: Latent) -> Predicted:
        return self.distribution(self.out(self.mlp(self.trunk.of(latent))))

    def parts(self) -> list[tuple[nn.Module, str]]:
        """What is worth compiling: heads that share a trunk meet in it, not here."""
        return [(self.trunk, "forward"), (self.mlp, "forward")]

    def from_features(self, features: Tensor) -> Predicted:
        """The same from features (B*N, ..., F) read beforehand."""
        return self.distribution(self.out(self.mlp(self.trunk(features))))


def team_heads(
    mixer: AgentTransformer | Alone,
    actions: int,
    *,
    units: int,
    layers: int,
    reads: tuple[str, ...] = ("deter",),
    mask: Callable[[Tensor], Any] = Bernoullis,
) -> dict[str, TeamHead[Any]]:
    """{"reward", "cont", "action_mask"} of every agent, on one trunk: the heads of a `WorldModel` of a team.

    Args:
        mixer: an `AgentTransformer` on what is read is the paper's; `alone_like` it, part of the ablation IP.
        actions: A.
        units, layers: of each head's MLP.
        reads: ("deter",) is eq. 2; the paper's A.3 says ("deter", "stoch"), for which the mixer must be as much wider.
        mask: of logits (..., A) -> a `MaskDistribution`.
    """
    trunk = Trunk(mixer, reads)
    sizes: dict[str, Any] = {"units": units, "layers": layers}
    return {
        "reward": TeamHead(trunk, TwoHot, 255, outscale=0.0, **sizes),
        "cont": TeamHead(trunk, Bernoulli, 1, owns=False, **sizes),
        "action_mask": TeamHead(trunk, mask, actions, owns=False, **sizes),
    }
