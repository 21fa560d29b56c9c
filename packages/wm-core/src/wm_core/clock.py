"""How far a run is, on the device: what a warm-up reads inside an update, captured as a graph or not."""

from __future__ import annotations

import torch
from torch import Tensor


class Clock:
    """Agent steps taken (all environments together) and updates made, both 0-d int64 tensors on `device`.

    The tensors are changed in place and never replaced, so that a captured graph goes on reading them.

    >>> clock = Clock()
    >>> clock.count_steps(8)
    >>> clock.count_update()
    >>> clock.steps.item(), clock.updates.item()
    (8, 1)
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.steps = torch.zeros((), dtype=torch.int64, device=device)
        self.updates = torch.zeros((), dtype=torch.int64, device=device)

    def count_steps(self, n: int) -> None:
        """n more actions were taken. The training loop calls this; evaluation does not."""
        self.steps += n

    def count_update(self) -> None:
        """One more update was made. `update` calls this."""
        self.updates += 1

    def state_dict(self) -> dict[str, Tensor]:
        """For a checkpoint."""
        return {"steps": self.steps.clone(), "updates": self.updates.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take back what `state_dict` gave."""
        self.steps.copy_(state["steps"])
        self.updates.copy_(state["updates"])
