"""Agents of a team -> the order in which they choose, and back.

Sizes: N agents.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from wm_core import draws
from wm_core.ranks import ranks


class Order(nn.Module):
    """In which order a team's agents choose: that of the environment, or one that is drawn, the same for all teams.

    What is drawn is a buffer: it is saved, and a recorded graph finds it where it was. Before it is first drawn it is the
    environment's.
    """

    order: Tensor

    def __init__(self, agents: int) -> None:
        super().__init__()
        self.register_buffer("order", torch.arange(agents))

    @torch.no_grad()
    def draw(self) -> None:
        """Another one, the same for all ranks, from the source of `wm_core.draws` in force."""
        noise = draws.uniform(self.order.shape, self.order.device)
        ranks().average([noise])
        self.order.copy_(noise.argsort(stable=True))

    def there(self, tokens: Tensor) -> Tensor:
        """Agents (..., N, X) as they choose."""
        return tokens.index_select(-2, self.order)

    def back(self, tokens: Tensor) -> Tensor:
        """The inverse."""
        return tokens.index_select(-2, self.order.argsort())
