"""PO-Dreamer: build and learn. Recall, two posteriors, one KL over both, and DreamerV3's behaviour on their latent.

Sizes: B batch, T time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from wm_core import contracts, names
from wm_core.actor_critic import ActorCritic
from wm_core.agent import Agent
from wm_core.contracts import Dynamics, Experience, Metrics, Update
from wm_core.distributions import TwoHot
from wm_core.encoders import ImageEncoder, MultiDecoder, MultiEncoder
from wm_core.heads import Head, PolicyHead, reward_and_continue
from wm_core.images import ConvDecoder, ConvEncoder, StridedDecoder, StridedEncoder
from wm_core.joint import joint_update
from wm_core.kl import BalancedKL
from wm_core.norm import RMSNorm
from wm_core.observations import Observations, describe
from wm_core.optim import Adam, AdaptiveClip, LaProp, NormClip, Together
from wm_core.rssm import RSSM, Prior
from wm_core.types import Batch, Past, Steps
from wm_core.world import WorldModel
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
from po_dreamer.diagnosis import diagnose


class Refresh:
    """Fresh keys instead of stored ones: the past's observations encoded anew, without gradient.

    The stored keys were made by older weights. Where these change fast, or frames are cheap, this is the better choice;
    for 800 images a row it costs more than the rest of the update.
    """

    def __init__(self, encoder: MemoryEncoder, seen: Observations, window: int) -> None:
        self.encoder, self.stores = encoder, dict.fromkeys(seen.keys, window)

    def __call__(self, past: Past) -> Past:
        seen = {name: past.stored[name] for name in self.stores}
        key = self.encoder.again(seen | {"first": past.first})
        stored = {name: value for name, value in past.stored.items() if name not in self.stores}
        return replace(past, stored=stored | names.noted({"key": key}))


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
        behaviour = ActorCritic(
            policy=PolicyHead(
                discrete=action_spec.discrete,
                continuous=action_spec.continuous,
                widths=widths,
                units=config.units,
                layers=config.behaviour_layers,
                unimix=config.actor_unimix,
                outscale=config.actor_outscale,
            ),
            critic=Head(TwoHot, 255, widths=widths, units=config.units, layers=config.behaviour_layers, outscale=0.0),
            lam=config.lam,
            entropy=config.entropy,
            discount=discount,
            slow_rate=config.slow_rate,
        )
        optimiser = make_optimiser(config, world, behaviour)
    scales = names.observed(dict.fromkeys(seen.keys, config.reconstruction_scale)) | {
        "reward": 1.0,
        "cont": 1.0,
        "dyn": config.dyn_scale,
        "rep": config.rep_scale,
        "policy": 1.0,
        "value": 1.0,
    }
    scales |= {"memory": config.memory_scale} if "memory" in heads else {}
    scales |= {"replay_value": config.replay_value_scale} if config.replay_value_scale else {}
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


def norm_of(config: Config) -> Callable[[int], nn.Module]:
    """The norm of the memory's nets."""
    return {"batch": BatchNorm, "rms": RMSNorm}[config.memory_norm]


class NoObservation(nn.Module):
    """The encoder of an agent that sees only what it recalls."""

    width: int = 0

    def forward(self, steps: Steps) -> dict[str, Tensor]:
        return {}


ObservationEncoder = MultiEncoder | BottleneckEncoder | NoObservation


def make_encoder(config: Config, seen: Observations) -> MemoryEncoder | ObservationEncoder:
    """The encoder of the current observation, and f_o beside it where there is a memory."""
    images: dict[str, Callable[..., ImageEncoder]] = {"2023": StridedEncoder, "2025": ConvEncoder}
    obs: ObservationEncoder = MultiEncoder(seen, units=config.units, depth=config.depth, images=images[config.nets])
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
