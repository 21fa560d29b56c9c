"""Which pixels a decoder moves when the latent moves: in any direction, or in the one that changes the value most.

J = dD/dz is the decoder's Jacobian by z, the state or a part of it. Value alignment's Figure 3 shows such maps and gives no
formula; these are ours. Sizes: N frames, H W C image, S x K stochastic, P probes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from wm_core import draws

Decode = Callable[[Tensor], Tensor]  # z (N, S, K), or any (N, ...) -> images (N, H, W, C)
Value = Callable[[Tensor], Tensor]  # the same -> values (N,)
STEP = 1e-6


@torch.no_grad()
def along(decode: Decode, z: Tensor, direction: Tensor) -> Tensor:
    """J u, (N, H, W, C), by a difference over both sides: z and u (N, ...) in float64, or rounding is what is seen.

    Not by forward-mode differentiation: an operator without such a rule hands on zeros there, without a word.

    >>> z = torch.ones(1, 1, 1, dtype=torch.float64)
    >>> round(along(lambda z: z.square()[..., None], z, torch.ones_like(z)).item(), 6)
    2.0
    """
    step = STEP * direction
    return (decode(z + step) - decode(z - step)) / (2 * STEP)


def plain(decode: Decode, z: Tensor, probes: int = 64) -> Tensor:
    """S = sqrt(sum_c sum_k J_ck^2), (N, H, W): the mean of (J u)^2 over P standard normal u, without forming J.

    Its relative error is about sqrt(1 / 2P) at a pixel that follows one direction, less at others.

    >>> z = torch.ones(2, 4, 3, dtype=torch.float64)
    >>> grey = lambda z: z.flatten(1)[:, :4].reshape(-1, 2, 2, 1) * 3.0  # each pixel 3 times an entry of z
    >>> plain(grey, z, probes=2000).shape, bool((plain(grey, z, probes=2000) - 3).abs().max() < 0.3)
    (torch.Size([2, 2, 2]), True)
    """
    total: Tensor | float = 0.0
    for _ in range(probes):
        total = total + along(decode, z, draws.normal(z.shape, z.device).to(z)).square().sum(-1)
    return torch.as_tensor(total / probes).sqrt()


def weighted(decode: Decode, value: Value, z: Tensor) -> Tensor:
    """W = sum_c |J g / |g||_c, (N, H, W), with g = dv/dz; zero where the value does not depend on z.

    >>> z = torch.ones(1, 2, 2, dtype=torch.float64)
    >>> weighted(lambda z: z[..., None], lambda z: 5 * z[:, 0, 1], z).squeeze().round(decimals=6).tolist()
    [[0.0, 1.0], [0.0, 0.0]]
    """
    with torch.enable_grad():
        place = z.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(value(place).sum(), place)
    length = gradient.flatten(1).norm(dim=1).reshape(-1, *(1 for _ in z.shape[1:]))
    return along(decode, z, torch.where(length > 0, gradient / length, 0.0)).abs().sum(-1)


def share(maps: Tensor, where: Tensor) -> float:
    """The mean over frames of the part of a map's mass that lies at the marked pixels; nan if there is no such frame.

    maps and where (N, H, W); frames without mass, or without a marked pixel, do not count.

    >>> share(torch.tensor([[[3.0, 1.0]], [[0.0, 0.0]]]), torch.tensor([[[False, True]], [[True, True]]]))
    0.25
    """
    mass = maps.flatten(1).sum(1)
    counted = (mass > 0) & where.flatten(1).any(1)
    return float(((maps * where).flatten(1).sum(1)[counted] / mass[counted]).mean())
