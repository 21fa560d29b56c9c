"""What a run can still get of a card's memory. The one place that asks a card for it, so that a test can answer instead."""

from __future__ import annotations

import torch

from wm_run.memory import Free


def free_on(device: str) -> Free | None:
    """What is free on the card, with what torch keeps there for later; None where `device` is no card.

    >>> free_on("cpu")
    """
    if device != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info()
    return Free(free + torch.cuda.memory_reserved() - torch.cuda.memory_allocated(), of="the GPU's memory")
