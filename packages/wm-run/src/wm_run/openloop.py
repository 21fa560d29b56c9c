"""Observe a context, then imagine under the true actions: how far the dream stays true.

Sizes: B rows, T steps, H W C image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from wm_core import draws
from wm_core.agent import Agent
from wm_core.types import Batch, Latent
from wm_core.world import stack


@dataclass(frozen=True)
class OpenLoop:
    """One observation, true and predicted: an image (B, T, H, W, C) float32 in [0, 1], a vector (B, T, X), or numbers of
    discrete values (B, T, X).

    The first `context` steps are observed.
    """

    key: str
    true: Tensor
    predicted: Tensor
    context: int
    valid: Tensor  # (B, T) bool: False from the first reset after the context on, where no prediction is asked
    imagined: Latent | None = None  # (B, T - context, ...), what was decoded after the context
    discrete: bool = False

    @property
    def image(self) -> bool:
        """Whether there is something to look at."""
        return self.true.ndim == 5

    def error(self) -> Tensor:
        """Mean squared error of the prediction (of pixels, or entries; of discrete values the share that is wrong) at each
        step after the context: (T - context,)."""
        return self._mean(self.predicted)

    def copy_error(self) -> Tensor:
        """The same for repeating what was observed last."""
        return self._mean(self.true[:, self.context - 1 : self.context])

    def horizons(self, ahead: Sequence[int] = (1, 5, 15, 45), key: str = "") -> dict[str, float]:
        """For the log: health/openloop<key>_<steps ahead> beside health/openloop_copy<key>_<steps ahead>, where a row
        reaches.

        >>> true = torch.tensor([[[0.0], [1.0], [3.0]]])  # one row: a step of context, two ahead
        >>> OpenLoop("vector", true, true + 0.5, 1, torch.tensor([[True, True, False]])).horizons((1, 2))
        {'health/openloop_1': 0.25, 'health/openloop_copy_1': 1.0}
        """
        model, copy = self.error().tolist(), self.copy_error().tolist()
        reached = self.valid[:, self.context :].any(0).tolist()
        found: dict[str, float] = {}
        for one in ahead:
            if one <= len(reached) and reached[one - 1]:
                found |= {f"health/openloop{key}_{one}": model[one - 1]}
                found |= {f"health/openloop_copy{key}_{one}": copy[one - 1]}
        return found

    def _mean(self, said: Tensor) -> Tensor:
        wrong = (said != self.true).float() if self.discrete else (said - self.true).square()
        each = wrong.flatten(2).mean(-1)[:, self.context :]
        valid = self.valid[:, self.context :].float()
        return (each * valid).sum(0) / valid.sum(0).clamp(min=1)


@torch.no_grad()
def openloop(agent: Agent, batch: Batch, context: int, *, seed: int = 0) -> dict[str, OpenLoop]:
    """Open-loop prediction of every observation that the agent decodes: images first, then vectors, then discrete values.

    The first `context` steps are observed, the rest imagined under the batch's actions; what was drawn depends on
    `seed` alone, so the agent's own generator is not touched.
    """
    batch = agent.folded(agent.to_device(batch))
    training, world = agent.training, agent.world
    agent.eval()
    entries = batch.steps
    steps = {key: value[:, :context] for key, value in entries.items()}
    rows = len(entries["first"])
    with draws.drawing(draws.Generator(seed, agent.device)), agent.computing():
        trace = world.observe(world.prefill(batch.past, rows), steps)
        decoded = world.decoder(trace.latent)
        carry, _ = world.dynamics.starts(trace, 1)
        latents = []
        for action in entries["action"][:, context:].unbind(1):
            carry, latent = world.imagine(carry, action)
            latents.append(latent)
        imagined: Latent = stack(latents)
        ahead = world.decoder(imagined)
        predicted = {key: torch.cat([decoded[key].mode(), ahead[key].mode()], 1) for key in decoded}
    agent.train(training)
    fresh = entries["first"].clone()
    fresh[:, :context] = False
    valid = fresh.cumsum(1) == 0
    found = [
        OpenLoop(
            key,
            _as_decoded(entries[key], said),
            said.float(),
            context,
            valid,
            imagined,
            not said.is_floating_point(),
        )
        for key, said in predicted.items()
    ]
    return {one.key: one for one in sorted(found, key=lambda one: (not one.image, one.discrete, one.key))}


def _as_decoded(true: Tensor, predicted: Tensor) -> Tensor:
    """The observation in the units and the shape of its prediction."""
    return true.float() / 255 if predicted.ndim == 5 else true.reshape(predicted.shape).float()
