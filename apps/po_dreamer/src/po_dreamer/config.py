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
from wm_run.unread import only

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

MEMORY = ("fused", "mg", "co+co")  # branches that recall something
WITH_MEMORY, WITH_BEHAVIOUR = only(branches=MEMORY), only(behaviour=True)
WITH_PAST = only(branches=("fused", "mg"))  # co+co recalls copies of the present


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
    depth: Annotated[Count, only(images=True)] = 32
    """Channel unit of the convolutions."""
    units: Count = 512
    """Width of encoder, decoder and head layers."""
    blocks: Annotated[Count, only(nets="2025")] = 8
    """Blocks of the block GRU and of the decoder's first layer."""
    encoder_layers: Layers = now(3, was=3)
    """Layers of the MLP that reads what is no image."""
    head_layers: Layers = 2
    """Hidden layers of the reward and continue heads."""
    behaviour_layers: Annotated[Layers, only(team=False), only(policy="decentralised")] = 2
    """Hidden layers of policy and critic."""
    prior_layers: Layers = 1
    """Hidden layers of each prior."""
    unimix: Share = 0.01
    """Uniform share of posterior and prior."""
    branches: Literal["fused", "co", "mg", "co+co"] = "fused"
    """Both branches, one of them, or two that both see the current observation."""
    attention: Annotated[Literal["pair", "cross", "none"], only(branches=("fused", "co+co"))] = "pair"
    """Between the branches before the priors: over both states, over the other alone (Eq. 8 as printed), or none."""
    co_bottleneck: Literal["none", "gaussian"] = "none"
    """Of the current observation's embedding (CO+VAE)."""
    co_reads: Annotated[Literal["stoch", "state"], only(branches="co", nets="2023")] = now("stoch", was="state")
    """With the 2023 nets and one branch on the observation: does the layer before its GRU read z alone, as in the paper's
    code base, or h too?"""
    row_start: Literal["initial", "stored"] = now("initial", was="stored")
    """The recurrent state with which a row of a batch begins: the initial one, as in the paper's code base, or what replay
    keeps of the step before. The memory is filled from the steps before either way."""
    online: bool = now(False, was=True)
    """Is each newest row learned from once, soon after it came, as in DreamerV3 of 2025?"""
    # memory
    memory_window: Annotated[Count, WITH_PAST] = 800
    """Steps remembered (tau), agent steps of this stream."""
    memory_count: Annotated[Count, WITH_MEMORY] = 40
    """Steps recalled (eta)."""
    memory_sight: Annotated[Literal["across", "episode"], WITH_PAST] = "across"
    """What may be recalled: steps of earlier episodes too, or of this one alone."""
    memory_width: Annotated[Count, WITH_MEMORY] = 512
    """Width of embeddings and attention."""
    memory_heads: Annotated[Count, WITH_MEMORY] = 8
    """Attention heads."""
    memory_blocks: Annotated[Layers, WITH_MEMORY] = 3
    """Attention blocks."""
    memory_hidden: Annotated[Count, WITH_MEMORY] = 512
    """Width of the blocks' hidden layer."""
    memory_depth: Annotated[Count, only(branches=MEMORY, images=True)] = 32
    """Channel unit of the memory frame encoder."""
    memory_units: Annotated[Count, WITH_MEMORY] = 512
    """Hidden layers of the memory's vector encoder and of the memory decoder."""
    memory_layers: Annotated[Layers, only(branches=MEMORY, vectors=True)] = now(2, was=2)
    """Layers of the memory's vector encoder."""
    memory_dropout: Annotated[Share, WITH_MEMORY] = 0.1
    """In the memory blocks."""
    memory_norm: Annotated[Literal["batch", "rms"], WITH_MEMORY, only(co_bottleneck="gaussian")] = "batch"
    """Of frame encoder, action encoder, bottleneck and memory decoder."""
    memory_content: Annotated[Literal["chunk", "none"], WITH_PAST] = "chunk"
    """Which remembered frames get a gradient: those of the batch's rows, or none."""
    memory_keys: Annotated[Literal["cached", "fresh"], WITH_PAST] = "cached"
    """Of the steps before a batch: those that replay keeps, or the observations encoded anew."""
    positions: Annotated[Literal["rank", "age", "none"], WITH_PAST] = "rank"
    """Of recalled steps: chronological rank among them, age, or nothing."""
    actions: Annotated[Literal["encoded", "none"], WITH_MEMORY] = "encoded"
    """Whether a recalled step brings the action taken there."""
    bottleneck: Annotated[Literal["gaussian", "none"], WITH_MEMORY] = "gaussian"
    """Of what was recalled (Eq. 6)."""
    bottleneck_width: Annotated[Count, only(branches=MEMORY, bottleneck="gaussian"), only(co_bottleneck="gaussian")] = (
        20
    )
    """Numbers that pass it."""
    bottleneck_hidden: Annotated[
        Count, only(branches=MEMORY, bottleneck="gaussian"), only(co_bottleneck="gaussian")
    ] = 256
    """Width of its hidden layers."""
    memory_decoder: Annotated[Literal["softmax", "squared", "none"], WITH_MEMORY] = "softmax"
    """Loss of the memory decoder: the literal cross-entropy of softmaxes, mean squared error, or no decoder."""
    memory_scale: Annotated[float, only(branches=MEMORY, memory_decoder=("softmax", "squared"))] = 1.0
    """Scale of the memory decoder's loss."""
    diagnose_every: Annotated[int, Bounds(least=0), WITH_MEMORY] = 100
    """Updates between two looks at what recall does; 0: none."""
    # losses
    free_nats: float = 1.0
    """Free nats of both KL terms, shared by the branches."""
    reconstruction_scale: float = 1.0
    """Scale of every observation loss."""
    dyn_scale: float = 0.5
    """Scale of the dynamics KL."""
    rep_scale: float = 0.1
    """Scale of the representation KL."""
    replay_value_scale: Annotated[float, only(behaviour=True, team=False)] = 0.0
    """Scale of the critic's loss on replayed latents; 0 leaves it out, as the paper does."""
    # behaviour
    horizon: Annotated[Horizon, WITH_BEHAVIOUR] = 15
    """Steps of imagination."""
    dream_last: Annotated[LastSteps, WITH_BEHAVIOUR] = 0
    """The last steps of each row from which dreams start; 0, or more than the row has: every step."""
    discount_horizon: Annotated[float, Bounds(above=1)] = 333.0
    """1 / (1 - discount)."""
    lam: Annotated[Rate, WITH_BEHAVIOUR] = 0.95
    """Lambda of the returns."""
    entropy: Annotated[float, WITH_BEHAVIOUR] = 3e-4
    """Scale of the policy's entropy."""
    actor_unimix: Share = 0.01
    """Uniform share of discrete policies."""
    actor_outscale: Annotated[float, only(team=False), only(policy="decentralised")] = now(1.0, was=0.01)
    """Scale at which the policy's last layer begins: 1 in the paper's code base, 0.01 in DreamerV3 of 2025."""
    slow_rate: Annotated[Rate, only(behaviour=True, team=False)] = 0.02
    """Rate at which the slow critic follows."""
    # a team's behaviour, PPO in dreams; one agent learns by DreamerV3's actor-critic
    policy: Annotated[Literal["mat", "decentralised"], only(team=True)] = now("mat", was="mat")
    """The Multi-Agent Transformer, which hears of all agents when it acts; or a policy of each agent's own latent, with a
    critic that hears of all."""
    agent_order: Annotated[Literal["fixed", "random"], only(team=True, policy="mat")] = now("fixed", was="fixed")
    """In which the transformer's agents choose: the environment's, or one drawn anew for every update."""
    mat_width: Annotated[Count, only(team=True)] = now(128, was=128)
    """Of the transformer's tokens, and of the decentralised policy's critic."""
    mat_blocks: Annotated[Layers, only(team=True)] = now(1, was=1)
    """Attention blocks of its encoder and of its decoder."""
    mat_heads: Annotated[Count, only(team=True)] = now(4, was=4)
    """Attention heads."""
    identity: Annotated[bool, only(team=True)] = now(False, was=False)
    """Whether a token says which agent it is."""
    masks: Annotated[Literal["mode", "sample"], only(team=True, behaviour=True)] = now("mode", was="mode")
    """Available actions of a dream: what is more likely than not, or sampled by their probabilities."""
    absent: Annotated[Literal["team", "own"], only(team=True)] = now("team", was="team")
    """What a dead agent's continuation is: the team's, so that it is credited with what the others earn after it; or 0."""
    credit: Annotated[Literal["mean", "own"], only(team=True, behaviour=True)] = now("mean", was="mean")
    """Each agent dreams of the team's reward by itself: all are credited with the mean of that, or each with its own."""
    epochs: Annotated[Count, only(team=True, behaviour=True)] = now(5, was=5)
    """Of PPO on each dream."""
    ppo_clip: Annotated[float, Bounds(above=0), only(team=True, behaviour=True)] = now(0.2, was=0.2)
    """How far the ratio may go."""
    actor_lr: Annotated[float, only(team=True, behaviour=True)] = now(3e-4, was=3e-4)
    """Adam's learning rate, of policy and critic."""
    actor_grad_clip: Annotated[Norm, only(team=True, behaviour=True)] = now(10.0, was=10.0)
    """Bound of their gradient's norm."""
    advantage_floor: Annotated[float, Bounds(above=0), only(team=True, behaviour=True)] = now(1e-5, was=1e-5)
    """A floor under the spread by which advantages are divided."""
    chunks: Annotated[Count, only(team=True, behaviour=True)] = now(1, was=1)
    """Parts in which a PPO epoch is computed, to save memory; the gradient is that of the whole."""
    model_first: Annotated[int, only(team=True, behaviour=True)] = now(0, was=0)
    """First updates in which the world model alone learns."""
    # optimiser
    optimiser: Literal["adam", "laprop"] = "adam"
    """Adam with the paper's norm clips (1000 for the world model, 100 for actor and critic), or DreamerV3's LaProp."""
    lr: float = 4e-5
    """Learning rate."""
    warmup: Annotated[int, only(optimiser="laprop")] = 1000
    """Updates over which LaProp's learning rate rises from 0."""
    agc: Annotated[Norm, only(optimiser="laprop")] = 0.3
    """Bound of LaProp's adaptive gradient clipping."""
    agc_policy: Annotated[Literal["tensor", "layer"], only(optimiser="laprop", team=False)] = now("tensor", was="layer")
    """What of a policy's last layer is clipped by itself: means, deviations and every component's logits (the reference's
    tensors), or the layer whole."""
    # environment
    protocol: Literal["dreamerv3", "storm"] = "dreamerv3"
    """Atari 100k protocol: DreamerV3's (no sticky actions, random no-ops) or STORM's (sticky, life loss)."""

    @property
    def mistake(self) -> str:
        """A bottleneck of what is not seen."""
        if self.branches == "mg" and self.co_bottleneck != "none":
            return "co_bottleneck is of the current observation, which branches mg does not see: leave out one of them"
        return ""

    @property
    def settled(self) -> Config:
        return replace(self, model_first=0, diagnose_every=0)
