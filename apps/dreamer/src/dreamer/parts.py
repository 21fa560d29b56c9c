"""The parts of DreamerV3 that a config chooses among: the optimiser, and value alignment, which is another paper's."""

from __future__ import annotations

from typing import Any

import wm_var
from torch import nn
from wm_core import draws
from wm_core.actor_critic import ActorCritic
from wm_core.optim import AdaptiveClip, LaProp

from dreamer.config import Config


def make_optimiser(config: Config, world: nn.Module, behaviour: ActorCritic) -> LaProp:
    """One LaProp for world model and behaviour; gradients are clipped by the size of each parameter."""
    params = [*world.parameters(), *behaviour.parameters()]
    apart = behaviour.actor.components() if config.agc_policy == "tensor" else ()
    return LaProp(params, lr=config.lr, warmup=config.warmup, clip=AdaptiveClip(config.agc, apart=apart))


def value_alignment(config: Config, behaviour: ActorCritic, own: draws.Generator) -> dict[str, Any]:
    """What `--var` adds to the world model: nothing, or one regulariser."""
    if not config.var:
        return {}
    return wm_var.world_parts(
        behaviour.slow if config.var_critic == "slow" else behaviour.critic,
        own.generator,
        state=config.var_state,
        warmup=config.var_warmup,
        unit=config.var_unit,
        dyn=config.var_dyn,
        rep=config.var_rep,
        weight=config.var_weight,
        detach=("deter",) if config.var_detach else (),
    )
