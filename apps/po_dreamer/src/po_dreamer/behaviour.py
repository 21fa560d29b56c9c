"""Who acts and learns from dreams: DreamerV3's actor-critic for one agent, PPO on a Multi-Agent Transformer for a team.

Of a team also what is learned from: steps of the dead, and the reward that each agent is credited with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from torch import nn
from wm_core.actor_critic import ActorCritic
from wm_core.heads import PolicyHead
from wm_core.types import Dream, Steps
from wm_marl import PPO, AgentTransformer, MATPolicy, absent, mat_critic, shared, team_critic
from wm_run.teams import Team

from po_dreamer.config import Config


def make_actor_critic(config: Config, widths: Mapping[str, int], action_spec: Any) -> ActorCritic:
    """DreamerV3's policy and critic on the whole latent (Eq. 14)."""
    return ActorCritic.of(
        action_spec.discrete,
        action_spec.continuous,
        widths=widths,
        units=config.units,
        layers=config.behaviour_layers,
        unimix=config.actor_unimix,
        outscale=config.actor_outscale,
        lam=config.lam,
        entropy=config.entropy,
        discount=1 - 1 / config.discount_horizon,
        slow_rate=config.slow_rate,
    )


def make_team_behaviour(config: Config, widths: Mapping[str, int], action_spec: Any, agents: int) -> PPO:
    """PPO in dreams, on the latents of all agents."""
    made: Any = {"mat": mat, "decentralised": decentralised}[config.policy]
    policy, critic = made(config, widths, action_spec, agents)
    return PPO(
        policy=policy,
        critic=critic,
        agents=agents,
        lam=config.lam,
        clip=config.ppo_clip,
        epochs=config.epochs,
        entropy=config.entropy,
        actor_lr=config.actor_lr,
        critic_lr=config.actor_lr,
        bound=config.actor_grad_clip,
        least=config.advantage_floor,
        chunks=config.chunks,
        together=config.policy == "mat",
    )


def mat(config: Config, widths: Mapping[str, int], action_spec: Any, agents: int) -> tuple[MATPolicy, nn.Module]:
    """The Multi-Agent Transformer, whose encoder gives the values too; it needs the latents of all agents to act."""
    policy = MATPolicy(
        discrete=action_spec.discrete,
        continuous=action_spec.continuous,
        widths=widths,
        agents=agents,
        width=config.mat_width,
        blocks=config.mat_blocks,
        heads=config.mat_heads,
        unimix=config.actor_unimix,
        identity=config.identity,
        order=config.agent_order,
    )
    return policy, mat_critic(policy)


def decentralised(
    config: Config, widths: Mapping[str, int], action_spec: Any, agents: int
) -> tuple[PolicyHead, nn.Module]:
    """A policy of each agent's own latent, and a critic that hears of all: what MAT's authors call MAT-Dec."""
    sizes: dict[str, Any] = {"units": config.units, "layers": config.behaviour_layers}
    policy = PolicyHead(
        discrete=action_spec.discrete,
        continuous=action_spec.continuous,
        widths=widths,
        unimix=config.actor_unimix,
        outscale=config.actor_outscale,
        **sizes,
    )
    mixer = AgentTransformer(
        sum(widths[name] for name in policy.reads),
        agents=agents,
        width=config.mat_width,
        layers=config.mat_blocks,
        heads=config.mat_heads,
        hidden=config.mat_width,
        identity=config.identity,
    )
    return policy, team_critic(mixer, reads=policy.reads, **sizes)


def make_relabel(config: Config, observations: Iterable[str], team: Team) -> Callable[[Steps], Steps]:
    """Steps of rows -> steps in which who is dead has nothing to see and nothing to choose."""
    own_end = config.absent == "own"
    return partial(absent, observations=tuple(observations), noop=team.noop, records=0, own_end=own_end)


def make_credited(config: Config, team: Team) -> Callable[[Dream], Dream]:
    """What the agents dreamed of the team's reward, each by itself -> what each is credited with."""
    if config.credit != "mean":
        return lambda dream: dream
    return partial(shared, agents=team.agents, cont=config.absent != "own")
