"""metrics of every update -> one flag on the device -> looked at when the host waits anyway -> the run stops.

Nothing is saved between an update and the look at its flag, so that what is not finite never reaches a checkpoint. The
batches are held until then, so that those that did it can be dumped.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import safetensors.torch
import torch
from torch import Tensor
from wm_core.types import Batch

from wm_run import durable

WATCHED = ("loss/", "opt/")  # prefixes of metrics that must be finite
BATCH = "batch.safetensors"
AHEAD = 2  # updates whose flags may be open at once; each holds its batch


class NotFinite(ArithmeticError):
    """A loss, a gradient or a weight that is not finite: the names with their values, and the batches that did it."""

    def __init__(self, values: Mapping[str, float], batches: Sequence[Batch] = ()) -> None:
        self.values, self.batches = dict(values), tuple(batches)
        sentences = [f"{name} is {value}" for name, value in self.values.items()]
        more = f" and {len(sentences) - 3} more" if len(sentences) > 3 else ""
        super().__init__(f"{', '.join(sentences[:3])}{more}")


class _Open(NamedTuple):
    names: list[str]
    values: Tensor  # (names,), on its way to the host
    there: torch.cuda.Event | None  # when it has arrived; None: it is there
    batches: Sequence[Batch]


class Sentinel:
    """Looks at every update without making the host wait for the device.

    >>> sentinel = Sentinel()
    >>> sentinel.look({"loss/reward": torch.tensor(1.0), "opt/grad_norm": torch.tensor(2.0)}, ())
    >>> sentinel.check()
    >>> sentinel.look({"loss/reward": torch.tensor(float("nan")), "opt/grad_norm": torch.tensor(2.0)}, ())
    >>> sentinel.check()
    Traceback (most recent call last):
    wm_run.alarm.NotFinite: loss/reward is nan
    """

    def __init__(self) -> None:
        self._open: deque[_Open] = deque()

    @torch.no_grad()
    def look(self, metrics: Mapping[str, Tensor], batches: Sequence[Batch]) -> None:
        """One update's metrics, 0-d tensors, and all batches that it was given. Raises NotFinite for an update some way back."""
        names = [name for name in metrics if name.startswith(WATCHED)]
        if not names:
            return
        values = torch.stack([metrics[name].detach().float() for name in names])
        there = None
        if values.is_cuda:
            host = torch.empty(values.shape, pin_memory=True)
            values, there = host.copy_(values, non_blocking=True), torch.cuda.Event()
            there.record()
        self._open.append(_Open(names, values, there, batches))
        while len(self._open) > AHEAD:
            self._close()

    def check(self) -> None:
        """Wait for every flag that is open. Raises NotFinite, for the first update that was."""
        while self._open:
            self._close()

    def _close(self) -> None:
        names, values, there, batches = self._open.popleft()
        if there is not None:
            there.synchronize()
        if not bool(values.isfinite().all()):
            self._open.clear()
            found = zip(names, values.tolist(), strict=True)
            raise NotFinite({name: value for name, value in found if not math.isfinite(value)}, batches)


@torch.no_grad()
def check_weights(weights: Iterable[tuple[str, Tensor]]) -> None:
    """Before a checkpoint: an update may overflow though its loss and gradient were finite. Raises NotFinite."""
    named = [(name, value) for name, value in weights if value.is_floating_point() and value.numel()]
    if not named:
        return
    norms = torch.stack([value.abs().max().float() for _, value in named])
    if not bool(norms.isfinite().all()):
        found = zip(named, norms.tolist(), strict=True)
        raise NotFinite({f"weight {name}": value for (name, _), value in found if not math.isfinite(value)})


def dump(error: NotFinite, folder: Path, about: Mapping[str, object]) -> list[str]:
    """folder/{alarm.json, batch.safetensors}; gives the entries of the batches that were not finite before any update.

    Where an update was given several, their entries begin with their numbers: 0/steps/..., 1/steps/...
    """
    folder.mkdir(parents=True, exist_ok=True)
    several = len(error.batches) > 1
    tensors = {
        f"{i}/{name}" if several else name: value
        for i, batch in enumerate(error.batches)
        for name, value in _flat(batch).items()
    }
    if tensors:
        safetensors.torch.save_file({name: value.contiguous() for name, value in tensors.items()}, folder / BATCH)
        durable.share(folder / BATCH)
    odd = [name for name, value in tensors.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    values = {name: str(value) for name, value in error.values.items()}  # JSON has no nan
    report = {**about, "not_finite": values, "not_finite_in_the_batch": odd}
    (folder / "alarm.json").write_text(json.dumps(report, indent=1) + "\n")
    return odd


def _flat(batch: Batch) -> dict[str, Tensor]:
    """Every tensor of a batch by name: steps/..., past/..., index/..."""
    flat = {f"steps/{name}": value for name, value in batch.steps.items()}
    if batch.past is not None:
        flat |= {f"past/stored/{name}": value for name, value in batch.past.stored.items()}
        flat |= {"past/action": batch.past.action, "past/first": batch.past.first, "past/valid": batch.past.valid}
    return flat | {"index/stream": batch.index.stream, "index/start": batch.index.start}
