"""observe one step -> latent -> policy -> action: what every agent with a world model shares.

What it does with a batch is its app's; most say it with one verb, `wm_core.joint.joint_update`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from wm_core import draws
from wm_core.contracts import Behaviour, Update
from wm_core.errors import UserError
from wm_core.fast.compiled import Part, of_dynamics, of_head
from wm_core.learner import Learner, trainable
from wm_core.types import Batch, Carry, Steps
from wm_core.world import MASK, WorldModel


class Agent(Learner):
    """A learner that has a world model and a behaviour.

    Subclasses write `learn(replay)` and `update(batch)`, see `Learner`; and, where the world model can learn without the
    behaviour, `update_world(batch)`, `update` of the world model alone.
    """

    alone = False  # the world model learns by itself, and the behaviour stays as it is
    update_world: Callable[..., Update] | None = None  # `update` of the world model alone, on the same batches

    def __init__(self, *, world: WorldModel, behaviour: Behaviour, **parts: Any) -> None:
        """world and behaviour, and what every learner has: optimiser, seed, precision, sources."""
        super().__init__(device=next(world.parameters()).device, **parts)
        self.world, self.behaviour = world, behaviour

    @property
    def stores(self) -> Mapping[str, int]:
        """The dynamics' notes."""
        return self.world.stores

    def rows(self, entries: Mapping[str, Tensor]) -> Steps:
        """Entries of a batch, each (B, T, ...), as the world model takes them: as they are, or where the environments have
        several agents, with these folded into rows (`wm_marl.rows`)."""
        return dict(entries)

    def folded(self, batch: Batch) -> Batch:
        """A batch as the world model takes it: its steps by `rows`. Who stores something of several agents' past folds that
        too."""
        return replace(batch, steps=self.rows(batch.steps))

    def ready(self, batch: Batch) -> Batch:
        """A batch as the world model learns from it: folded, and with whatever else `update` makes of its steps first."""
        return self.folded(batch)

    @property
    def updating(self) -> Callable[..., Update]:
        return (self.update_world if self.alone else None) or self.update

    def learn_alone(self) -> None:
        """From now on the world model learns by itself. Raises UserError where the method has no `update_world`."""
        if self.update_world is None:
            raise UserError(f"{type(self).__name__} learns world model and behaviour in one: leave out --behaviour")
        self.alone = True

    def initial(self, n: int) -> Carry:
        return self.world.dynamics.initial(n)

    @torch.no_grad()
    def choose(
        self, carry: Carry, steps: Steps, mode: bool, temperature: float = 1.0
    ) -> tuple[Carry, Tensor, dict[str, Tensor]]:
        """Tensors alone: `act` on steps (n, 1, ...), in the training mode that is on."""
        with draws.drawing(self.source), self.computing():
            trace = self.world.observe(carry, steps)
            mask = steps[MASK][:, -1] if self.world.masks else None  # the environment's, not the predicted one
            policy = self.world.act(self.behaviour.policy, self.world.latest(trace), mask)
            policy = policy if temperature == 1 else policy.tempered(temperature)
            action = policy.mode() if mode else policy.sample()
        return trace.carry, action, {name: value[:, 0] for name, value in self.world.stored(trace).items()}

    def before_recorded(self, *batches: Batch) -> None:
        """Regularisers look at the first batch where they are due."""
        with self.computing():
            self.world.probe(batches[0].steps, self.clock)

    def networks(self) -> list[Part]:
        """Encoder, decoder, dynamics, heads, policy and critics, each where it is called."""
        world = self.world
        found = [(part, "forward") for part in (world.encoder, world.decoder) if isinstance(part, nn.Module)]
        if isinstance(world.dynamics, nn.Module):
            found += of_dynamics(world.dynamics)
        found += [
            part for head in [*world.heads.values(), *self.behaviour.networks().values()] for part in of_head(head)
        ]
        once = dict.fromkeys(found)  # heads of a team share a trunk
        return [(part, method) for part, method in once if any(True for _ in part.parameters())]

    def parameters_by_module(self) -> dict[str, int]:
        """Trainable parameters of each part, and their total; the slow critic is not trained and not counted."""
        world = self.world
        parts: dict[str, Any] = {"encoder": world.encoder, "dynamics": world.dynamics, "decoder": world.decoder}
        counts = {name: trainable(part) for name, part in (parts | dict(world.heads.items())).items()}
        counts |= {name: n for name, part in self.behaviour.networks().items() if (n := trainable(part))}
        return counts | {"total": sum(counts.values())}
