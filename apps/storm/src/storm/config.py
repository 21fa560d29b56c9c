"""Every number of STORM and of value alignment; presets and the command line fill them. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from wm_run.bounds import Count, Horizon, Layers, Norm, Rate, Share
from wm_run.config import RunConfig, now
from wm_run.unread import only

WITH_VAR, WITH_BEHAVIOUR = only(var=True), only(behaviour=True)


@dataclass(frozen=True)
class Config(RunConfig):
    """Every number of STORM; the defaults are those of its public code."""

    train_ratio: float = 1024.0
    """Replayed steps per policy step: an update every batch * length / train_ratio policy steps; 1024 gives one a step."""
    # model
    width: Count = 512
    """Width of the transformer and of the heads' layers."""
    layers: Layers = 2
    """Blocks of the transformer."""
    heads: Count = 8
    """Attention heads."""
    hidden: Count = 1024
    """Hidden layer of each block."""
    dropout: Share = 0.1
    """Dropout of the transformer, in training."""
    positions: Count = 64
    """Tokens that attention can span, those of a dream included."""
    acting_context: Count = 16
    """Tokens that acting looks back on."""
    stoch: Count = 32
    """Number of stochastic latents."""
    classes: Count = 32
    """Classes of each of them."""
    depth: Annotated[Count, only(images=True)] = 32
    """Channels of the first convolution; the other three double them."""
    unimix: Share = 0.01
    """Uniform share of posterior and prior."""
    # what the public code does, and `--ablation common` does otherwise
    resets: bool = False
    """Whether attention, positions and tokens end with the episode; the public code ignores episode ends."""
    act_on: Literal["prior", "posterior"] = "prior"
    """The state that the policy sees and that a dream starts from: drawn from the prior (public code: the current frame is
    not seen), or from the posterior."""
    value_index: Annotated[Literal["t", "t+1"], WITH_BEHAVIOUR] = "t"
    """Which value the lambda return mixes in at t: V_t as in the public code and the paper's Eq. 7, or V_{t+1}."""
    kl_clip: Literal["mean", "step"] = "mean"
    """Free nats of the batch mean (public code), or of each step."""
    # losses
    free_nats: float = 1.0
    """Free nats of both KL terms."""
    dyn_scale: float = 0.5
    """Scale of the dynamics KL."""
    rep_scale: float = 0.1
    """Scale of the representation KL."""
    # behaviour
    dreams: Count = 1024
    """Rollouts of imagination per update, each from a context of its own."""
    dream_context: Count = 8
    """Observed steps before a dream."""
    horizon: Annotated[Horizon, WITH_BEHAVIOUR] = 16
    """Steps of imagination."""
    discount: Share = 0.985
    """Discount of an imagined step."""
    lam: Annotated[Rate, WITH_BEHAVIOUR] = 0.95
    """Lambda of the returns."""
    entropy: Annotated[float, WITH_BEHAVIOUR] = 3e-4
    """Scale of the policy's entropy."""
    slow_rate: Annotated[Rate, WITH_BEHAVIOUR] = 0.02
    """Rate at which the slow critic follows."""
    # optimisers
    lr: float = 1e-4
    """Learning rate of the world model (Adam)."""
    clip: Norm = 1000.0
    """Bound of its gradient's norm."""
    behaviour_lr: Annotated[float, WITH_BEHAVIOUR] = 3e-5
    """Learning rate of policy and critic (Adam, eps 1e-5)."""
    behaviour_clip: Annotated[Norm, WITH_BEHAVIOUR] = 100.0
    """Bound of their gradient's norm."""
    # value alignment
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
    """Cut the gradient to the transformer's output in both states."""
    # environment
    protocol: Literal["dreamerv3", "storm"] = "storm"
    """Atari 100k protocol: STORM's (sticky, life loss ends the return) or DreamerV3's (no sticky actions, random no-ops)."""
    eval_episode_seed: Annotated[Literal["own", "protocol"], only(protocol="storm")] = now("own", was="protocol")
    """Seeds of Atari's episodes in evaluations: one each, as in the public code's, or as in training, where STORM's protocol
    begins every episode with the same one."""

    @property
    def longest(self) -> int:
        """A dream's context has one step more than it observes: the dream begins at that step."""
        return max(self.length, self.dream_context + 1)

    @property
    def mistake(self) -> str:
        """Values to align with are learned beside the world model."""
        if self.var and not self.behaviour:
            return "var aligns the world model with values, and with --behaviour False none are learned: leave out one of them"
        return ""

    @property
    def computed(self) -> int:
        """Rows have one step more, which only predicts."""
        return self.batch * (self.length + 1)

    def part(self, batch: int, length: int) -> Config:
        """As many dreams less as steps."""
        part = super().part(batch, length)
        assert isinstance(part, Config)
        return replace(part, dreams=max(1, round(self.dreams * part.computed / self.computed)))
