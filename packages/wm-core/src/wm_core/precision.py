"""Losses and norms are never computed in half precision."""

from torch import Tensor


def wide(x: Tensor) -> Tensor:
    """x in float32; float64 stays, so that laws can be checked in it.

    >>> import torch
    >>> wide(torch.zeros(1, dtype=torch.bfloat16)).dtype, wide(torch.zeros(1, dtype=torch.float64)).dtype
    (torch.float32, torch.float64)
    """
    return x if x.dtype.itemsize == 8 and x.is_floating_point() else x.float()
