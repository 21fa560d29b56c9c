"""DMAWM: build, learn (LAMDA-RL 2026). The world model learns from rows of agents, then PPO in its dreams."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from wm_core import draws, health
from wm_core.agent import Agent
from wm_core.contracts import Experience, Metrics, Update
from wm_core.joint import model_scales, model_update
from wm_core.observations import describe
from wm_core.optim import Adam, NormClip, Together
from wm_core.types import Batch, Carry, Steps, Trace
from wm_marl import PPO, absent, by_rows, fold_steps, mask_metrics, muted
from wm_run.teams import Team

from dmawm.config import Config
from dmawm.parts import make_behaviour, make_world


class Dmawm(Agent):
    """Disentangled world model of a team: agents are rows, coupled by prior, heads and critic alone.

    relabel: folded steps -> steps with the absent in the absorbing state. model_first: updates in which the world model
    alone learns. model_updates: its steps in each update.
    """

    behaviour: PPO
    optimiser: Together
    online = False  # its replay is uniform

    def __init__(
        self,
        *,
        team: Team,
        relabel: Any,
        batch: int,
        length: int,
        horizon: int,
        dream_last: int,
        model_first: int,
        model_updates: int,
        scales: dict[str, float],
        **parts: Any,
    ) -> None:
        super().__init__(**parts)
        self.team, self.relabel, self.scales = team, relabel, scales
        self.batch, self.length = batch, length
        self.horizon, self.dream_last = horizon, dream_last or length
        self.model_first, self.model_updates = model_first, model_updates

    @property
    def stores(self) -> Mapping[str, int]:
        return {}  # rows begin with the zero state: a batch with absorbing records says nothing of what follows them

    def rows(self, entries: Mapping[str, Tensor]) -> Steps:
        return fold_steps(dict(entries), self.team.agents)

    def initial(self, n: int) -> Carry:
        return super().initial(n * self.team.agents)

    def choose(
        self, carry: Carry, steps: Steps, mode: bool, temperature: float = 1.0
    ) -> tuple[Carry, Tensor, dict[str, Tensor]]:
        """Each agent of n teams by its own state: actions (n, N, A)."""
        carry, action, _ = super().choose(carry, self.rows(steps), mode, temperature)
        return carry, action.unflatten(0, (-1, self.team.agents)), {}

    def learn(self, replay: Experience) -> Metrics:
        rows = [self.to_device(replay.sample(self.batch, self.length)) for _ in range(self.model_updates)]
        young = self.model_first and int(self.clock.updates) < self.model_first  # asked of the device while it may be
        if young:
            return self.update_world(*rows)[0]
        self.model_first = 0
        return self.updated(*rows)[0]

    def update(self, *batches: Batch) -> Update:
        """A step of the world model on rows (B*N, T) for each batch, then PPO's epochs on one dream from the last steps of
        the last rows. Metrics are those of the last."""
        metrics, trace, steps = self.update_models(*batches)
        with draws.drawing(self.source), self.computing():
            dream = self.world.dream(self.world.starts(trace, self.dream_last), self.behaviour.policy, self.horizon)
            metrics |= self.behaviour.optimise(dream)
        self.behaviour.follow()
        seen = by_rows(dream, self.team.agents, min(self.dream_last, steps["first"].shape[1]))
        metrics |= health.dreamed(seen, steps, self.world.discount)
        return metrics | mask_metrics(seen.mask, steps["action_mask"]), {}

    def update_world(self, *batches: Batch) -> Update:
        """The steps of the world model alone."""
        return self.update_models(*batches)[0], {}

    def ready(self, batch: Batch) -> Batch:
        """A batch of teams as rows of agents, with the absent in the absorbing state."""
        return replace(batch, steps=self.relabel(self.rows(batch.steps)))

    def update_models(self, *batches: Batch) -> tuple[Metrics, Trace, Steps]:
        """A step for each batch, counted as one update: what the last gives."""
        *earlier, last = batches
        for batch in earlier:
            self.update_model(batch, counted=False)
        return self.update_model(last)

    def update_model(self, batch: Batch, counted: bool = True) -> tuple[Metrics, Trace, Steps]:
        """Equation 3: metrics, the trace, and the steps it was learned from."""
        self.train()
        steps = self.ready(batch).steps
        model = self.optimiser.rules["model"]
        metrics, trace = model_update(self, steps, rule=model, scales=self.scales, counted=counted)
        return metrics, trace, steps


def build(config: Config, observation_space: Any, action_spec: Any, team: Team) -> Dmawm:
    """The agent of a config for the spaces of one agent of a team; UserError for a space that the encoder cannot read."""
    torch.manual_seed(config.seed)
    seen = describe(
        observation_space,
        multiple=config.sides,
        way_out="choose a --patch that divides both, or --convolutions strided",
    )
    with torch.device(config.device):
        world = make_world(config, seen, action_spec.size, team.agents)
        behaviour = make_behaviour(config, dict(world.dynamics.widths), action_spec, team.agents)
        optimiser = Together(
            model=Adam(world.parameters(), lr=config.lr, clip=NormClip(config.grad_clip)), **behaviour.rules
        )
    relabel = partial(
        absent, observations=seen.keys, noop=team.noop, records=config.absorbing, own_end=config.absent != "team"
    )
    scales = model_scales(
        seen.keys,
        reconstruction=config.reconstruction_scale,
        dyn=config.dyn_scale,
        rep=config.rep_scale,
        action_mask=1.0,
    )
    return Dmawm(
        world=world,
        behaviour=behaviour,
        optimiser=optimiser,
        seed=config.seed,
        precision=config.precision,
        team=team,
        relabel=relabel if config.absent != "muted" else lambda steps: relabel(muted(steps)),
        batch=config.batch,
        length=config.length,
        horizon=config.horizon,
        dream_last=config.dream_last,
        model_first=config.model_first,
        model_updates=config.model_updates,
        scales=scales,
    )
