"""x / rms(x) * scale, and SiLU after it, in few passes over memory: the pair that follows every layer of DreamerV3.

Read `wm_core.plain.norm_silu` first. torch has no kernel for either on a CPU: its own way is six passes forward and twelve backward, so here the gradient is
written out. Sizes: C the last axis.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from wm_core.fast.resting import once
from wm_core.precision import wide

EPS = 1e-4


class RMSNorm(nn.Module):
    """x / rms(x) * scale over the last axis, computed in float32, no shift; eps 1e-4 inside the root.

    >>> RMSNorm(4)(torch.full((2, 4), 3.0))[0, 0].item()  # doctest: +ELLIPSIS
    0.9999...
    """

    floor: Tensor

    def __init__(self, width: int, eps: float = EPS) -> None:
        super().__init__()
        self.scale, self.eps = nn.Parameter(torch.ones(width)), eps
        # float64, for a 0-d tensor does not widen what it meets
        self.register_buffer("floor", torch.full((), (width * eps) ** 0.5, dtype=torch.float64), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(wide(x), self.scale.shape, self.scale, self.eps).to(x.dtype)


def root_of(x: Tensor, floor: Tensor) -> Tensor:
    """sqrt(C) * sqrt(mean(x^2) + eps) over the last axis, (..., 1); floor is sqrt(C * eps).

    >>> root_of(torch.tensor([[3.0, 4.0]]), torch.tensor(12.0)).item()
    13.0
    """
    return torch.hypot(torch.linalg.vector_norm(x, dim=-1, keepdim=True), floor)


class _NormSiLU(torch.autograd.Function):
    """silu(unit * scale), unit = x / rms; d unit = (g - unit (unit . g) / C) / rms."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, floor: Tensor) -> Tensor:
        rms = root_of(x, floor).mul_(x.shape[-1] ** -0.5)
        unit = x / rms
        ctx.save_for_backward(unit, rms, scale)
        return F.silu(unit * scale, inplace=True)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        unit, rms, scale = ctx.saved_tensors
        grad = torch.ops.aten.silu_backward(grad, unit * scale)
        along = grad * unit
        dot = along @ scale if scale.dim() == 1 else (along * scale).sum(-1)
        to_scale = along.flatten(0, -1 - scale.dim()).sum(0)
        return grad.mul_(scale).addcmul_(unit, dot[..., None], value=-1 / unit.shape[-1]).div_(rms), to_scale, None


def scaled_silu(x: Tensor, scale: Tensor, norm: RMSNorm) -> Tensor:
    """silu(x / rms(x) * scale) with eps and width from a norm: x (..., C), scale (C,) or (..., C)."""
    tall = wide(x)
    if x.is_cuda:  # there torch has one kernel for the norm, and one for its gradient
        return F.silu(F.rms_norm(tall, x.shape[-1:], None, norm.eps) * scale).to(x.dtype)
    if torch.is_grad_enabled() and (x.requires_grad or scale.requires_grad):
        out: Tensor = _NormSiLU.apply(tall, scale, norm.floor)
    else:
        rise = once(lambda: scale * x.shape[-1] ** 0.5, scale)
        out = F.silu((tall / root_of(tall, norm.floor)).mul_(rise), inplace=True)
    return out.to(x.dtype)


def norm_silu(x: Tensor, norm: RMSNorm) -> Tensor:
    """silu(norm(x)) over the last axis: the same numbers as the two modules, forward and backward, in float32 inside.

    The gradient is first order only.

    >>> norm = RMSNorm(8)
    >>> x = torch.randn(3, 8)
    >>> torch.allclose(norm_silu(x, norm), F.silu(norm(x)), atol=1e-6)
    True
    """
    return scaled_silu(x, norm.scale, norm)
