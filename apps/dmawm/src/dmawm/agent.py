"""DMAWM: build, learn (LAMDA-RL 2026). The world model learns from rows of agents, then PPO in its dreams."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from wm_core import draws, health, names
from wm_core.agent import Agent
from wm_core.contracts import Experience, Metrics, Update
from wm_core.images import StridedEncoder
from wm_core.joint import loss_scales
from wm_core.observations import describe
from wm_core.optim import Adam, NormClip, Together, averages, total
from wm_core.types import Batch, Carry, Steps, Trace
from wm_marl import PPO, absent, by_rows, fold_steps, muted
from wm_run.teams import Team

from dmawm.config import Config
from dmawm.parts import make_behaviour, make_world


class Dmawm(Agent):
    """Disentangled world model of a team: agents are rows, coupled by prior, heads and critic alone.

    relabel: folded steps -> steps with the absent in the absorbing state. model_first: updates in which the world model
    alone learns.
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
        scales: dict[str, float],
        **parts: Any,
    ) -> None:
        super().__init__(**parts)
        self.team, self.relabel, self.scales = team, relabel, scales
        self.batch, self.length = batch, length
        self.horizon, self.dream_last, self.model_first = horizon, dream_last or length, model_first

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
        batch = self.to_device(replay.sample(self.batch, self.length))
        young = self.model_first and int(self.clock.updates) < self.model_first  # asked of the device while it may be
        if young:
            return self.update_model(batch)[0]
        self.model_first = 0
        return self.updated(batch)[0]

    def update(self, *batches: Batch) -> Update:
        """One step of the world model on rows (B*N, T), then PPO's epochs on one dream from their last steps."""
        (batch,) = batches
        metrics, trace, steps = self.update_model(batch)
        with draws.drawing(self.source), self.computing():
            dream = self.world.dream(self.world.starts(trace, self.dream_last), self.behaviour.policy, self.horizon)
            metrics |= self.behaviour.optimise(dream)
        self.behaviour.follow()
        seen = by_rows(dream, self.team.agents, min(self.dream_last, steps["first"].shape[1]))
        metrics |= health.dreamed(seen, steps, self.world.discount)
        return metrics | masks_told(seen.mask, steps["action_mask"]), {}

    def update_model(self, batch: Batch) -> tuple[Metrics, Trace, Steps]:
        """Equation 3: metrics, the trace, and the steps it was learned from."""
        self.train()
        world, steps = self.world, self.relabel(self.rows(batch.steps))
        with draws.drawing(self.source), self.computing():
            losses, trace = world.losses(world.prefill(None, len(steps["first"])), steps, self.clock)
        means = averages(losses)
        optimised = self.optimiser.rules["model"].step(total(means, self.scales))
        torch.clear_autocast_cache()  # which holds the weights as they were before the step
        self.clock.count_update()
        shown = names.logged(means)
        metrics = {f"loss/{shown[name]}": mean.detach() for name, mean in means.items()}
        metrics |= {f"opt/{name}/model": value for name, value in optimised.items()}
        return metrics | health.latents(trace.post, trace.prior), trace, steps


@torch.no_grad()
def masks_told(told: Tensor | None, true: Tensor) -> Metrics:
    """Of dreams' first masks (M, H+1, A), rows in the batch's order, against the records' (R, T, A): health/mask_recall, the
    share of what was available that was said to be, and mask_precision.

    >>> true = torch.tensor([[[True, True, False]]])
    >>> {name: value.item() for name, value in masks_told(torch.tensor([[[True, False, False]]]), true).items()}
    {'health/mask_recall': 0.5, 'health/mask_precision': 1.0}
    """
    assert told is not None
    first = told[:, 0].unflatten(0, (len(true), -1))
    true = true[:, -first.shape[1] :]
    both = (first & true).sum()
    return {
        "health/mask_recall": both / true.sum().clamp(min=1),
        "health/mask_precision": both / first.sum().clamp(min=1),
    }


def build(config: Config, observation_space: Any, action_spec: Any, team: Team) -> Dmawm:
    """The agent of a config for the spaces of one agent of a team; UserError for a space that the encoder cannot read."""
    torch.manual_seed(config.seed)
    seen = describe(observation_space, multiple=StridedEncoder.multiple)
    with torch.device(config.device):
        world = make_world(config, seen, action_spec.size, team.agents)
        behaviour = make_behaviour(config, dict(world.dynamics.widths), action_spec, team.agents)
        optimiser = Together(
            model=Adam(world.parameters(), lr=config.lr, clip=NormClip(config.grad_clip)), **behaviour.rules
        )
    relabel = partial(
        absent, observations=seen.keys, noop=team.noop, records=config.absorbing, own_end=config.absent != "team"
    )
    scales = loss_scales(
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
        scales={name: scale for name, scale in scales.items() if name not in ("policy", "value")},
    )
