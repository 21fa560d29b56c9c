"""Every number of PO-Dreamer; presets, sizes and the command line fill them. Imports no torch.

The defaults are the paper's: the nets of dreamerv3-torch's size S, Table 3, and the resolutions of what the paper
leaves open. A literal field chooses a part in `build`, so that an ablation is another part and no switch inside one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from wm_core.sizes import SIZES as DREAMER_SIZES
from wm_run.bounds import Bounds, Count, Horizon, LastSteps, Layers, Norm, Rate, Share
from wm_run.config import RunConfig, now

PAPER: Mapping[str, object] = {
    "nets": "2023",
    "deter": 512,
    "hidden": 512,
    "classes": 32,
    "depth": 32,
    "units": 512,
    "head_layers": 2,
    "behaviour_layers": 2,
    "prior_layers": 1,
    "actor_outscale": 1.0,
    "optimiser": "adam",
    "dyn_scale": 0.5,
    "replay_value_scale": 0.0,
    "row_start": "initial",
    "online": False,
}
NETS_2025: Mapping[str, object] = {
    "nets": "2025",
    "head_layers": 1,
    "behaviour_layers": 3,
    "prior_layers": 2,
    "actor_outscale": 0.01,
    "optimiser": "laprop",
    "dyn_scale": 1.0,
    "replay_value_scale": 0.3,
    "row_start": "stored",
    "online": True,
}
SIZES: Mapping[str, Mapping[str, object]] = {
    "paper": PAPER,
    **{name: {**NETS_2025, **numbers} for name, numbers in DREAMER_SIZES.items()},
}


@dataclass(frozen=True)
class Config(RunConfig):
    """One flat level; deter, stoch and classes are those of ONE branch."""

    # model
    nets: Literal["2023", "2025"] = "2023"
    """Strided convolutions and a dense GRU, or DreamerV3's pooled convolutions and block GRU."""
    deter: Count = 512
    """Width of a branch's deterministic state."""
    hidden: Count = 512
    """Width of the dynamics' hidden layers."""
    stoch: Count = 32
    """Stochastic latents of a branch."""
    classes: Count = 32
    """Classes of each stochastic latent."""
    depth: Count = 32
    """Channel unit of the convolutions."""
    units: Count = 512
    """Width of encoder, decoder and head layers."""
    blocks: Count = 8
    """Blocks of the block GRU and of the decoder's first layer."""
    encoder_layers: Layers = now(3, was=3)
    """Layers of the MLP that reads what is no image."""
    head_layers: Layers = 2
    """Hidden layers of the reward and continue heads."""
    behaviour_layers: Layers = 2
    """Hidden layers of policy and critic."""
    prior_layers: Layers = 1
    """Hidden layers of each prior."""
    unimix: Share = 0.01
    """Uniform share of posterior and prior."""
    branches: Literal["fused", "co", "mg", "co+co"] = "fused"
    """Both branches, one of them, or two that both see the current observation."""
    attention: Literal["pair", "cross", "none"] = "pair"
    """Between the branches before the priors: over both states, over the other alone (Eq. 8 as printed), or none."""
    co_bottleneck: Literal["none", "gaussian"] = "none"
    """Of the current observation's embedding (CO+VAE)."""
    co_reads: Literal["stoch", "state"] = now("stoch", was="state")
    """With the 2023 nets and one branch on the observation: does the layer before its GRU read z alone, as in the paper's
    code base, or h too?"""
    row_start: Literal["initial", "stored"] = now("initial", was="stored")
    """The recurrent state with which a row of a batch begins: the initial one, as in the paper's code base, or what replay
    keeps of the step before. The memory is filled from the steps before either way."""
    online: bool = now(False, was=True)
    """Is each newest row learned from once, soon after it came, as in DreamerV3 of 2025?"""
    # memory
    memory_window: Count = 800
    """Steps remembered (tau), agent steps of this stream."""
    memory_count: Count = 40
    """Steps recalled (eta)."""
    memory_sight: Literal["across", "episode"] = "across"
    """What may be recalled: steps of earlier episodes too, or of this one alone."""
    memory_width: Count = 512
    """Width of embeddings and attention."""
    memory_heads: Count = 8
    """Attention heads."""
    memory_blocks: Layers = 3
    """Attention blocks."""
    memory_hidden: Count = 512
    """Width of the blocks' hidden layer."""
    memory_depth: Count = 32
    """Channel unit of the memory frame encoder."""
    memory_units: Count = 512
    """Hidden layers of the memory's vector encoder and of the memory decoder."""
    memory_layers: Layers = now(2, was=2)
    """Layers of the memory's vector encoder."""
    memory_dropout: Share = 0.1
    """In the memory blocks."""
    memory_norm: Literal["batch", "rms"] = "batch"
    """Of frame encoder, action encoder, bottleneck and memory decoder."""
    memory_content: Literal["chunk", "none"] = "chunk"
    """Which remembered frames get a gradient: those of the batch's rows, or none."""
    memory_keys: Literal["cached", "fresh"] = "cached"
    """Of the steps before a batch: those that replay keeps, or the observations encoded anew."""
    positions: Literal["rank", "age", "none"] = "rank"
    """Of recalled steps: chronological rank among them, age, or nothing."""
    actions: Literal["encoded", "none"] = "encoded"
    """Whether a recalled step brings the action taken there."""
    bottleneck: Literal["gaussian", "none"] = "gaussian"
    """Of what was recalled (Eq. 6)."""
    bottleneck_width: Count = 20
    """Numbers that pass it."""
    bottleneck_hidden: Count = 256
    """Width of its hidden layers."""
    memory_decoder: Literal["softmax", "squared", "none"] = "softmax"
    """Loss of the memory decoder: the literal cross-entropy of softmaxes, mean squared error, or no decoder."""
    memory_scale: float = 1.0
    """Scale of the memory decoder's loss."""
    diagnose_every: Count = 100
    """Updates between two looks at what recall does."""
    # losses
    free_nats: float = 1.0
    """Free nats of both KL terms, shared by the branches."""
    reconstruction_scale: float = 1.0
    """Scale of every observation loss."""
    dyn_scale: float = 0.5
    """Scale of the dynamics KL."""
    rep_scale: float = 0.1
    """Scale of the representation KL."""
    replay_value_scale: float = 0.0
    """Scale of the critic's loss on replayed latents; 0 leaves it out, as the paper does."""
    # behaviour
    horizon: Horizon = 15
    """Steps of imagination."""
    dream_last: LastSteps = 0
    """The last steps of each row from which dreams start; 0, or more than the row has: every step."""
    discount_horizon: Annotated[float, Bounds(above=1)] = 333.0
    """1 / (1 - discount)."""
    lam: Rate = 0.95
    """Lambda of the returns."""
    entropy: float = 3e-4
    """Scale of the policy's entropy."""
    actor_unimix: Share = 0.01
    """Uniform share of discrete policies."""
    actor_outscale: float = now(1.0, was=0.01)
    """Scale at which the policy's last layer begins: 1 in the paper's code base, 0.01 in DreamerV3 of 2025."""
    slow_rate: Rate = 0.02
    """Rate at which the slow critic follows."""
    # a team's behaviour, PPO in dreams; one agent learns by DreamerV3's actor-critic
    policy: Literal["mat", "decentralised"] = now("mat", was="mat")
    """The Multi-Agent Transformer, which hears of all agents when it acts; or a policy of each agent's own latent, with a
    critic that hears of all."""
    agent_order: Literal["fixed", "random"] = now("fixed", was="fixed")
    """In which the transformer's agents choose: the environment's, or one drawn anew for every update."""
    mat_width: Count = now(128, was=128)
    """Of the transformer's tokens, and of the decentralised policy's critic."""
    mat_blocks: Layers = now(1, was=1)
    """Attention blocks of its encoder and of its decoder."""
    mat_heads: Count = now(4, was=4)
    """Attention heads."""
    identity: bool = now(False, was=False)
    """Whether a token says which agent it is."""
    masks: Literal["mode", "sample"] = now("mode", was="mode")
    """Available actions of a dream: what is more likely than not, or sampled by their probabilities."""
    absent: Literal["team", "own"] = now("team", was="team")
    """What a dead agent's continuation is: the team's, so that it is credited with what the others earn after it; or 0."""
    credit: Literal["mean", "own"] = now("mean", was="mean")
    """Each agent dreams of the team's reward by itself: all are credited with the mean of that, or each with its own."""
    epochs: Count = now(5, was=5)
    """Of PPO on each dream."""
    ppo_clip: Annotated[float, Bounds(above=0)] = now(0.2, was=0.2)
    """How far the ratio may go."""
    actor_lr: float = now(3e-4, was=3e-4)
    """Adam's learning rate, of policy and critic."""
    actor_grad_clip: Norm = now(10.0, was=10.0)
    """Bound of their gradient's norm."""
    advantage_floor: Annotated[float, Bounds(above=0)] = now(1e-5, was=1e-5)
    """A floor under the spread by which advantages are divided."""
    chunks: Count = now(1, was=1)
    """Parts in which a PPO epoch is computed, to save memory; the gradient is that of the whole."""
    model_first: int = now(0, was=0)
    """First updates in which the world model alone learns."""
    # optimiser
    optimiser: Literal["adam", "laprop"] = "adam"
    """Adam with the paper's norm clips (1000 for the world model, 100 for actor and critic), or DreamerV3's LaProp."""
    lr: float = 4e-5
    """Learning rate."""
    warmup: int = 1000
    """Updates over which LaProp's learning rate rises from 0."""
    agc: Norm = 0.3
    """Bound of LaProp's adaptive gradient clipping."""
    agc_policy: Literal["tensor", "layer"] = now("tensor", was="layer")
    """What of a policy's last layer is clipped by itself: means, deviations and every component's logits (the reference's
    tensors), or the layer whole."""
    # environment
    protocol: Literal["dreamerv3", "storm"] = "dreamerv3"
    """Atari 100k protocol: DreamerV3's (no sticky actions, random no-ops) or STORM's (sticky, life loss)."""

    @property
    def settled(self) -> Config:
        return replace(self, model_first=0)
