"""What an actor knows of the past: nothing, or the state of a GRU that acting notes, so that rows begin as acting stood.

Sizes: R rows, T time, N agents, U units.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from wm_core.parallel import GRUBackbone
from wm_core.precision import wide
from wm_core.types import Carry
from wm_marl.rows import agents_of, repeated, rows_of


class NoMemory(nn.Module):
    """Each step by itself."""

    stores: Mapping[str, int] = {}

    def initial(self, *lead: int) -> Carry:
        """Before the first step of leading sizes such as (n, N)."""
        return {}

    def forward(self, carry: Carry, x: Tensor, first: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """What was known, x (R, T, N, U) and first (R, T) -> outputs (R, T, N, U), and what is known after each step."""
        return x, {}


class GRUMemory(nn.Module):
    """A GRU for each agent, with the same weights; its state is zero where an episode begins. Its output is normed."""

    stores: Mapping[str, int] = {"hidden": 1}

    def __init__(self, units: int) -> None:
        super().__init__()
        self.gru, self.norm = GRUBackbone(units), nn.LayerNorm(units)
        for name, weight in self.gru.named_parameters():
            nn.init.zeros_(weight) if "bias" in name else nn.init.orthogonal_(weight)

    def initial(self, *lead: int) -> Carry:
        return {"hidden": self.gru.initial(*lead)}

    def forward(self, carry: Carry, x: Tensor, first: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        agents = x.shape[2]
        out = self.gru(carry["hidden"].flatten(0, 1), rows_of(x), repeated(first, agents))[0]
        hidden = agents_of(out, agents)
        return self.norm(hidden), {"hidden": wide(hidden)}
