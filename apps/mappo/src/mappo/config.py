"""Every number of MAPPO; presets and the command line fill them. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from wm_run.bounds import Bounds, Count, Layers, Norm, Rate, RowLength
from wm_run.config import Resumable, RunConfig
from wm_run.unread import only


@dataclass(frozen=True)
class Config(RunConfig):
    """Every number of MAPPO; the defaults are those of the setting that learns soonest on two cores, preset `smax`."""

    # what is learned from: the newest steps of every environment, once
    envs: Count = 8
    """Environments side by side."""
    batch: Count = 8
    """Rows of an update: one of every environment, so as many as `envs`."""
    length: RowLength = 65
    """Records of a row: one more than the transitions T of each environment that an update is made of."""
    train_ratio: float = 1.0
    """1: an update every T steps of all environments; 0 learns nothing. No other number leaves rows that are new."""
    ratio_counts: Literal["actions", "records"] = "records"
    """Reset records are steps of a row like others, and count."""
    learning_starts: int = 0
    """An update is due as soon as there is a row."""
    replay_bytes: Resumable[Count] = 2_000_000_000
    """Budget of the replay on disk, of which the newest rows are needed."""
    chunk: Count = 256
    """Steps per stream in a replay file; what is evicted at once."""
    eval_acting: Literal["sample", "mode"] = "mode"
    """How the policy acts in evaluations: greedy, as win rates are reported."""
    eval_episodes: Resumable[Count] = 128
    """Episodes of an evaluation."""
    final_episodes: Resumable[int] = 128
    """Episodes of the evaluation at the end of the run."""
    # networks
    policy: Literal["mappo", "mat"] = "mappo"
    """Who chooses: each agent by itself (MAPPO), or one after the other, by what all see and those before it chose (MAT)."""
    units: Count = 128
    """Width of all layers, and of the GRU."""
    layers: Annotated[Layers, only(policy="mappo")] = 2
    """Layers of MAPPO's actor and critic."""
    blocks: Annotated[Layers, only(policy="mat")] = 1
    """Blocks of MAT's encoder, and of its decoder."""
    heads: Annotated[Count, only(policy="mat")] = 1
    """Of their attention."""
    order: Annotated[Literal["fixed", "random"], only(policy="mat")] = "fixed"
    """In which order MAT's agents choose: the environment's, or another after each update."""
    actor: Literal["mlp", "gru"] = "mlp"
    """What the actor knows of the past: nothing, or a GRU's state, zero at the beginning of an episode."""
    backward: Annotated[Count, only(policy="mappo", actor="gru")] = 10
    """Steps that the GRU's gradient goes back; a row has a multiple of them and one more."""
    depth: Annotated[Count, only(images=True)] = 8
    """Channel unit of the convolutions, where there are images."""
    critic: Annotated[Literal["central", "own"], only(policy="mappo")] = "central"
    """What the critic sees: the state of the whole team (where the task has none, everybody's observation) besides the
    agent's own observation; or the latter alone, which is IPPO."""
    identity: bool = True
    """Whether actor and critic are told which of the agents they are."""
    # PPO
    epochs: Count = 10
    """Passes over the rows in an update."""
    minibatches: Count = 1
    """Steps of the optimisers in each of them."""
    clip: Annotated[float, Bounds(above=0)] = 0.2
    """How far a ratio counts from 1, and how far a value from what it was before the update."""
    entropy: float = 0.01
    """Scale of the policy's entropy."""
    discount: Rate = 0.99
    """Of rewards, a step."""
    lam: Rate = 0.95
    """Lambda of the advantages."""
    advantage_floor: Annotated[float, Bounds(above=0)] = 1e-5
    """Least spread that advantages are divided by."""
    huber: Annotated[float, Bounds(above=0)] = 10.0
    """Where the value's loss turns from a square into a line, in units of the returns' spread."""
    value_norm: bool = True
    """Whether values are learned in units of the returns seen so far."""
    dead_values: bool = True
    """Whether the critic also learns what is still to come of the team's reward once the agent is dead (its input is then
    all zeros, but for who it is); else a dead agent's records count for nothing in any loss."""
    # optimisers
    lr: float = 5e-4
    """Learning rate of the actor (Adam, eps 1e-5)."""
    critic_lr: float = 5e-4
    """Learning rate of the critic; MAT's encoder serves both, and one optimiser moves all, with one rate."""
    grad_clip: Norm = 10.0
    """Bound of the norm of each one's gradient."""
    # environment
    players: Count = 4
    """Of a substrate of Melting Pot."""
    share_reward: Literal["none", "mean", "sum"] = "none"
    """What each of them is given there: its own reward, or the mean or the sum of all."""

    @property
    def transitions(self) -> int:
        """T of every environment in an update."""
        return self.length - 1

    @property
    def stride(self) -> int:
        """A row begins with the record that the one before it ends with."""
        return self.transitions

    @property
    def replayed(self) -> int:
        """Transitions: with `train_ratio` 1 each counts once."""
        return self.batch * self.transitions

    def part(self, batch: int, length: int) -> RunConfig:
        """With a GRU of whole spans through which gradients flow."""
        span = self.backward if self.actor == "gru" else 1
        return super().part(batch, min(self.length, 1 + span * -(-max(length - 1, 1) // span)))

    @property
    def mistake(self) -> str:
        """What on-policy rows rule out, and what MAT has not."""
        if self.policy == "mat" and self.units % self.heads:
            return f"units is {self.units}, which {self.heads} attention heads do not divide: give a multiple of them"
        if self.policy == "mat" and self.actor == "gru":
            return "policy mat has no memory: leave out --actor gru"
        if self.policy == "mat" and self.critic == "own":
            return "policy mat has values on its encoder, which sees the whole team: leave out --critic own"
        if self.policy == "mat" and self.lr != self.critic_lr:
            return (
                f"policy mat has one optimiser with one learning rate: give lr and critic_lr alike, not {self.lr:g} and "
                f"{self.critic_lr:g}"
            )
        spans = self.transitions // self.backward
        if self.batch != self.envs:
            return f"batch is {self.batch} and envs {self.envs}: an update takes one row of every environment, give both alike"
        if self.train_ratio not in (0.0, 1.0) or self.ratio_counts != "records":
            return (
                "train_ratio must be 1, or 0 to learn nothing, with ratio_counts records: every row is learned from once, "
                f"while it is new; say how often with --epochs, not {self.train_ratio:g} {self.ratio_counts}"
            )
        if self.first_updates != 1:
            return f"first_updates is {self.first_updates}, but there is one new row of every environment then: leave it out"
        if self.learning_starts > self.envs * self.length:
            return (
                f"learning_starts is {self.learning_starts:,}, more than the {self.envs * self.length:,} records of a "
                "first update, whose rows would be old ones then: leave it at 0"
            )
        if self.online_stride not in (0, self.stride):
            return f"online_stride is {self.online_stride}, but a row is due every {self.stride} steps (length - 1): leave it out"
        if self.actor == "gru" and self.transitions % self.backward:
            near = max(spans, 1) * self.backward + 1
            return (
                f"length is {self.length}, but with a GRU a row has a multiple of {self.backward} steps (backward) and one "
                f"more: give --length {near}, or another --backward"
            )
        return ""
