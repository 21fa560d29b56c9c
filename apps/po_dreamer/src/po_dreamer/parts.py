"""The parts of PO-Dreamer that a config chooses among: encoder, memory, dynamics, the world model of them, optimiser."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn
from wm_core.actor_critic import ActorCritic
from wm_core.contracts import Dynamics, Encoder
from wm_core.contracts import Head as HeadContract
from wm_core.encoders import ImageEncoder, MultiDecoder, MultiEncoder
from wm_core.heads import Head, reward_and_continue
from wm_core.images import ConvDecoder, ConvEncoder, StridedDecoder, StridedEncoder
from wm_core.joint import loss_scales, model_scales
from wm_core.kl import BalancedKL
from wm_core.norm import RMSNorm
from wm_core.observations import Observations
from wm_core.optim import Adam, AdaptiveClip, LaProp, NormClip, Rule, Together
from wm_core.rssm import RSSM, Prior
from wm_core.types import Steps
from wm_core.world import WorldModel
from wm_marl import MASKS, PPO, Interleaved
from wm_memory import (
    ActionEncoder,
    AgePositions,
    BottleneckEncoder,
    CrossAttention,
    Frames,
    FusedRSSM,
    Gaussian,
    InitialRows,
    Memory,
    MemoryDecoder,
    MemoryEncoder,
    NoActions,
    NoPositions,
    NormGRU,
    OneHotActionEncoder,
    PairAttention,
    RankPositions,
    Recall,
    RecalledRSSM,
    Repeat,
    SoftmaxMatch,
    Squared,
    across_episodes,
    this_episode,
)
from wm_memory.norms import BatchNorm
from wm_memory.recall import Positions

from po_dreamer.config import Config
from po_dreamer.refresh import Refresh


def norm_of(config: Config) -> Callable[[int], nn.Module]:
    """The norm of the memory's nets."""
    return {"batch": BatchNorm, "rms": RMSNorm}[config.memory_norm]


class NoObservation(nn.Module):
    """The `Encoder` of an agent that sees only what it recalls: it gives no embedding."""

    width: int = 0

    def forward(self, steps: Steps) -> dict[str, Tensor]:
        return {}


ObservationEncoder = MultiEncoder | BottleneckEncoder | NoObservation


def make_encoder(config: Config, seen: Observations) -> MemoryEncoder | ObservationEncoder:
    """The encoder of the current observation, and f_o beside it where there is a memory."""
    images: dict[str, Callable[..., ImageEncoder]] = {"2023": StridedEncoder, "2025": ConvEncoder}
    obs: ObservationEncoder = MultiEncoder(
        seen, units=config.units, depth=config.depth, layers=config.encoder_layers, images=images[config.nets]
    )
    if config.branches == "mg":
        obs = NoObservation()
    if config.co_bottleneck == "gaussian":
        obs = BottleneckEncoder(obs, make_bottleneck(config, obs.width))
    if config.branches == "co":
        return obs
    frames = Frames(
        seen,
        width=config.memory_width,
        depth=config.memory_depth,
        units=config.memory_units,
        layers=config.memory_layers,
        norm=norm_of(config),
    )
    return MemoryEncoder(frames, obs)


def make_bottleneck(config: Config, inputs: int) -> Gaussian:
    """Eq. 6."""
    return Gaussian(inputs, config.bottleneck_width, hidden=config.bottleneck_hidden, norm=norm_of(config))


def make_memory(config: Config, action_spec: Any) -> Memory:
    """Everything up to f^v."""
    width, norm = config.memory_width, norm_of(config)
    discrete = len(action_spec.discrete) == 1 and not action_spec.continuous
    encode = partial(OneHotActionEncoder if discrete else ActionEncoder, action_spec.size, width, norm=norm)
    positions: dict[str, Callable[[], Positions]] = {
        "rank": partial(RankPositions, config.memory_count, width),
        "age": partial(AgePositions, config.memory_window, width),
        "none": partial(NoPositions, width),
    }
    actions: dict[str, Callable[[], nn.Module]] = {"encoded": encode, "none": NoActions}
    recall = (Repeat if config.branches == "co+co" else Recall)(
        width=width,
        action=action_spec.size,
        count=config.memory_count,
        blocks=config.memory_blocks,
        heads=config.memory_heads,
        hidden=config.memory_hidden,
        dropout=config.memory_dropout,
        positions=positions[config.positions](),
        actions=actions[config.actions](),
    )
    return Memory(
        recall,
        action=action_spec.size,
        window=config.memory_window,
        bottleneck=make_bottleneck(config, width) if config.bottleneck == "gaussian" else None,
        sight={"across": across_episodes, "episode": this_episode}[config.memory_sight],
        content=config.memory_content,
    )


def make_dynamics(config: Config, embed: int, action_spec: Any) -> Dynamics:
    """One branch or both."""
    deter, flat, action = config.deter, config.stoch * config.classes, action_spec.size
    sizes: dict[str, Any] = {
        "deter": deter,
        "stoch": (config.stoch, config.classes),
        "action": action,
        "hidden": config.hidden,
        "blocks": config.blocks,
        "unimix": config.unimix,
    }
    old, alone = config.nets == "2023", config.branches == "co"
    stored = config.row_start == "stored"

    def single(embed: int) -> RSSM:
        reads = (flat,) if alone and config.co_reads == "stoch" else (deter, flat)
        cell = NormGRU(deter=deter, state=reads, action=action, hidden=config.hidden) if old else None
        prior = Prior(deter, flat, hidden=config.hidden, layers=config.prior_layers)
        return RSSM(embed=embed, cell=cell, prior=prior, **sizes)

    if alone:
        return single(embed) if stored else InitialRows(single(embed))
    memory = make_memory(config, action_spec)
    if config.branches == "mg":
        return RecalledRSSM(memory, single(memory.width), stored=stored)
    pair = (2 * deter, 2 * flat)
    cells = [NormGRU(deter=deter, state=pair, action=action, hidden=config.hidden) for _ in range(2 * old)]
    attention: dict[str, Callable[[], nn.Module]] = {
        "pair": partial(PairAttention, deter),
        "cross": partial(CrossAttention, deter),
        "none": nn.Identity,
    }
    return FusedRSSM(
        memory=memory,
        embed=embed,
        layers=config.prior_layers,
        attention=attention[config.attention](),
        cells=(cells[0], cells[1]) if cells else None,
        stored=stored,
        **sizes,
    )


def make_world(config: Config, seen: Observations, action_spec: Any, agents: int | None = None) -> WorldModel:
    """Eq. 1 to 10. Of a team, every agent's own: `agents` says how dreams are ordered, and masks are predicted too."""
    encoder = make_encoder(config, seen)
    dynamics = make_dynamics(config, encoder.width, action_spec)
    widths = dynamics.widths
    sizes: dict[str, Any] = {"widths": widths, "units": config.units}
    heads: dict[str, HeadContract] = {}
    heads |= reward_and_continue(layers=config.head_layers, **sizes)
    if agents is not None:
        heads["action_mask"] = Head(MASKS[config.masks], action_spec.size, layers=config.head_layers, **sizes)
    if config.memory_decoder != "none" and config.branches != "co":
        heads["memory"] = MemoryDecoder(
            config.memory_width,
            widths=widths,
            units=config.memory_units,
            distribution={"softmax": SoftmaxMatch, "squared": Squared}[config.memory_decoder],
            norm=norm_of(config),
        )
    images: dict[str, Callable[..., nn.Module]] = {"2023": StridedDecoder, "2025": ConvDecoder}
    return WorldModel(
        encoder=encoder,
        dynamics=dynamics if agents is None else Interleaved(dynamics, agents),
        decoder=MultiDecoder(seen, depth=config.depth, blocks=config.blocks, images=images[config.nets], **sizes),
        heads=heads,
        kl=BalancedKL(config.free_nats),
        discount=1 - 1 / config.discount_horizon,
    )


def make_refresh(config: Config, seen: Observations, encoder: Encoder) -> Refresh | None:
    """What computes keys of a batch's past anew, where none are kept."""
    if config.memory_keys != "fresh" or not isinstance(encoder, MemoryEncoder):
        return None
    return Refresh(encoder, seen, config.memory_window)


def make_scales(config: Config, seen: Observations, world: WorldModel) -> dict[str, float]:
    """The scale of every loss by its name; of a team, whose world predicts masks and whose behaviour takes steps of its own,
    those of the model alone."""
    scale: dict[str, float] = {
        "reconstruction": config.reconstruction_scale,
        "dyn": config.dyn_scale,
        "rep": config.rep_scale,
        **({"memory": config.memory_scale} if "memory" in world.heads else {}),
    }
    if world.masks:
        return model_scales(seen.keys, **scale, action_mask=1.0)
    more = {"replay_value": config.replay_value_scale} if config.replay_value_scale else {}
    return loss_scales(seen.keys, **scale, **more)


def make_optimiser(config: Config, world: nn.Module, behaviour: ActorCritic) -> Any:
    """LaProp on everything, or Adam with the clips of the 2023 code."""
    if config.optimiser == "laprop":
        params = [*world.parameters(), *behaviour.parameters()]
        apart = behaviour.actor.components() if config.agc_policy == "tensor" else ()
        clip = AdaptiveClip(config.agc, apart=apart)
        return LaProp(params, lr=config.lr, warmup=config.warmup, clip=clip)
    return Together(
        world=Adam(world.parameters(), lr=config.lr, clip=NormClip(1000.0)),
        actor=Adam(behaviour.actor.parameters(), lr=config.lr, clip=NormClip(100.0)),
        critic=Adam(behaviour.critic.parameters(), lr=config.lr, clip=NormClip(100.0)),
    )


def make_team_optimiser(config: Config, world: nn.Module, behaviour: PPO) -> Together:
    """Of a team the behaviour takes its own steps, and the world model one before them."""
    rule: Rule = Adam(world.parameters(), lr=config.lr, clip=NormClip(1000.0))
    if config.optimiser == "laprop":
        rule = LaProp(world.parameters(), lr=config.lr, warmup=config.warmup, clip=AdaptiveClip(config.agc))
    return Together(model=rule, **behaviour.rules)
