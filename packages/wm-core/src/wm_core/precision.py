"""Losses and norms are never computed in half precision."""

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F


def wide(x: Tensor) -> Tensor:
    """x in float32; float64 stays, so that laws can be checked in it.

    >>> import torch
    >>> wide(torch.zeros(1, dtype=torch.bfloat16)).dtype, wide(torch.zeros(1, dtype=torch.float64)).dtype
    (torch.float32, torch.float64)
    """
    return x if x.dtype.itemsize == 8 and x.is_floating_point() else x.float()


@cache
def casts_keep_gradients() -> bool:
    """Whether a weight that autocast has cast under no_grad, and kept, has a gradient where it is used again.

    In older releases of torch it has none for the rest of the region (pytorch issue 158232, mended by pull request
    165068), and an update acts and dreams without gradient in the same region in which it learns: there, nothing may be
    kept. It is tried once, for a release does not say.
    """
    weight = torch.ones(1, 1, requires_grad=True)
    with torch.enable_grad(), torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            F.linear(weight.detach(), weight)
        return F.linear(weight.detach(), weight).requires_grad
