"""Every number of DMAWM; presets and the command line fill them. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from wm_run.bounds import Bounds, Count, Horizon, LastSteps, Layers, Norm, Rate, Share
from wm_run.config import RunConfig, now
from wm_run.unread import only

WITH_BEHAVIOUR = only(behaviour=True)
PATCHED = only(images=True, latents="patches")
NEAREST = only(images=True, latents="patches", codes="nearest")


@dataclass(frozen=True)
class Config(RunConfig):
    """Every number of DMAWM; the defaults are the paper's (Table 2), and where it is silent the README says whose."""

    # agent module
    cell: Literal["gru", "block", "communicating"] = "gru"
    """Recurrent model: a GRU over [z, a] (2023's); DreamerV3's block-diagonal GRU, which a CPU learns faster; or a GRU over
    what a transformer makes of all agents' [z, a], which ends decentralised execution (MAMBA)."""
    deter: Count = 512
    """Width of an agent's deterministic state."""
    hidden: Count = 512
    """Width of the recurrent and the representation model's hidden layer."""
    blocks: Annotated[Count, only(cell="block")] = 8
    """Blocks of the block-diagonal GRU."""
    latents: Annotated[Literal["whole", "patches"], only(images=True)] = now("whole", was="whole")
    """What a latent is of: all that an agent sees, or one patch of its image, `convolutions = "patches"`."""
    stoch: Annotated[Count, only(latents="whole"), only(images=False)] = 32
    """Discrete latents of an agent."""
    classes: Count = 32
    """Classes of each."""
    unimix: Share = 0.01
    """Uniform share of posterior and prior."""
    encoder_units: Annotated[Count, only(vectors=True)] = 512
    """Width of the observation encoder's layers."""
    encoder_layers: Annotated[Layers, only(vectors=True)] = 2
    """Layers of it."""
    depth: Annotated[Count, only(images=True, latents="whole"), only(images=True, codes="learned")] = 32
    """Channel unit of the convolutions."""
    convolutions: Annotated[Literal["strided", "patches"], only(images=True)] = now("strided", was="strided")
    """Four of stride 2 and their transposes (2023's); or one for each patch of a sprite's size and one among patches."""
    patch: Annotated[Count, only(images=True, convolutions="patches")] = now(4, was=4)
    """Side of a patch, in pixels: Melting Pot's sprites have 4 in a view of 44x44."""
    codes: Annotated[Literal["nearest", "learned"], PATCHED] = now("nearest", was="learned")
    """Which class a patch is: that of the nearest in a book of patches that were met, or what nets learn together with
    drawings."""
    novel: Annotated[float, Bounds(above=0), NEAREST] = now(0.005, was=0.005)
    """By how much a patch differs from all in the book to be taken up: squares summed over its numbers, x / 255."""
    map_features: Annotated[Count, PATCHED] = now(32, was=32)
    """Of each place, in the state: half of what stood there, half of what the action carries there."""
    patch_units: Annotated[Count, PATCHED] = now(64, was=64)
    """Width of the layers that places share."""
    places_ask: Annotated[bool, PATCHED] = now(True, was=False)
    """Whether each place of a view asks the agents what they do, by attention, or only the whole view is told."""
    # environment module
    predictor: Literal["transformer", "alone"] = "transformer"
    """Who tells the prior: the interaction predictor, or an MLP for each agent of as many weights (DMAWM-IP)."""
    team_heads: Literal["transformer", "alone"] = "transformer"
    """Who tells reward, continuation and available actions; "alone" is part of DMAWM-IP."""
    width: Count = 512
    """Of the transformers' tokens."""
    feedforward: Count = 1024
    """Of the transformers' hidden layers."""
    layers: Layers = 3
    """Of each transformer."""
    attention_heads: Count = 8
    """Of each transformer."""
    identity: bool = True
    """Whether a token says which agent it is."""
    head_units: Count = 1024
    """Width of the decoders' and the heads' layers."""
    head_layers: Layers = 2
    """Layers of them."""
    heads_input: Literal["h", "hz"] = "h"
    """What reward, continuation, available actions and critic read: equation 2 and 9, or A.3's formula."""
    # losses
    dyn_scale: float = 0.8
    """Scale of the dynamics KL ("cross entropy weight")."""
    rep_scale: float = 0.2
    """Scale of the representation KL ("entropy weight")."""
    free_nats: float = 1.0
    """Free nats of both, an agent and step."""
    reconstruction_scale: float = 1.0
    """Scale of every decoder's loss."""
    # absence
    absorbing: Annotated[int, Bounds(least=0)] = 16
    """Records after a true termination that learn the absorbing state; 0: none (part of DMAWM-AS)."""
    absent: Literal["zero", "team", "muted"] = "zero"
    """A dead agent's continuation: 0 from its death on, or the team's (MAMBA, MAPPO); or its records count for nothing,
    and what it might earn is not asked (DMAWM-AS)."""
    # behaviour
    critic: Literal["transformer", "alone"] = "transformer"
    """The centralised critic, or an MLP for each agent (DMAWM-TC)."""
    actor_units: Count = 512
    """Width of the policy's layers."""
    actor_layers: Layers = 2
    """Layers of it."""
    actor_unimix: Share = 0.0
    """Uniform share of the policy, over the actions that are available."""
    horizon: Annotated[Horizon, WITH_BEHAVIOUR] = 16
    """Steps of imagination."""
    dream_last: Annotated[LastSteps, WITH_BEHAVIOUR] = 0
    """The last steps of each row from which dreams start; 0, or more than the row has: every step."""
    masks: Annotated[Literal["mode", "sample"], WITH_BEHAVIOUR] = "mode"
    """Available actions of a dream: what is more likely than not, or sampled by their probabilities."""
    discount: Annotated[float, Bounds(above=0, most=1)] = 0.99
    """Of future rewards."""
    lam: Annotated[Rate, WITH_BEHAVIOUR] = 0.95
    """Lambda of the advantages."""
    epochs: Annotated[Count, WITH_BEHAVIOUR] = 5
    """Of PPO on each dream."""
    ppo_clip: Annotated[float, Bounds(above=0), WITH_BEHAVIOUR] = 0.2
    """How far the ratio may go."""
    entropy: Annotated[float, WITH_BEHAVIOUR] = 0.01
    """Scale of the policy's entropy."""
    advantage_floor: Annotated[float, Bounds(above=0), WITH_BEHAVIOUR] = 1e-5
    """A floor under the spread by which advantages are divided."""
    value_loss: Literal["twohot", "squared"] = "twohot"
    """A.3's, or equation 9 to the letter."""
    chunks: Annotated[Count, WITH_BEHAVIOUR] = 1
    """Parts in which a PPO epoch is computed, to save memory; the gradient is that of the whole."""
    model_first: Annotated[int, WITH_BEHAVIOUR] = 0
    """First updates in which the world model alone learns."""
    model_updates: Count = now(1, was=1)
    """Steps of the world model's optimiser in an update, each on rows of its own; the policy dreams from the last rows."""
    # optimisers
    lr: float = 1e-4
    """Adam's learning rate, of the world model."""
    grad_clip: Norm = 100.0
    """Bound of every gradient's norm."""
    actor_lr: Annotated[float, WITH_BEHAVIOUR] = 3e-5
    """Of the policy."""
    critic_lr: Annotated[float, WITH_BEHAVIOUR] = 3e-5
    """Of the critic."""
    # environment
    players: Count = 4
    """Of a substrate of Melting Pot."""
    share_reward: Literal["none", "mean", "sum"] = "none"
    """What each of them is given there: its own reward, or the mean or the sum of all."""

    @property
    def mistake(self) -> str:
        """What latents of patches need."""
        if self.latents == "patches" and self.convolutions != "patches":
            return (
                "latents of patches are read from patches: add --convolutions patches, or leave out --latents patches"
            )
        if self.latents == "patches" and self.cell != "block":
            return f"latents of patches have a block-diagonal GRU beside their map, not {self.cell}: add --cell block"
        if self.latents == "patches" and self.map_features % 2:
            return f"map_features is {self.map_features}, of which half are what stood in a place: give an even number"
        return ""

    @property
    def sides(self) -> int:
        """What an image's sides must be multiples of."""
        return self.patch if self.convolutions == "patches" else 1

    @property
    def replayed(self) -> int:
        """Of all steps of the world model."""
        return self.batch * self.length * self.model_updates

    @property
    def settled(self) -> Config:
        return replace(self, model_first=0)
