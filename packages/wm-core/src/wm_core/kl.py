"""dyn = KL[sg(post) || prior], rep = KL[post || sg(prior)], each with free nats: the balanced KL of the Dreamers."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from wm_core.ranks import ranks


def categorical_kl(left: Tensor, right: Tensor) -> Tensor:
    """KL[left || right] of normalised log-probabilities (..., S, K), summed over the S latents: (...).

    >>> import torch
    >>> p, q = torch.log(torch.tensor([[0.5, 0.5]])), torch.log(torch.tensor([[0.9, 0.1]]))
    >>> round(categorical_kl(p, q).item(), 4)
    0.5108
    """
    return (left.exp() * (left - right)).sum((-2, -1))


class BalancedKL:
    """Both directions of the KL, clipped from below at `free` nats, where the gradient ends.

    clip "step" clips each (b, t) (DreamerV3), "mean" clips the batch mean and expands it (STORM). The third value is
    the raw KL: per step, or the mean expanded, whichever the clip follows.
    """

    def __init__(self, free: float = 1.0, clip: Literal["step", "mean"] = "step") -> None:
        self.free, self.mean = free, clip == "mean"

    def __call__(self, post: Tensor, prior: Tensor, weight: Tensor | None = None) -> tuple[dict[str, Tensor], Tensor]:
        """post, prior (B, T, S, K) log-probabilities, weight (B, T) -> {"dyn": (B, T), "rep": (B, T)}, raw (B, T)."""
        dyn = categorical_kl(post.detach(), prior)
        rep = categorical_kl(post, prior.detach())
        if self.mean:
            weight = dyn.new_ones(()).expand_as(dyn) if weight is None else weight
            to_prior, to_post, weights = ranks().sums((dyn * weight).sum(), (rep * weight).sum(), weight.sum())
            dyn, rep = (to_prior / weights).expand_as(dyn), (to_post / weights).expand_as(rep)
        return {"dyn": dyn.clamp(min=self.free), "rep": rep.clamp(min=self.free)}, rep.detach()
