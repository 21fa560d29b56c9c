"""How well the world model is: numbers for the log, from what an update has computed anyway.

All are 0-d tensors on the device and cost no further forward pass. A metric with a companion `weight/<name>` is a sum
whose weight the companion is; the logger divides one interval's sums, so that a mean over rare steps stays exact.
Sizes: B batch, T time, S latents of K classes, M starts, H horizon.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wm_core.precision import wide

if TYPE_CHECKING:
    from wm_core.contracts import Metrics
    from wm_core.types import Dream, Steps

WEIGHT = "weight/"
DEAD = 0.01  # nats; below it a latent tells the model nothing that the prior did not know


@torch.no_grad()
def latents(post: Tensor, prior: Tensor) -> Metrics:
    """The KL of each latent and the classes in use; post, prior (B, T, ..., S, K) normalised log-probabilities.

    latent/kl before clipping and both entropies, in nats summed over the latents; health/kl_max, the most that one
    latent tells; health/dead_latents, how many tell less than 0.01 nat; health/dead_codes, the share of the S * K
    classes that are the posterior's mode nowhere in the batch. (A sampled class would count the policy's uniform mix
    as use.)

    >>> sure = torch.tensor([0.999, 0.001]).log()
    >>> half = torch.tensor([0.5, 0.5]).log()
    >>> found = latents(torch.stack([sure, half])[None, None], half.expand(1, 1, 2, 2))
    >>> round(found["health/kl_max"].item(), 3), found["health/dead_latents"].item(), found["health/dead_codes"].item()
    (0.685, 1.0, 0.5)
    """
    post, prior = post.detach(), prior.detach()
    probs = post.exp()
    kl = (probs * (post - prior)).sum(-1).flatten(0, -2).mean(0)  # (S,)
    codes = post.argmax(-1).flatten(0, -2).T  # (S, N)
    used = torch.zeros(post.shape[-2:], device=post.device).scatter_(1, codes, 1.0)  # (S, K)
    return {
        "latent/kl": kl.sum(),
        "latent/posterior_entropy": -(probs * post).sum((-2, -1)).mean(),
        "latent/prior_entropy": -(prior.exp() * prior).sum((-2, -1)).mean(),
        "health/kl_max": kl.max(),
        "health/dead_latents": (kl < DEAD).sum().to(kl.dtype),
        "health/dead_codes": 1 - used.mean(),
    }


@torch.no_grad()
def calibration(reward: Tensor, cont: Tensor, steps: Steps, discount: float) -> Metrics:
    """Predicted against arrived rewards and continuations; reward, cont (B, T), the discount inside cont.

    health/reward_bias and reward_mae over all steps, reward_mae_nonzero where the reward is not zero (a model that
    predicts zero everywhere looks good on a sparse task otherwise); health/cont_brier, the mean squared error of the
    probability of going on, cont / discount, and cont_at_end, that probability where episodes truly ended, which
    should be 0.

    >>> steps = {"reward": torch.tensor([[0., 2., 0.]]), "terminal": torch.tensor([[False, False, True]])}
    >>> found = calibration(torch.tensor([[0., 1., 0.5]]), torch.tensor([[0.9, 0.45, 0.18]]), steps, discount=0.9)
    >>> {name.removeprefix("health/"): round(value.item(), 3) for name, value in found.items()}  # doctest: +NORMALIZE_WHITESPACE
    {'reward_bias': -0.167, 'reward_mae': 0.5, 'reward_mae_nonzero': 1.0, 'weight/health/reward_mae_nonzero': 1.0,
     'cont_brier': 0.097, 'cont_at_end': 0.2, 'weight/health/cont_at_end': 1.0}
    """
    error = wide(reward) - steps["reward"]
    paid = (steps["reward"] != 0).to(error.dtype)
    over = steps["terminal"].to(error.dtype)
    on = wide(cont) / discount
    size = error.abs()
    return {
        "health/reward_bias": error.mean(),
        "health/reward_mae": size.mean(),
        "health/reward_mae_nonzero": (size * paid).sum(),
        f"{WEIGHT}health/reward_mae_nonzero": paid.sum(),
        "health/cont_brier": (on - (1 - over)).square().mean(),
        "health/cont_at_end": (on * over).sum(),
        f"{WEIGHT}health/cont_at_end": over.sum(),
    }


@torch.no_grad()
def dreamed(dream: Dream, steps: Steps, discount: float) -> Metrics:
    """`calibration` of a dream's first step: it was predicted at the posterior of the replayed step it started from.

    The dream must come from the last K steps of each row, row b*K + k; its own reward[:, 0] and cont[:, 0] are reused.
    """
    reward = dream.reward[:, 0].unflatten(0, (len(steps["reward"]), -1))
    begun = {name: value[:, -reward.shape[1] :] for name, value in steps.items()}
    return calibration(reward, dream.cont[:, 0].view_as(reward), begun, discount)


@torch.no_grad()
def values(returns: Tensor, value: Tensor, share: Tensor | None = None) -> Metrics:
    """Lambda return minus value, both (M, H): health/value_bias, above zero where the critic promises too little, and
    health/value_mae. share: how much each counts, of mean 1, for a critic that does not learn from all of them.

    >>> found = values(torch.tensor([[3., 1.]]), torch.tensor([[1., 2.]]))
    >>> found["health/value_bias"].item(), found["health/value_mae"].item()
    (0.5, 1.5)
    """
    error = wide(returns) - wide(value)
    error = error if share is None else error * share
    return {"health/value_bias": error.mean(), "health/value_mae": error.abs().mean()}
