"""What the training loop asks of anybody: act, learn, say all its state, and be recorded. What is learned is a subclass's.

`Agent` is a learner with a world model; a model-free one derives from `Learner` itself. Sizes: n environments, A action.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wm_core import draws
from wm_core.clock import Clock
from wm_core.contracts import Experience, Metrics, Update
from wm_core.fast.capture import Captured, CudaGraphs, Recorder
from wm_core.fast.compiled import Part, compile_parts
from wm_core.precision import casts_keep_gradients
from wm_core.types import Batch, Carry, Steps, moved


class Learner(nn.Module, abc.ABC):
    """An optimiser, a generator, a clock, and how updates and acts are made.

    Subclasses write `learn(replay)`: sample, `updated`, annotate; `update(*batches)`, tensors alone: it reads nothing on
    the host, and what it changes is in `changing`, in place; `initial` and `choose`, which acting is made of; `networks`
    and `parameters_by_module`. Acting runs in eval mode, learning in train mode.

    Args:
        device: where the networks are.
        optimiser: of `wm_core.optim`.
        seed: of the generator that acting and learning draw from.
        precision: "fp32" or "bf16" (autocast; losses and distributions stay float32).
        sources: further generators by name, saved with the state and registered where updates are recorded.
    """

    online = True  # each newest row is learned from once, soon after it came, besides the uniform ones
    aligned = False  # those rows begin at a stream's first step, for a learner that lives on them alone

    def __init__(
        self,
        *,
        device: torch.device,
        optimiser: Any,
        seed: int = 0,
        precision: str = "fp32",
        sources: Mapping[str, draws.Generator] | None = None,
    ) -> None:
        super().__init__()
        self.device, self.optimiser, self.precision = device, optimiser, precision
        self.source = draws.Generator(seed, device)
        self.sources = dict(sources or {})
        self.clock = Clock(device)
        self._updating: Captured | None = None
        self._choosing: Captured | None = None

    # ---- what a subclass says

    @property
    def stores(self) -> Mapping[str, int]:
        """Which entries of a replay `learn` wants of the past steps of a batch, and of how many."""
        return {}

    @abc.abstractmethod
    def initial(self, n: int) -> Carry:
        """What is known of the past before the first step of n environments."""

    @abc.abstractmethod
    def choose(
        self, carry: Carry, steps: Steps, mode: bool, temperature: float = 1.0
    ) -> tuple[Carry, Tensor, dict[str, Tensor]]:
        """`act` on steps (n, 1, ...), tensors alone: carry, actions (n, A), notes (n, ...)."""

    @abc.abstractmethod
    def learn(self, replay: Experience) -> Metrics:
        """One update: sample, `update`, annotate. Metrics are 0-d tensors on the device."""

    @abc.abstractmethod
    def update(self, *batches: Batch) -> Update:
        """One gradient step on batches of fixed shapes: metrics (0-d), and notes for replay (B, T, ...)."""

    @abc.abstractmethod
    def networks(self) -> list[Part]:
        """What is worth compiling, each module with the method by which it is called."""

    @abc.abstractmethod
    def parameters_by_module(self) -> dict[str, int]:
        """Trainable parameters of each part, and their total."""

    # ---- acting and learning

    def act(
        self, carry: Carry, step: Mapping[str, np.ndarray], mode: bool = False, temperature: float = 1.0
    ) -> tuple[Carry, np.ndarray, dict[str, Tensor]]:
        """Observe one step of n environments and choose: carry, actions float32 (n, A), notes for replay (n, ...),
        by names that no observation has (`names.noted`).

        `mode` takes the policy's mode instead of a sample; `temperature` is that of the sample.
        """
        self.eval()
        steps = {key: torch.as_tensor(value)[:, None].to(self.device) for key, value in step.items()}
        carry, action, notes = (self._choosing or self.choose)(carry, steps, mode, temperature)
        return carry, action.float().cpu().numpy(), notes

    @property
    def updating(self) -> Callable[..., Update]:
        """How an update is made: `update`, or what of it this learner is to learn by."""
        return self.update

    def updated(self, *batches: Batch) -> Update:
        """What `updating` gives: called, or replayed where it is recorded."""
        if self._updating is None:
            return self.updating(*batches)
        self.eval()  # `update` says itself how it learns
        self.before_recorded(*batches)
        metrics, notes = self._updating(*batches)
        return metrics, notes

    def before_recorded(self, *batches: Batch) -> None:
        """What has to be done on the host, before an update that runs no Python."""

    def capture(self, how: str, say: Callable[[str], None], recorder: Recorder | None = None) -> None:
        """How updates and acts are made from now on, with the same results.

        "graph": recorded while their shapes stay, and replayed, see `wm_core.fast.capture`; where that fails, `say` is
        told, and it goes on as "compile". "compile": all `networks` are compiled at their first call. "eager": plainly.
        recorder: another than CUDA's.
        """
        self._updating = self._choosing = None
        if how == "compile":
            compile_parts(self.networks())
        if how != "graph":
            return
        recorder = recorder or CudaGraphs(self.device)
        common: dict[str, Any] = {
            "generators": lambda: self.generators,
            "say": say,
            "otherwise": lambda: compile_parts(self.networks()),
        }
        self._updating = Captured(
            self.updating,
            recorder,
            state=lambda: [*self.changing()],
            name="the update",
            **common,
        )
        self._choosing = Captured(self.choose, recorder, name="acting", **common)

    # ---- what it consists of

    @property
    def generators(self) -> Sequence[torch.Generator]:
        """All that `update` and `choose` draw from; dropout draws from the device's own."""
        cuda = self.device.type == "cuda"
        common = torch.cuda.default_generators[self.device.index or 0] if cuda else torch.default_generator
        owned = [self.source, *self.sources.values()]
        return [common, *(one.generator for one in owned if isinstance(one, draws.Generator))]

    def changing(self) -> Iterator[Tensor]:
        """What `update` changes in place, of any shape (...): weights, buffers, the optimiser's state, the number of
        updates."""
        yield from self.parameters()
        yield from self.buffers()
        yield from self.optimiser.tensors()
        yield self.clock.updates

    def computing(self) -> AbstractContextManager[Any]:
        """The precision in which networks run."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16, cache_enabled=casts_keep_gradients())

    def to_device(self, batch: Batch) -> Batch:
        """The batch on the learner's device; the index stays where replay reads it."""
        if self.device.type == "cpu":
            return batch
        return moved(batch, lambda tensor: tensor.to(self.device, non_blocking=True))

    def state(self) -> dict[str, Any]:
        """All that a resumed run needs besides the weights."""
        return {
            "optimiser": self.optimiser.state_dict(dict(self.named_parameters())),
            "source": self.source.state_dict(),
            "clock": self.clock.state_dict(),
        } | {name: source.state_dict() for name, source in self.sources.items()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what `state` gave."""
        self.optimiser.load_state_dict(state["optimiser"], dict(self.named_parameters()))
        self.source.load_state_dict(state["source"])
        self.clock.load_state_dict(state["clock"])
        for name, source in self.sources.items():
            source.load_state_dict(state[name])


def trainable(module: nn.Module) -> int:
    """How many numbers of a module are learned.

    >>> trainable(nn.Linear(3, 2))
    8
    """
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
