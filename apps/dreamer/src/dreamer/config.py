"""Every number of DreamerV3; presets and the command line fill them. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from wm_run.bounds import Bounds, Count, Horizon, LastSteps, Norm, Rate, Share
from wm_run.config import RunConfig, now
from wm_run.unread import only

WITH_VAR, WITH_BEHAVIOUR = only(var=True), only(behaviour=True)


@dataclass(frozen=True)
class Config(RunConfig):
    """Every number of DreamerV3; the defaults are the 12M model under the paper's settings."""

    # model: `--size` sets these five together
    deter: Count = 2048
    """Width of the deterministic state."""
    hidden: Count = 256
    """Width of the dynamics' hidden layers."""
    classes: Count = 16
    """Classes of each stochastic latent."""
    depth: Annotated[Count, only(images=True)] = 16
    """Channel unit of the convolutions."""
    units: Count = 256
    """Width of encoder, decoder and head layers."""
    stoch: Count = 32
    """Number of stochastic latents."""
    blocks: Count = 8
    """Blocks of the block-diagonal GRU."""
    unimix: Share = 0.01
    """Uniform share of posterior and prior."""
    # losses
    free_nats: float = 1.0
    """Free nats of both KL terms."""
    reconstruction_scale: float = 1.0
    """Scale of every observation loss."""
    dyn_scale: float = 1.0
    """Scale of the dynamics KL (0.5 in the 2023 version)."""
    rep_scale: float = 0.1
    """Scale of the representation KL."""
    replay_value_scale: Annotated[float, WITH_BEHAVIOUR] = 0.3
    """Scale of the critic's loss on replayed latents, whose gradient reaches the world model."""
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
    """Uniform share of discrete policies (the reference code has 0)."""
    slow_rate: Annotated[Rate, WITH_BEHAVIOUR] = 0.02
    """Rate at which the slow critic follows."""
    # value alignment: Var's regulariser, in `build` only
    var: bool = False
    """Add value alignment to the world model's losses."""
    var_warmup: Annotated[int, WITH_VAR] = 10_000
    """Agent steps (or updates) before it begins."""
    var_unit: Annotated[Literal["steps", "updates"], WITH_VAR] = "steps"
    """What the warm-up counts."""
    var_dyn: Annotated[float, WITH_VAR] = now(0.5, was=0.5)
    """Scale of its term that draws the prior's value to the posterior's."""
    var_rep: Annotated[float, WITH_VAR] = now(0.1, was=0.1)
    """Scale of its term that draws the posterior's value to the prior's."""
    var_weight: Annotated[float, WITH_VAR] = 0.0
    """A constant weight in place of the adaptive 1 / max(1, KL); 0: adaptive."""
    var_state: Annotated[Literal["sample", "probabilities"], WITH_VAR] = "sample"
    """The prior's stochastic state: a sample, or its probabilities."""
    var_critic: Annotated[Literal["online", "slow"], WITH_VAR] = "online"
    """Whose values are aligned."""
    var_detach: Annotated[bool, WITH_VAR] = False
    """Cut the gradient to the deterministic state in both states."""
    # optimiser
    lr: float = 4e-5
    """Learning rate of LaProp."""
    warmup: int = 1000
    """Updates over which the learning rate rises from 0."""
    agc: Norm = 0.3
    """Bound of adaptive gradient clipping."""
    agc_policy: Literal["tensor", "layer"] = now("tensor", was="layer")
    """What of a policy's last layer is clipped by itself: means, deviations and every component's logits (the reference's
    tensors), or the layer whole."""
    # environment
    protocol: Literal["dreamerv3", "storm"] = "dreamerv3"
    """Atari 100k protocol: DreamerV3's (no sticky actions, random no-ops) or STORM's (sticky, life loss)."""

    @property
    def mistake(self) -> str:
        """Values to align with are learned beside the world model."""
        if self.var and not self.behaviour:
            return "var aligns the world model with values, and with --behaviour False none are learned: leave out one of them"
        return ""
