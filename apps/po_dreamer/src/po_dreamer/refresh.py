"""past -> the same past with fresh keys."""

from __future__ import annotations

from dataclasses import replace

from wm_core import names
from wm_core.observations import Observations
from wm_core.types import Past
from wm_memory import MemoryEncoder


class Refresh:
    """Fresh keys instead of stored ones: the past's observations encoded anew, without gradient.

    The stored keys were made by older weights. Where these change fast, or frames are cheap, this is the better choice;
    for 800 images a row it costs more than the rest of the update.
    """

    def __init__(self, encoder: MemoryEncoder, seen: Observations, window: int) -> None:
        self.encoder, self.stores = encoder, dict.fromkeys(seen.keys, window)

    def __call__(self, past: Past) -> Past:
        seen = {name: past.stored[name] for name in self.stores}
        key = self.encoder.again(seen | {"first": past.first})
        stored = {name: value for name, value in past.stored.items() if name not in self.stores}
        return replace(past, stored=stored | names.noted({"key": key}))
