"""Posterior and prior -> how much each latent tells, and which of its classes are ever used.

Sizes: N steps, S latents of K classes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from wm_core.health import DEAD


@torch.no_grad()
def codes(post: Tensor, prior: Tensor) -> dict[str, Any]:
    """Of normalised log-probabilities (N, S, K): KL[post || prior] of each latent in nats, the largest first; their sum; how
    many latents tell less than 0.01 nat; the share of the S * K classes that are the posterior's mode nowhere; and the mean
    entropy of the posterior, summed over latents.

    >>> half, sure = torch.tensor([0.5, 0.5]).log(), torch.tensor([0.999, 0.001]).log()
    >>> found = codes(torch.stack([sure, half])[None], half.expand(1, 2, 2))
    >>> [round(one, 3) for one in found["kl"]], found["dead_latents"], found["dead_codes"]
    ([0.685, 0.0], 1, 0.5)
    """
    post, prior = post.double(), prior.double()
    probability = post.exp()
    kl = (probability * (post - prior)).sum(-1).mean(0)  # (S,)
    modes = post.argmax(-1)  # (N, S)
    used = torch.zeros(post.shape[1:]).scatter_(1, modes.T, 1.0)
    return {
        "kl": kl.sort(descending=True).values.tolist(),
        "kl_sum": kl.sum().item(),
        "dead_latents": int((kl < DEAD).sum()),
        "latents": post.shape[1],
        "dead_codes": 1 - used.mean().item(),
        "posterior_entropy": -(probability * post).sum((-2, -1)).mean().item(),
    }
