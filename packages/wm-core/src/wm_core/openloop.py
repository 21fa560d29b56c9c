"""Observe a context, then imagine under the true actions: how far the dream stays true.

Sizes: B rows, T steps, H W C image.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wm_core import draws
from wm_core.agent import Agent
from wm_core.types import Batch, Latent
from wm_core.world import stack


@dataclass(frozen=True)
class OpenLoop:
    """One image key, true and predicted, (B, T, H, W, C) float32 in [0, 1]; the first `context` steps are observed."""

    key: str
    true: Tensor
    predicted: Tensor
    context: int
    valid: Tensor  # (B, T) bool: False from the first reset after the context on, where no prediction is asked

    def error(self) -> Tensor:
        """Mean squared pixel error of the prediction at each step after the context: (T - context,)."""
        return self._mean((self.predicted - self.true).square())

    def copy_error(self) -> Tensor:
        """The same for repeating the last observed frame."""
        return self._mean((self.true[:, self.context - 1 : self.context] - self.true).square())

    def _mean(self, square: Tensor) -> Tensor:
        each = square.flatten(2).mean(-1)[:, self.context :]
        valid = self.valid[:, self.context :].float()
        return (each * valid).sum(0) / valid.sum(0).clamp(min=1)


@torch.no_grad()
def openloop(agent: Agent, batch: Batch, context: int, *, seed: int = 0) -> OpenLoop | None:
    """Open-loop prediction of the first image key of a batch, or None for an agent that sees no image.

    The first `context` steps are observed, the rest imagined under the batch's actions; what was drawn depends on
    `seed` alone, so the agent's own generator is not touched.
    """
    batch = agent.to_device(batch)
    images = [key for key, value in batch.steps.items() if value.dtype == torch.uint8 and value.ndim == 5]
    if not images:
        return None
    training, world = agent.training, agent.world
    agent.eval()
    steps = {key: value[:, :context] for key, value in batch.steps.items()}
    rows = len(batch.steps["first"])
    with draws.drawing(draws.Generator(seed, agent.device)), agent.computing():
        trace = world.observe(world.prefill(batch.past, rows), steps)
        carry, _ = world.dynamics.starts(trace, 1)
        latents = []
        for action in batch.steps["action"][:, context:].unbind(1):
            carry, latent = world.dynamics.imagine(carry, action)
            latents.append(latent)
        imagined: Latent = stack(latents)
        predicted = torch.cat(
            [world.decoder(latent)[images[0]].mode().float() for latent in (trace.latent, imagined)], 1
        )
    agent.train(training)
    fresh = batch.steps["first"].clone()
    fresh[:, :context] = False
    valid = fresh.cumsum(1) == 0
    true = batch.steps[images[0]].float() / 255
    return OpenLoop(images[0], true, predicted, context, valid)
