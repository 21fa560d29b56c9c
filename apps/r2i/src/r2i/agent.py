"""R2I: build, learn. DreamerV3 of 2023 whose dynamics is Parallel(S5Stack): one scan where Dreamer loops.

Sizes: B batch, T time.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from wm_core.actor_critic import ActorCritic
from wm_core.agent import Agent
from wm_core.contracts import Experience, Metrics, Update
from wm_core.distributions import Bernoulli, HardContinue
from wm_core.encoders import MultiDecoder, MultiEncoder
from wm_core.heads import reward_and_continue
from wm_core.images import StridedDecoder, StridedEncoder
from wm_core.joint import Imagine, joint_update, loss_scales, world_update
from wm_core.kl import BalancedKL
from wm_core.observations import describe
from wm_core.pathwise import dream_by_actions
from wm_core.types import Batch, Carry
from wm_core.world import WorldModel
from wm_ssm import S5

from r2i.config import Config
from r2i.parts import VALUES, is_pathwise, make_actor_critic, optimiser, sequence_model, twohot


class R2I(Agent):
    """DreamerV3 on a dynamics that stores nothing: every row of a batch begins with the initial state."""

    behaviour: ActorCritic
    online = False  # 2023's replay is uniform

    def __init__(
        self,
        *,
        batch: int,
        length: int,
        horizon: int,
        dream_last: int,
        scales: dict[str, float],
        ends: str,
        imagine: Imagine,
        **parts: Any,
    ) -> None:
        super().__init__(**parts)
        self.batch, self.length, self.scales, self.ends = batch, length, scales, ends
        self.horizon, self.dream_last, self.imagine = horizon, dream_last, imagine

    @torch.no_grad()
    def initial(self, n: int) -> Carry:
        """The learned state, without gradient: a checkpoint holds it."""
        return super().initial(n)

    def learn(self, replay: Experience) -> Metrics:
        return self.updated(self.to_device(replay.sample(self.batch, self.length)))[0]

    def update(self, *batches: Batch) -> Update:
        metrics, notes = joint_update(
            self,
            self.behaviour,
            self.ready(*batches),
            scales=self.scales,
            horizon=self.horizon,
            dream_last=self.dream_last,
            imagine=self.imagine,
        )
        return metrics | self.radius(), notes

    def update_world(self, *batches: Batch) -> Update:
        metrics, notes = world_update(self, self.ready(*batches), scales=self.scales)
        return metrics | self.radius(), notes

    def ready(self, batch: Batch) -> Batch:
        """A batch whose episodes end for the continue head where they are to."""
        return replace(batch, steps=batch.steps | {"terminal": batch.steps[self.ends]})

    @torch.no_grad()
    def radius(self) -> Metrics:
        """The largest |decay| of all layers: above 1 the recurrence explodes."""
        found = [layer.radius() for layer in self.world.modules() if isinstance(layer, S5)]
        return {"ssm/radius": torch.stack(found).max()}


def build(config: Config, observation_space: Any, action_spec: Any) -> R2I:
    """The agent of a config for one environment's spaces; UserError for a space that the encoder cannot read."""
    torch.manual_seed(config.seed)
    seen, discount = describe(observation_space), 1 - 1 / config.discount_horizon
    pathwise = is_pathwise(config, action_spec)
    nets = {"units": config.encoder_units, "layers": config.encoder_layers, "depth": config.depth}
    values = VALUES[config.discrete_observations]
    hard = config.dream_continue == "mode"  # then the discount is no part of the head's target, but of what it gives
    with torch.device(config.device):
        encoder = MultiEncoder(seen, **nets, images=StridedEncoder, inputs=values["inputs"])
        dynamics = sequence_model(config, encoder.width, action_spec.size)
        widths = dynamics.widths
        world = WorldModel(
            encoder=encoder,
            dynamics=dynamics,
            decoder=MultiDecoder(seen, widths=widths, **nets, images=StridedDecoder, values=values["values"]),
            heads=reward_and_continue(
                widths,
                units=config.units,
                layers=config.layers,
                cont=partial(HardContinue, discount=discount) if hard else Bernoulli,
                reward=twohot(pathwise),
            ),
            kl=BalancedKL(config.free_nats),
            discount=1.0 if hard else discount,
        )
        behaviour = make_actor_critic(config, widths, action_spec, pathwise)
    return R2I(
        world=world,
        behaviour=behaviour,
        optimiser=optimiser(config, world, behaviour),
        seed=config.seed,
        precision=config.precision,
        batch=config.batch,
        length=config.length,
        horizon=config.horizon,
        dream_last=config.dream_last,
        scales=loss_scales(
            seen.keys, reconstruction=config.reconstruction_scale, dyn=config.dyn_scale, rep=config.rep_scale
        ),
        imagine=partial(dream_by_actions, world) if pathwise else world.dream,
        ends={"truncate": "terminal", "terminate": "last"}[config.time_outs],
    )
