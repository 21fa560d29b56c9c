"""PO-Dreamer: build and learn. Recall, two posteriors, one KL over both, and DreamerV3's behaviour on their latent.

Sizes: B batch, T time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from wm_core import contracts
from wm_core.actor_critic import ActorCritic
from wm_core.agent import Agent
from wm_core.contracts import Experience, Metrics, Update
from wm_core.encoders import MultiDecoder
from wm_core.heads import reward_and_continue
from wm_core.images import ConvDecoder, StridedDecoder
from wm_core.joint import joint_update, loss_scales
from wm_core.kl import BalancedKL
from wm_core.observations import describe
from wm_core.types import Batch
from wm_core.world import WorldModel
from wm_memory import (
    MemoryDecoder,
    MemoryEncoder,
    SoftmaxMatch,
    Squared,
)

from po_dreamer.config import Config
from po_dreamer.diagnosis import diagnose
from po_dreamer.parts import make_dynamics, make_encoder, make_optimiser, norm_of
from po_dreamer.refresh import Refresh


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
        batch = self.to_device(replay.sample(self.batch, self.length, past=self.past))
        if self.refresh is not None and batch.past is not None:
            batch = replace(batch, past=self.refresh(batch.past))
        looked = diagnose(self, batch) if self.updates % self.diagnose_every == 0 else {}
        metrics, stored = self.updated(batch)
        self.updates += 1
        replay.annotate(batch.index, **stored)
        return metrics | looked

    def update(self, *batches: Batch) -> Update:
        return joint_update(
            self, self.behaviour, *batches, scales=self.scales, horizon=self.horizon, dream_last=self.dream_last
        )

    def state(self) -> dict[str, Any]:
        return super().state() | {"updates": self.updates}

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        self.updates = state["updates"]


def build(config: Config, observation_space: Any, action_spec: Any) -> PODreamer:
    """The agent of a config for one environment's spaces; UserError for a space that the encoder cannot read."""
    torch.manual_seed(config.seed)
    seen, discount = describe(observation_space), 1 - 1 / config.discount_horizon
    with torch.device(config.device):
        encoder = make_encoder(config, seen)
        dynamics = make_dynamics(config, encoder.width, action_spec)
        widths = dynamics.widths
        heads: dict[str, contracts.Head] = {}
        heads |= reward_and_continue(widths, units=config.units, layers=config.head_layers)
        if config.memory_decoder != "none" and config.branches != "co":
            heads["memory"] = MemoryDecoder(
                config.memory_width,
                widths=widths,
                units=config.memory_units,
                distribution={"softmax": SoftmaxMatch, "squared": Squared}[config.memory_decoder],
                norm=norm_of(config),
            )
        world = WorldModel(
            encoder=encoder,
            dynamics=dynamics,
            decoder=MultiDecoder(
                seen,
                widths=widths,
                units=config.units,
                depth=config.depth,
                blocks=config.blocks,
                images={"2023": StridedDecoder, "2025": ConvDecoder}[config.nets],
            ),
            heads=heads,
            kl=BalancedKL(config.free_nats),
            discount=discount,
        )
        behaviour = ActorCritic.of(
            action_spec.discrete,
            action_spec.continuous,
            widths=widths,
            units=config.units,
            layers=config.behaviour_layers,
            unimix=config.actor_unimix,
            outscale=config.actor_outscale,
            lam=config.lam,
            entropy=config.entropy,
            discount=discount,
            slow_rate=config.slow_rate,
        )
        optimiser = make_optimiser(config, world, behaviour)
    more = {"memory": config.memory_scale} if "memory" in heads else {}
    more |= {"replay_value": config.replay_value_scale} if config.replay_value_scale else {}
    scales = loss_scales(
        seen.keys, reconstruction=config.reconstruction_scale, dyn=config.dyn_scale, rep=config.rep_scale, **more
    )
    return PODreamer(
        world=world,
        behaviour=behaviour,
        optimiser=optimiser,
        seed=config.seed,
        precision=config.precision,
        batch=config.batch,
        length=config.length,
        horizon=config.horizon,
        dream_last=config.dream_last,
        scales=scales,
        diagnose_every=config.diagnose_every,
        online=config.online,
        past=max(dynamics.stores.values(), default=0),
        refresh=Refresh(encoder, seen, config.memory_window)
        if config.memory_keys == "fresh" and isinstance(encoder, MemoryEncoder)
        else None,
    )
