"""DreamerV3: build, learn (Nature 2025). One joint loss, one optimiser; separation is by stop-gradients alone."""

from __future__ import annotations

from typing import Any

import torch
from wm_core import draws
from wm_core.actor_critic import ActorCritic
from wm_core.agent import Agent
from wm_core.contracts import Experience, Metrics, Update
from wm_core.encoders import MultiDecoder, MultiEncoder
from wm_core.heads import reward_and_continue
from wm_core.joint import joint_update, loss_scales, world_update
from wm_core.kl import BalancedKL
from wm_core.observations import describe
from wm_core.rssm import RSSM
from wm_core.types import Batch
from wm_core.world import WorldModel

from dreamer.config import Config
from dreamer.parts import make_optimiser, value_alignment


class Dreamer(Agent):
    """DreamerV3 on any dynamics that stores its latent."""

    behaviour: ActorCritic

    def __init__(
        self, *, batch: int, length: int, horizon: int, dream_last: int, scales: dict[str, float], **parts: Any
    ) -> None:
        super().__init__(**parts)
        self.batch, self.length, self.scales = batch, length, scales
        self.horizon, self.dream_last = horizon, dream_last

    def learn(self, replay: Experience) -> Metrics:
        batch = self.to_device(replay.sample(self.batch, self.length, past=1))
        metrics, stored = self.updated(batch)
        replay.annotate(batch.index, **stored)
        return metrics

    def update(self, *batches: Batch) -> Update:
        return joint_update(
            self, self.behaviour, *batches, scales=self.scales, horizon=self.horizon, dream_last=self.dream_last
        )

    def update_world(self, *batches: Batch) -> Update:
        return world_update(self, *batches, scales=self.scales)


def build(config: Config, observation_space: Any, action_spec: Any) -> Dreamer:
    """The agent of a config for one environment's spaces; UserError for a space that the encoder cannot read."""
    torch.manual_seed(config.seed)
    seen, discount = describe(observation_space), 1 - 1 / config.discount_horizon
    with torch.device(config.device):
        encoder = MultiEncoder(seen, units=config.units, depth=config.depth)
        dynamics = RSSM(
            deter=config.deter,
            stoch=(config.stoch, config.classes),
            embed=encoder.width,
            action=action_spec.size,
            hidden=config.hidden,
            blocks=config.blocks,
            unimix=config.unimix,
        )
        widths = dynamics.widths
        decoder = MultiDecoder(seen, widths=widths, units=config.units, depth=config.depth, blocks=config.blocks)
        heads = reward_and_continue(widths, units=config.units)
        behaviour = ActorCritic.of(
            action_spec.discrete,
            action_spec.continuous,
            widths=widths,
            units=config.units,
            unimix=config.actor_unimix,
            lam=config.lam,
            entropy=config.entropy,
            discount=discount,
            slow_rate=config.slow_rate,
        )
        own = draws.Generator(config.seed + 1, config.device)
        world = WorldModel(
            encoder=encoder,
            dynamics=dynamics,
            decoder=decoder,
            heads=heads,
            kl=BalancedKL(config.free_nats),
            discount=discount,
            **value_alignment(config, behaviour, own),
        )
    return Dreamer(
        world=world,
        behaviour=behaviour,
        optimiser=make_optimiser(config, world, behaviour),
        seed=config.seed,
        precision=config.precision,
        batch=config.batch,
        length=config.length,
        horizon=config.horizon,
        dream_last=config.dream_last,
        scales=loss_scales(
            seen.keys,
            reconstruction=config.reconstruction_scale,
            dyn=config.dyn_scale,
            rep=config.rep_scale,
            replay_value=config.replay_value_scale,
            **dict.fromkeys(world.regularisers, 1.0),
        ),
        sources={"own": own},
    )
