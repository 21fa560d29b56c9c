"""The parts of DMAWM from its numbers: agent module, environment module, policy and critic."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor
from wm_core.contracts import ScalarDistribution
from wm_core.encoders import MultiDecoder, MultiEncoder
from wm_core.errors import UserError
from wm_core.heads import PolicyHead
from wm_core.images import StridedDecoder, StridedEncoder
from wm_core.kl import BalancedKL
from wm_core.observations import Observations
from wm_core.patch_book import BookDecoder, BookEncoder, BookPosterior, PatchBook
from wm_core.patch_latents import Hearing, PatchCell, PatchPosterior, PatchPrior, SpriteDecoder, SpriteEncoder
from wm_core.patches import PatchDecoder, PatchEncoder, cells
from wm_core.rssm import RSSM, Cell, Recognition
from wm_core.twohot import TwoHot
from wm_core.world import WorldModel
from wm_marl import (
    MASKS,
    PPO,
    AcrossAgents,
    AgentTransformer,
    Alone,
    Interleaved,
    PlacesAsk,
    PlacesHearOne,
    Squared,
    alone_like,
    interaction_predictor,
    team_critic,
    team_heads,
)
from wm_memory.norm_gru import NormGRU

from dmawm.communicating import CommunicatingCell
from dmawm.config import Config

VALUES: dict[str, Callable[[Tensor], ScalarDistribution]] = {"twohot": TwoHot, "squared": Squared}
READS = {"h": ("deter",), "hz": ("deter", "stoch")}


def make_world(config: Config, seen: Observations, actions: int, agents: int) -> WorldModel:
    """Every agent's own model of what it sees (equation 1), and what couples them (equation 2)."""
    shown, drawn = images_of(config, seen)
    encoder = MultiEncoder(
        seen, units=config.encoder_units, depth=config.depth, layers=config.encoder_layers, images=shown
    )
    if config.latents == "patches" and seen.images:
        if beside := [key for key in seen.keys if key not in seen.images]:
            raise UserError(
                f"latents of patches are of images alone, and {beside[0]!r} is none: leave out --latents patches"
            )
        shape = next(iter(seen.images.values()))
        dynamics = patch_dynamics(config, cells(shape, config.patch), encoder.width, actions, agents)
    else:
        dynamics = make_dynamics(config, encoder.width, actions, agents)
    reads = READS[config.heads_input]
    read = sum(dynamics.widths[name] for name in reads)
    sizes: dict[str, Any] = {"units": config.head_units, "layers": config.head_layers}
    return WorldModel(
        encoder=encoder,
        dynamics=Interleaved(dynamics, agents),
        decoder=MultiDecoder(seen, widths=dynamics.widths, depth=config.depth, images=drawn, **sizes),
        heads=team_heads(
            mixer(config, config.team_heads, read, agents),
            actions,
            reads=reads,
            mask=MASKS[config.masks],
            **sizes,
        ),
        kl=BalancedKL(config.free_nats),
        discount=config.discount,
    )


def images_of(config: Config, seen: Observations) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """What makes the encoder of images, and what their decoder."""
    if config.convolutions == "strided" or not seen.images:
        return StridedEncoder, StridedDecoder
    if config.latents == "patches" and config.codes == "nearest":
        height, width, _ = next(iter(seen.images.values()))
        shape = height, width, sum(channels for _, _, channels in seen.images.values())
        book = PatchBook(shape, classes=config.classes, patch=config.patch, novel=config.novel)
        return partial(BookEncoder, book=book), partial(BookDecoder, book=book)
    alone = config.latents == "patches"
    encoder, decoder = (SpriteEncoder, SpriteDecoder) if alone else (PatchEncoder, PatchDecoder)
    return partial(encoder, patch=config.patch), partial(decoder, patch=config.patch)


def make_dynamics(config: Config, embed: int, actions: int, agents: int) -> RSSM:
    """h = GRU(h, z, a) and z ~ q(h, o) of each agent alone, with the interaction predictor as prior."""
    stoch = config.stoch, config.classes
    flat = config.stoch * config.classes
    cell: Cell | None = None  # RSSM's own: DreamerV3's
    if config.cell == "gru":
        cell = NormGRU(deter=config.deter, state=(flat,), action=actions, hidden=config.hidden)
    elif config.cell == "communicating":
        tokens = transformer(config, flat + actions, agents)
        cell = CommunicatingCell(tokens, deter=config.deter, action=actions, hidden=config.hidden)
    return RSSM(
        deter=config.deter,
        stoch=stoch,
        embed=embed,
        action=actions,
        hidden=config.hidden,
        blocks=config.blocks,
        unimix=config.unimix,
        cell=cell,
        prior=interaction_predictor(
            mixer(config, config.predictor, config.deter, agents),
            stoch,
            units=config.head_units,
            layers=config.head_layers,
        ),
    )


def patch_dynamics(config: Config, grid: tuple[int, int], embed: int, actions: int, agents: int) -> RSSM:
    """The same with a latent for each patch: `deter` numbers that remember and a map, of which the interaction predictor is told
    all."""
    sizes: dict[str, Any] = {"grid": grid, "classes": config.classes, "features": config.map_features}
    cell = PatchCell(config.deter, action=actions, hidden=config.hidden, blocks=config.blocks, **sizes)
    prior = PatchPrior(
        config.deter,
        units=config.patch_units,
        hidden=config.head_units,
        layers=config.head_layers,
        mixer=mixer(config, config.predictor, cell.deter, agents),
        hearing=hearing(config) if config.places_ask else None,
        **sizes,
    )
    places = grid[0] * grid[1]
    posterior: Recognition = BookPosterior()
    if config.codes == "learned":
        posterior = PatchPosterior(embed, places=places, classes=config.classes, units=config.patch_units)
    return RSSM(
        deter=cell.deter,
        stoch=(places, config.classes),
        embed=embed,
        action=actions,
        hidden=config.hidden,
        unimix=config.unimix,
        cell=cell,
        prior=AcrossAgents(prior, agents),
        posterior=posterior,
        mode=True,
    )


def hearing(config: Config) -> Callable[[int, int], Hearing]:
    """What makes that by which places hear of agents, or what takes its place in the ablation IP."""
    if config.predictor == "alone":
        return partial(PlacesHearOne, width=config.patch_units)
    return partial(PlacesAsk, width=config.patch_units, heads=config.attention_heads)


def mixer(config: Config, kind: str, inputs: int, agents: int) -> AgentTransformer | Alone:
    """A transformer over the agents, or what takes its place in an ablation."""
    made = transformer(config, inputs, agents)
    return made if kind == "transformer" else alone_like(made)


def transformer(config: Config, inputs: int, agents: int) -> AgentTransformer:
    """One of the transformers, over tokens of `inputs` features."""
    return AgentTransformer(
        inputs,
        agents=agents,
        width=config.width,
        layers=config.layers,
        heads=config.attention_heads,
        hidden=config.feedforward,
        identity=config.identity,
    )


def make_behaviour(config: Config, widths: dict[str, int], spec: Any, agents: int) -> PPO:
    """A policy of each agent's own state, and a critic of all."""
    reads = READS[config.heads_input]
    policy = PolicyHead(
        discrete=spec.discrete,
        continuous=spec.continuous,
        widths=widths,
        units=config.actor_units,
        layers=config.actor_layers,
        unimix=config.actor_unimix,
    )
    critic = team_critic(
        mixer(config, config.critic, sum(widths[name] for name in reads), agents),
        units=config.head_units,
        layers=config.head_layers,
        reads=reads,
        value=VALUES[config.value_loss],
    )
    return PPO(
        policy=policy,
        critic=critic,
        agents=agents,
        lam=config.lam,
        clip=config.ppo_clip,
        epochs=config.epochs,
        entropy=config.entropy,
        actor_lr=config.actor_lr,
        critic_lr=config.critic_lr,
        bound=config.grad_clip,
        least=config.advantage_floor,
        chunks=config.chunks,
    )
