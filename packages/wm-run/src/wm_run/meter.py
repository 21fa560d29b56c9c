"""metrics of every update -> one packed vector of sums on the device -> means, fetched once an interval."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from wm_core.health import WEIGHT


class Meter:
    """Means of metrics over an interval: summed where they are born, all in one addition, and fetched once.

    >>> meter = Meter()
    >>> meter.add({"loss": torch.tensor(1.0)})
    >>> meter.add({"loss": torch.tensor(2.0)})
    >>> meter.take()
    {'loss': 1.5}

    A metric whose companion `weight/<name>` is logged beside it is a sum of that weight: its mean is the quotient, nan
    where nothing had a weight.

    >>> meter.add({"error": torch.tensor(0.0), "weight/error": torch.tensor(0.0)})
    >>> meter.add({"error": torch.tensor(6.0), "weight/error": torch.tensor(3.0)})
    >>> meter.take()
    {'error': 2.0}
    """

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()
        self.sums: Tensor | None = None  # (names,) float64, on the metrics' device
        self.counts: dict[str, int] = {}

    @torch.no_grad()
    def add(self, metrics: Mapping[str, Tensor]) -> None:
        """One update's metrics, 0-d tensors. No host read; three calls, where the names are those of the update before."""
        if not metrics:
            return
        values = [
            value.detach() if value.dtype == torch.float32 else value.detach().double() for value in metrics.values()
        ]
        packed, names = torch.stack(values).double(), tuple(metrics)
        for name in names:
            self.counts[name] = self.counts.get(name, 0) + 1
        if self.sums is None:
            self.names, self.sums = names, packed
        elif names == self.names:
            self.sums = self.sums + packed
        else:
            self._merge(names, packed)

    def _merge(self, names: tuple[str, ...], packed: Tensor) -> None:
        """Names that come with some updates only."""
        assert self.sums is not None
        place = {name: i for i, name in enumerate(names)}
        sums = [
            one + packed[place[name]] if name in place else one for name, one in zip(self.names, self.sums, strict=True)
        ]
        known = set(self.names)
        new = [name for name in names if name not in known]
        self.names = (*self.names, *new)
        self.sums = torch.stack([*sums, *(packed[place[name]] for name in new)])

    def take(self) -> dict[str, float]:
        """The means, and an empty meter. One host read."""
        means = self.means()
        self.names, self.sums, self.counts = (), None, {}
        return means

    def means(self) -> dict[str, float]:
        """The means so far. One host read."""
        if self.sums is None:
            return {}
        means = {name: value / self.counts[name] for name, value in zip(self.names, self.sums.tolist(), strict=True)}
        for name in [name for name in means if name.startswith(WEIGHT)]:
            weight = means.pop(name)
            means[name.removeprefix(WEIGHT)] /= weight or math.nan
        return means

    def state(self) -> dict[str, Any]:
        """For a checkpoint: sums by name, 0-d, and counts."""
        sums = () if self.sums is None else self.sums.clone().unbind()
        return {"sums": dict(zip(self.names, sums, strict=True)), "counts": dict(self.counts)}

    def load_state(self, state: Mapping[str, Any], device: torch.device | str) -> None:
        """Take back what `state` gave."""
        sums = state["sums"]
        self.names, self.counts = tuple(sums), dict(state["counts"])
        self.sums = torch.stack([value.to(device) for value in sums.values()]) if sums else None
