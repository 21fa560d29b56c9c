"""observe one step -> latent -> policy -> action: what every agent shares. What it does with a batch is its app's.

Sizes: n environments, A action.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wm_core import draws
from wm_core.clock import Clock
from wm_core.contracts import Behaviour, Experience, Metrics
from wm_core.fast.capture import Captured, CudaGraphs, Recorder
from wm_core.fast.compiled import Part, compile_parts, of_dynamics, of_head
from wm_core.types import Batch, Carry, Steps, moved
from wm_core.world import WorldModel


class Agent(nn.Module):
    """A world model, a behaviour, an optimiser, one generator and one clock.

    Subclasses write `learn(replay)`: sample, `updated`, annotate; and `update(batch)`, tensors alone: it reads nothing
    on the host, and what it changes is in `changing`, in place. `precision` is "fp32" or "bf16" (autocast; losses
    and distributions stay float32). Acting runs in eval mode, learning in train mode.
    """

    update: Callable[..., Any]  # one gradient step on batches of fixed shapes
    online = True  # each newest row is learned from once, soon after it came, besides the uniform ones

    def __init__(
        self,
        *,
        world: WorldModel,
        behaviour: Behaviour,
        optimiser: Any,
        seed: int = 0,
        precision: str = "fp32",
    ) -> None:
        super().__init__()
        self.world, self.behaviour, self.optimiser = world, behaviour, optimiser
        self.device = next(world.parameters()).device
        self.source = draws.Generator(seed, self.device)
        self.clock = Clock(self.device)
        self.precision = precision
        self._updating: Captured | None = None
        self._choosing: Captured | None = None

    @property
    def stores(self) -> Mapping[str, int]:
        """Which entries of a replay `learn` wants of the past steps of a batch, and of how many: the dynamics' notes."""
        return self.world.stores

    def initial(self, n: int) -> Carry:
        """What the agent knows of the past before the first step of n environments."""
        return self.world.dynamics.initial(n)

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

    @torch.no_grad()
    def choose(
        self, carry: Carry, steps: Steps, mode: bool, temperature: float = 1.0
    ) -> tuple[Carry, Tensor, dict[str, Tensor]]:
        """Tensors alone: `act` on steps (n, 1, ...), in the training mode that is on."""
        with draws.drawing(self.source), self.computing():
            trace = self.world.observe(carry, steps)
            policy = self.behaviour.policy(self.world.latest(trace))
            policy = policy if temperature == 1 else policy.tempered(temperature)
            action = policy.mode() if mode else policy.sample()
        return trace.carry, action, {name: value[:, 0] for name, value in self.world.stored(trace).items()}

    def learn(self, replay: Experience) -> Metrics:
        """One update: sample, `update`, annotate. Metrics are 0-d tensors on the device."""
        raise TypeError(f"{type(self).__name__} does not say how it learns")

    def updated(self, *batches: Batch) -> Any:
        """What `update` gives: called, or replayed where it is recorded."""
        if self._updating is None:
            return self.update(*batches)
        self.eval()  # `update` says itself how it learns
        with self.computing():
            self.world.probe(batches[0].steps, self.clock)
        return self._updating(*batches)

    def capture(self, how: str, say: Callable[[str], None], recorder: Recorder | None = None) -> None:
        """How updates and acts are made from now on, with the same results.

        "graph": recorded while their shapes stay, and replayed, see `wm_core.fast.capture`; where that fails, `say` is told,
        and it goes on as "compile". "compile": all `networks` are compiled at their first call. "eager": plainly. recorder: another than CUDA's.
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
            self.update,
            recorder,
            state=lambda: [*self.changing()],
            name="the update",
            **common,
        )
        self._choosing = Captured(self.choose, recorder, name="acting", **common)

    def networks(self) -> list[Part]:
        """What is worth compiling: encoder, decoder, dynamics, heads, policy and critics, each where it is called."""
        world = self.world
        heads: list[Any] = [*world.heads.values(), *self.behaviour.children()]  # type: ignore[attr-defined]
        found = [(part, "forward") for part in (world.encoder, world.decoder) if isinstance(part, nn.Module)]
        if isinstance(world.dynamics, nn.Module):
            found += of_dynamics(world.dynamics)
        found += map(of_head, heads)
        return [(part, method) for part, method in found if any(True for _ in part.parameters())]

    @property
    def generators(self) -> Sequence[torch.Generator]:
        """All that `update` and `choose` draw from; dropout draws from the device's own."""
        cuda = self.device.type == "cuda"
        common = torch.cuda.default_generators[self.device.index or 0] if cuda else torch.default_generator
        return [common, *([self.source.generator] if isinstance(self.source, draws.Generator) else [])]

    def changing(self) -> Iterator[Tensor]:
        """What `update` changes in place: weights, buffers, the optimiser's state, the number of updates."""
        yield from self.parameters()
        yield from self.buffers()
        yield from self.optimiser.tensors()
        yield self.clock.updates

    def computing(self) -> AbstractContextManager[Any]:
        """The precision in which networks run."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def to_device(self, batch: Batch) -> Batch:
        """The batch on the agent's device; the index stays where replay reads it."""
        if self.device.type == "cpu":
            return batch
        return moved(batch, lambda tensor: tensor.to(self.device, non_blocking=True))

    def state(self) -> dict[str, Any]:
        """All that a resumed run needs besides the weights."""
        return {
            "optimiser": self.optimiser.state_dict(dict(self.named_parameters())),
            "source": self.source.state_dict(),
            "clock": self.clock.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what `state` gave."""
        self.optimiser.load_state_dict(state["optimiser"], dict(self.named_parameters()))
        self.source.load_state_dict(state["source"])
        self.clock.load_state_dict(state["clock"])

    def parameters_by_module(self) -> dict[str, int]:
        """Trainable parameters of each part, and their total; the slow critic is not trained and not counted."""

        def count(module: nn.Module) -> int:
            return sum(p.numel() for p in module.parameters() if p.requires_grad)

        parts = {"encoder": self.world.encoder, "dynamics": self.world.dynamics, "decoder": self.world.decoder}
        parts |= dict(self.world.heads.items())
        parts |= {name: module for name, module in self.behaviour.named_children() if count(module)}  # type: ignore[attr-defined]
        counts = {name: count(module) for name, module in parts.items()}  # type: ignore[arg-type]
        return counts | {"total": sum(counts.values())}
