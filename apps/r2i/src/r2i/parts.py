"""The parts of R2I that a config chooses among: the sequence model, policy and critic, the optimiser."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wm_core.actor_critic import ActorCritic
from wm_core.blocks import MLP
from wm_core.contracts import Backbone
from wm_core.encoders import Discretes, OneHotVectors, SymlogInput, VectorInput
from wm_core.fast import product
from wm_core.optim import Adam, NormClip, Together
from wm_core.parallel import Parallel
from wm_core.pathwise import PathwiseActorCritic
from wm_core.rssm import Prior
from wm_core.twohot import SettledTwoHot, TwoHot
from wm_core.world import WorldModel
from wm_ssm import S5Stack, bilinear, by_name, zoh

from r2i.config import Config
from r2i.dynamics import S3M, NoResets, Recurrent, prior_mode, zeros

# what predicts an entry of a discrete observation, and what the encoder sees of it
VALUES: dict[str, dict[str, Any]] = {
    "vector": {"values": OneHotVectors, "inputs": SymlogInput},
    "categorical": {"values": Discretes, "inputs": VectorInput},
}
READS = {
    "output": ("deter", "stoch"),
    "hidden": ("stoch", "hidden"),
    "full": ("deter", "stoch", "hidden"),
}  # by policy and critic


def sequence_model(config: Config, embed: int, action: int) -> Parallel:
    """u = f(z, a); h, x = S5 layers over u: the S3M of the paper."""
    stack = S5Stack(
        config.width,
        config.state,
        config.ssm_layers,
        out=config.deter,
        blocks=config.ssm_blocks,
        discretise={"bilinear": bilinear, "zoh": zoh}[config.discretise],
        learned=config.initial == "learned",
        negative=config.negative,
        c_scale=config.c_scale,
        product=product.linear,
    )
    backbones: dict[str, Backbone] = {"first": stack, "never": NoResets(stack)}
    zero = config.initial == "zero" and config.start_stoch == "state"
    return {"parallel": S3M, "recurrent": Recurrent}[config.posterior](
        backbones[config.resets],
        deter=config.deter,
        stoch=(config.stoch, config.classes),
        embed=embed,
        action=action,
        hidden=config.width,
        unimix=config.unimix,
        token=MLP(config.stoch * config.classes + action, config.width, 1),
        prior=Prior(config.deter, config.stoch * config.classes, hidden=config.width, layers=config.prior_layers),
        start=zeros if zero else prior_mode,
    )


def is_pathwise(config: Config, action_spec: Any) -> bool:
    """Whether the policy learns through the dynamics; ValueError where its actions carry no gradient."""
    if action_spec.discrete and config.actor_grad == "dynamics":
        raise ValueError("a policy of discrete actions has no gradient through the dynamics: actor_grad reinforce")
    return config.actor_grad == "dynamics" or config.actor_grad == "auto" and not action_spec.discrete


def twohot(pathwise: bool) -> type[TwoHot]:
    """Of rewards and values: whoever climbs a mean wants its gradient without rounding."""
    return SettledTwoHot if pathwise else TwoHot


def make_actor_critic(config: Config, widths: Mapping[str, int], action_spec: Any, pathwise: bool) -> ActorCritic:
    """Policy and critic of what `policy_input` says: the output h, the hidden states x, or both, beside z."""
    return (PathwiseActorCritic if pathwise else ActorCritic).of(
        action_spec.discrete,
        action_spec.continuous,
        widths=widths,
        units=config.units,
        layers=config.layers,
        unimix=config.actor_unimix,
        outscale=config.actor_outscale,
        reads=READS[config.policy_input],
        value=twohot(pathwise),
        lam=config.lam,
        entropy=config.entropy,
        discount=1 - 1 / config.discount_horizon,
        slow_rate=config.slow_rate,
    )


def optimiser(config: Config, world: WorldModel, behaviour: ActorCritic) -> Together:
    """Adam for each part, clipped by a norm of its own; the S5 tensors by name, all layers together."""
    named = by_name(world)
    apart = {id(p) for group in named.values() for p in group}
    rest = [p for p in world.parameters() if id(p) not in apart]

    def adam(params: Any, lr: float, clip: float, eps: float) -> Adam:
        return Adam(params, lr=lr, clip=NormClip(clip), eps=eps, warmup=config.warmup)

    rules = {"world": adam(rest, config.lr, config.clip, 1e-8)}
    rules |= {name: adam(group, config.ssm_lr, config.clip, 1e-8) for name, group in named.items()}
    rules["actor"] = adam(behaviour.actor.parameters(), config.actor_lr, config.actor_clip, 1e-5)
    rules["critic"] = adam(behaviour.critic.parameters(), config.critic_lr, config.critic_clip, 1e-5)
    return Together(**rules)
