"""The opposite of what DMAWM claims: agents that tell each other everything before every step, as MAMBA's do.

Sizes: N rows of agents, A action, D deter.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from wm_marl import AcrossAgents, AgentTransformer
from wm_memory.norm_gru import NormGRU


class CommunicatingCell(nn.Module):
    """h' = GRU(h, x) with x the agent's token of a transformer over the [z, a] of its whole team; a recurrent cell of an
    RSSM. A policy on such a state acts on what others saw and did: it is not decentralised.

    mixer: a transformer over tokens of the width of z and a together.

    >>> mixer = AgentTransformer(6 + 2, agents=3, width=16, layers=1, heads=2, hidden=16)
    >>> cell = CommunicatingCell(mixer, deter=8, action=2, hidden=8)
    >>> deter, stoch, action = torch.zeros(3, 8), torch.zeros(3, 6), torch.zeros(3, 2)
    >>> cell.advance(deter, (deter, stoch), action).shape
    torch.Size([3, 8])
    """

    def __init__(self, mixer: AgentTransformer, *, deter: int, action: int, hidden: int) -> None:
        super().__init__()
        self.tell = AcrossAgents(mixer, mixer.agents)
        self.gru = NormGRU(deter=deter, state=(mixer.width,), action=action, hidden=hidden)

    def drive(self, action: Tensor) -> Tensor:
        """The action (..., A) itself: what is said depends on the state too."""
        return action

    def forward(self, deter: Tensor, state: Sequence[Tensor], driven: Tensor) -> Tensor:
        """deter (N, D), state's parts, the last of them z (N, S*K), and the action (N, A) -> the next deter (N, D)."""
        heard: Tensor = self.tell(torch.cat([state[-1], driven], -1))
        after: Tensor = self.gru(deter, (heard,), self.gru.drive(driven))
        return after

    def advance(self, deter: Tensor, state: Sequence[Tensor], action: Tensor) -> Tensor:
        """A single step: the next deter (N, D)."""
        return self(deter, state, action)
