"""HiPPO-N: the normal part of the HiPPO-LegS matrix, diagonalised. S5 starts from its spectrum."""

from __future__ import annotations

import torch
from torch import Tensor


def hippo_n(size: int) -> tuple[Tensor, Tensor]:
    """Spectrum (size,) and eigenvectors (size, size) of HiPPO-N = HiPPO-LegS + p p^T, p_n = sqrt(n + 1/2).

    A_nk = -sqrt(2n + 1) sqrt(2k + 1) below the diagonal, -(n + 1) on it, 0 above. The sum is -1/2 plus an
    antisymmetric matrix, so that real parts are -1/2 and imaginary parts come in pairs, here from low to high.
    complex128, for the eigenvectors are worth the digits. `size` is even.

    >>> hippo_n(4)[0].imag.round(decimals=3)
    tensor([-4.6030, -0.5570,  0.5570,  4.6030], dtype=torch.float64)
    """
    n = torch.arange(size, dtype=torch.float64)
    root = (2 * n + 1).sqrt()
    legs = -torch.outer(root, root).tril(-1) - torch.diag(n + 1)
    p = (n + 0.5).sqrt()
    normal = legs + torch.outer(p, p)
    turning, vectors = torch.linalg.eigh(-1j * (normal - torch.diag(normal.diagonal())))
    return torch.complex(normal.diagonal().mean().expand(size), turning), vectors
