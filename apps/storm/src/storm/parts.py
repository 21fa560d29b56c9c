"""The parts of STORM that a config chooses among: the dynamics, and value alignment, which is another paper's."""

from __future__ import annotations

from typing import Any

import wm_var
from wm_core import draws
from wm_core.fast.product import Linear
from wm_core.parallel import Parallel
from wm_tssm import TransformerStack, across_episodes, within_episode

from storm.behaviour import StormActorCritic
from storm.config import Config
from storm.dynamics import Unbroken
from storm.layers import mixer


def make_dynamics(config: Config, embed: int, action: int) -> Parallel:
    """The posterior from the observation alone, the transformer, and the prior on its output."""
    flat = config.stoch * config.classes
    stack = TransformerStack(
        config.width,
        layers=config.layers,
        heads=config.heads,
        hidden=config.hidden,
        positions=config.positions,
        context=config.acting_context,
        dropout=config.dropout,
        sight=within_episode if config.resets else across_episodes,
        room=config.horizon,
        linear=Linear,
    )
    return (Parallel if config.resets else Unbroken)(
        stack,
        deter=config.width,
        stoch=(config.stoch, config.classes),
        embed=embed,
        action=action,
        hidden=config.width,
        unimix=config.unimix,
        token=mixer(flat, action, config.width),
        posterior=Linear(embed, flat),
        prior=Linear(config.width, flat),
    )


def value_alignment(config: Config, behaviour: StormActorCritic, own: draws.Generator) -> dict[str, Any]:
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
