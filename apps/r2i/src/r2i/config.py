"""Every number of R2I; presets and the command line fill them. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from wm_run.bounds import Bounds, Count, Horizon, LastSteps, Layers, Norm, Rate, RowLength, Share
from wm_run.config import RunConfig, now
from wm_run.unread import only

# deter, width, state, ssm_layers, units, layers, depth: the small ones are ours, the others released configurations
SIZES: Mapping[str, Mapping[str, int]] = {
    "1m": {"deter": 128, "width": 128, "state": 64, "ssm_layers": 2, "units": 128, "layers": 2, "depth": 8},
    "12m": {"deter": 512, "width": 512, "state": 128, "ssm_layers": 3, "units": 256, "layers": 2, "depth": 16},
    "atari": {"deter": 512, "width": 512, "state": 128, "ssm_layers": 4, "units": 512, "layers": 2, "depth": 32},
    "maze": {"deter": 2048, "width": 1024, "state": 512, "ssm_layers": 5, "units": 1024, "layers": 4, "depth": 48},
}

WITH_BEHAVIOUR = only(behaviour=True)


@dataclass(frozen=True)
class Config(RunConfig):
    """Every number of R2I; the defaults are the released settings for Atari 100k."""

    batch: Count = 4
    """Rows of a replay batch."""
    length: RowLength = 1024
    """Steps of a row."""
    # sequence model
    deter: Count = 512
    """Width of h, the sequence model's output."""
    width: Count = 512
    """Width of the tokens and of every S5 layer; also of the hidden layer of posterior and prior."""
    state: Annotated[int, Bounds(least=1, most=8192, why="must lie in [1, 8192]: a spectrum of more takes hours")] = 128
    """Complex states of an S5 layer."""
    ssm_layers: Layers = 4
    """S5 layers."""
    ssm_blocks: Count = 8
    """HiPPO blocks in which a layer's spectrum begins."""
    discretise: Literal["bilinear", "zoh"] = "bilinear"
    """How the recurrence is discretised (zero-order hold in bsuite)."""
    initial: Literal["learned", "zero"] = "learned"
    """The state with which a sequence begins."""
    start_stoch: Annotated[Literal["state", "mode"], only(initial="zero")] = now("state", was="mode")
    """z before an episode: "state" is zero where the initial state is zero, else the prior's mode (released); "mode" is
    the prior's mode in both cases."""
    resets: Literal["first", "never"] = "first"
    """Does an episode's first step reset the state inside a row? "never" does so only in acting (released for bsuite)."""
    c_scale: float = 1.0
    """Factor on C as drawn: the released code's C is sqrt(width) times smaller than that of S5's authors."""
    negative: bool = False
    """Hold real parts of the spectrum negative, so that the recurrence cannot explode."""
    prior_layers: Layers = 1
    """Hidden layers of the prior."""
    posterior: Literal["parallel", "recurrent"] = "parallel"
    """Does z see h? "recurrent" does, as in Dreamer, and runs step by step (an ablation)."""
    stoch: Count = 32
    """Number of stochastic latents."""
    classes: Count = 32
    """Classes of each stochastic latent."""
    unimix: Share = 0.01
    """Uniform share of posterior and prior."""
    # encoder, decoder, heads
    depth: Annotated[Count, only(images=True)] = 32
    """Channel unit of the convolutions."""
    encoder_units: Annotated[Count, only(vectors=True)] = 1024
    """Width of the encoder's and decoder's layers for vectors."""
    encoder_layers: Annotated[Layers, only(vectors=True)] = 5
    """Layers of the encoder and decoder for vectors."""
    discrete_observations: Literal["vector", "categorical"] = now("vector", was="categorical")
    """Discrete observations: one-hot vectors like others, squashed and with a squared error (released), or plain one-hots
    predicted as categoricals."""
    units: Count = 512
    """Width of the layers of heads, policy and critic."""
    layers: Layers = 2
    """Layers of heads, policy and critic."""
    policy_input: Literal["output", "hidden", "full"] = "full"
    """What policy and critic read: (h, z), (z, x), or (h, z, x), with x the states of all S5 layers."""
    # losses
    free_nats: float = 1.0
    """Free nats of both KL terms."""
    reconstruction_scale: float = 1.0
    """Scale of every observation loss."""
    dyn_scale: float = 0.5
    """Scale of the dynamics KL."""
    rep_scale: float = 0.1
    """Scale of the representation KL."""
    time_outs: Literal["truncate", "terminate"] = "truncate"
    """Does the continue head learn that a time-out ends the episode? In the released adapter for gym it does."""
    dream_continue: Literal["mode", "mean"] = now("mode", was="mean")
    """What a dream makes of the continue head: whether the episode goes on, yes or no (released), or the probability."""
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
    actor_outscale: float = now(1.0, was=0.01)
    """Scale at which the policy's last layer begins: 1 as released, 0.01 as in DreamerV3 of 2025."""
    actor_grad: Literal["auto", "reinforce", "dynamics"] = now("auto", was="reinforce")
    """How the policy learns: by REINFORCE, or for continuous actions by the gradient of its dreams, through the dynamics;
    "auto" is the latter where all actions are continuous, as released."""
    slow_rate: Annotated[Rate, WITH_BEHAVIOUR] = 0.02
    """Rate at which the slow critic follows."""
    # optimisers: Adam, each with a norm of its own
    lr: float = 1e-4
    """Learning rate of the world model."""
    clip: Norm = 1000.0
    """Gradient norm of the world model, and of each name of the S5 tensors by itself."""
    ssm_lr: float = 1e-4
    """Learning rate of the S5 tensors (spectrum, B, C, D, step)."""
    actor_lr: Annotated[float, WITH_BEHAVIOUR] = 3e-5
    """Learning rate of the policy."""
    actor_clip: Annotated[Norm, WITH_BEHAVIOUR] = 100.0
    """Gradient norm of the policy."""
    critic_lr: Annotated[float, WITH_BEHAVIOUR] = 3e-5
    """Learning rate of the critic."""
    critic_clip: Annotated[Norm, WITH_BEHAVIOUR] = 100.0
    """Gradient norm of the critic."""
    warmup: int = 0
    """Updates over which every learning rate rises from 0."""
    # environment
    resize: Literal["opencv-area", "pillow-bilinear"] = now("opencv-area", was="pillow-bilinear")
    """How Atari's frames become 64 x 64: by area, as released, or as in DreamerV3 of 2025. Its 30 no-ops are both's."""
