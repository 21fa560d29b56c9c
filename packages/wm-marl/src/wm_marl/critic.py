"""Latents of a team -> a transformer of its own -> the value of every agent (DMAWM, eq. 9 and A.3).

Sizes: N agents, M rows of agents.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from wm_core.contracts import ScalarDistribution
from wm_core.precision import wide
from wm_core.twohot import TwoHot

from wm_marl.alone import Alone
from wm_marl.team import TeamHead, Trunk
from wm_marl.transformer import AgentTransformer


class Squared:
    """A `ScalarDistribution` of a number (...) as it is, given as (..., 1), learned by its squared error: eq. 9 to the
    letter, where the paper's A.3 has a two-hot.

    >>> value = Squared(torch.tensor([[2.0]]))
    >>> value.mode().tolist(), value.loss(torch.tensor([5.0])).tolist()
    ([2.0], [9.0])
    """

    def __init__(self, logits: Tensor) -> None:
        self.logits = wide(logits)

    def mode(self) -> Tensor:
        return self.logits[..., 0]

    def loss(self, target: Tensor) -> Tensor:
        return (self.mode() - target.detach()).square()

    def loss_to(self, targets: Tensor, shares: Sequence[float] = (1.0,)) -> Tensor:
        """The sum of the losses to several targets (..., n), each with its share: (...)."""
        errors = (self.logits - targets.detach()).square()
        return torch.stack([share * error for share, error in zip(shares, errors.unbind(-1), strict=True)]).sum(0)


def team_critic(
    mixer: AgentTransformer | Alone,
    *,
    units: int,
    layers: int,
    reads: tuple[str, ...] = ("deter",),
    value: Callable[[Tensor], ScalarDistribution] = TwoHot,
) -> TeamHead[Any]:
    """The critic of a team: 255 bins for each agent that predict zero at first.

    Args:
        mixer: an `AgentTransformer` on what is read is the paper's; `alone_like` it, the ablation TC.
        units, layers: of each agent's MLP.
        reads: ("deter",) is eq. 9, whose value ignores stoch.
        value: what a value is: `TwoHot`, or `Squared`.
    """
    outputs = 1 if value is Squared else 255
    return TeamHead(Trunk(mixer, reads), value, outputs, units=units, layers=layers, outscale=0.0)
