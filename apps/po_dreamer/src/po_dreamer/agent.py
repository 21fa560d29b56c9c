"""PO-Dreamer: build and learn. Recall, two posteriors, one KL over both, and DreamerV3's behaviour on their latent.

Sizes: B batch, T time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from wm_core.actor_critic import ActorCritic
from wm_core.agent import Agent
from wm_core.contracts import Experience, Metrics, Update
from wm_core.joint import joint_update, world_update
from wm_core.observations import describe
from wm_core.types import Batch
from wm_run.teams import Team

from po_dreamer.behaviour import make_actor_critic, make_credited, make_relabel, make_team_behaviour
from po_dreamer.config import Config
from po_dreamer.diagnosis import diagnose, due
from po_dreamer.parts import make_optimiser, make_refresh, make_scales, make_team_optimiser, make_world
from po_dreamer.refresh import Refresh
from po_dreamer.team import PODreamerTeam


class PODreamer(Agent):
    """DreamerV3's `learn` over a dynamics whose past is the memory window."""

    behaviour: ActorCritic

    def __init__(
        self,
        *,
        batch: int,
        length: int,
        horizon: int,
        dream_last: int,
        scales: dict[str, float],
        diagnose_every: int,
        online: bool,
        past: int,
        refresh: Refresh | None = None,
        **parts: Any,
    ) -> None:
        super().__init__(**parts)
        self.refresh, self.online, self.past = refresh, online, past
        self.batch, self.length, self.scales = batch, length, scales
        self.horizon, self.dream_last = horizon, dream_last
        self.diagnose_every, self.updates = diagnose_every, 0

    @property
    def stores(self) -> Mapping[str, int]:
        return super().stores if self.refresh is None else {**super().stores, **self.refresh.stores}

    def learn(self, replay: Experience) -> Metrics:
        batch = self.ready(self.to_device(replay.sample(self.batch, self.length, past=self.past)))
        looked = diagnose(self, batch) if due(self.updates, self.diagnose_every) else {}
        metrics, stored = self.updated(batch)
        self.updates += 1
        replay.annotate(batch.index, **stored)
        return metrics | looked

    def ready(self, batch: Batch) -> Batch:
        """A batch with keys of its past anew, where none are kept."""
        if self.refresh is None or batch.past is None:
            return batch
        return replace(batch, past=self.refresh(batch.past))

    def update(self, *batches: Batch) -> Update:
        return joint_update(
            self, self.behaviour, *batches, scales=self.scales, horizon=self.horizon, dream_last=self.dream_last
        )

    def update_world(self, *batches: Batch) -> Update:
        return world_update(self, *batches, scales=self.scales)

    def state(self) -> dict[str, Any]:
        return super().state() | {"updates": self.updates}

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        self.updates = state["updates"]


def build(
    config: Config, observation_space: Any, action_spec: Any, team: Team | None = None
) -> PODreamer | PODreamerTeam:
    """The agent of a config for one environment's spaces, or for those of one agent of a team; UserError for a space that
    the encoder cannot read."""
    torch.manual_seed(config.seed)
    resize = "resize it, for example to 64x64, in an environment of your own (--task module:factory)"
    seen = describe(observation_space, way_out=resize + (", or take dmawm, which reads any size" if team else ""))
    with torch.device(config.device):
        world = make_world(config, seen, action_spec, None if team is None else team.agents)
        widths = world.dynamics.widths
        parts: dict[str, Any] = {"world": world, "seed": config.seed, "precision": config.precision}
        if team is None:
            behaviour = make_actor_critic(config, widths, action_spec)
            parts |= {"behaviour": behaviour, "optimiser": make_optimiser(config, world, behaviour)}
        else:
            ppo = make_team_behaviour(config, widths, action_spec, team.agents)
            parts |= {"behaviour": ppo, "optimiser": make_team_optimiser(config, world, ppo)}
    parts |= {
        "batch": config.batch,
        "length": config.length,
        "horizon": config.horizon,
        "dream_last": config.dream_last,
        "diagnose_every": config.diagnose_every,
        "online": config.online,
        "past": max(world.dynamics.stores.values(), default=0),
        "refresh": make_refresh(config, seen, world.encoder),
        "scales": make_scales(config, seen, world),
    }
    if team is None:
        return PODreamer(**parts)
    return PODreamerTeam(
        agents=team.agents,
        relabel=make_relabel(config, seen.keys, team),
        credited=make_credited(config, team),
        model_first=config.model_first,
        **parts,
    )
