"""x W' + b by the faster of the two libraries for matrix products that torch carries: layers, forward and backward.

Read `wm_core.plain.linear` and `blocks` first: they say all that is computed here. On a CPU torch takes MKL for products in float32 and oneDNN for convolutions. MKL leaves half of an AMD processor's speed
unused, oneDNN does not. Which of them is taken depends on the processor and on sizes alone, never on a measured time: a
resumed run rounds like the run it continues. Everything here is plain torch where `faster` says no.

Sizes: N rows, I inputs, O outputs, G blocks.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wm_core.fast.resting import kept

ROWS, SIDE, WORK = 16, 4, 2**20  # with fewer rows, inputs or outputs, or multiplications, MKL is as fast or faster
PIXELS = 16  # rows that pass for the pixels of one image: of the sizes tried, the one at which oneDNN is quickest
# The operators that torch's own compiler calls; there is no public name that leads to them.
_linear, _convolution, _convolution_, _pack = (
    getattr(torch.ops.mkldnn, name, None)
    for name in (
        "_linear_pointwise",
        "_convolution_pointwise",
        "_convolution_pointwise_",
        "_reorder_convolution_weight",
    )
)
POINT = [0, 0], [1, 1], [1, 1]  # padding, stride and dilation of a convolution of single points


@cache
def available() -> bool:
    """Whether this torch has the operators of oneDNN; torch's FLOP counter knows them from then on."""
    if not torch.backends.mkldnn.is_available() or None in (_linear, _convolution, _convolution_, _pack):
        return False
    from torch.utils.flop_counter import flop_registry, register_flop_formula

    for operator in (_linear, _convolution, _convolution_):
        if operator not in flop_registry:
            register_flop_formula(operator, get_raw=True)(_flops)
    return True


def _flops(*args: Any, out_val: Tensor, **_: Any) -> int:
    tensors, groups = [arg for arg in args if isinstance(arg, Tensor)], [arg for arg in args if type(arg) is int]
    inputs = tensors[1] if tensors[0] is out_val else tensors[0]  # what is added to in place comes first
    if inputs.dim() == 4 and groups:
        return 2 * out_val.numel() * (inputs.shape[1] // groups[0])
    return 2 * out_val.numel() * inputs.shape[-1]


@cache
def faster() -> bool:
    """Whether oneDNN is the faster one here: on an AMD processor with AVX-512, if torch has both libraries.

    >>> faster() in (True, False)
    True
    """
    asked: Any = getattr(torch.cpu, "get_capabilities", dict)()
    amd = str(asked.get("cpu_name", "")).startswith("AMD") and bool(asked.get("avx512_f"))
    return amd and torch.backends.mkl.is_available() and available()


def suits_onednn(rows: int, *tensors: Tensor) -> bool:
    """Whether oneDNN should make the product of `rows` rows with these tensors, the last of them the weight."""
    return (
        rows >= ROWS
        and min(tensors[-1].shape[-2:]) >= SIDE
        and rows * tensors[-1].numel() >= WORK
        and all(x.dtype is torch.float32 and x.device.type == "cpu" for x in tensors)
        and faster()
        and bool(torch.backends.mkldnn.enabled)
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (..., I), weight (O, I), bias (O,) -> (..., O), like `torch.nn.functional.linear`, and as often differentiable.

    >>> x, weight = torch.randn(64, 256), torch.randn(128, 256)
    >>> torch.allclose(linear(x, weight), x @ weight.t(), atol=1e-3)
    True
    """
    if not suits_onednn(x.shape[:-1].numel(), x, weight):
        return F.linear(x, weight, bias)
    if torch.is_grad_enabled() and any(given is not None and given.requires_grad for given in (x, weight, bias)):
        out: Tensor = _Linear.apply(x, weight, bias)
        return out
    return _onednn(x.contiguous(), weight, bias)


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if not (weight.is_contiguous() or weight.t().is_contiguous()):
        weight = weight.contiguous()  # rows with gaps between them are left to a reference, a thousand times slower
    out: Tensor = _linear(x, weight, bias, "none", [], "")  # type: ignore[misc]
    return out


class _Linear(torch.autograd.Function):
    """The gradients are linear layers too: d x = d y W, d W = d y' x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        x = x.contiguous()
        ctx.save_for_backward(x, weight)
        return _onednn(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        rows = grad.reshape(-1, grad.shape[-1])
        return (
            linear(grad, weight.t()) if ctx.needs_input_grad[0] else None,
            linear(rows.t(), x.reshape(-1, x.shape[-1]).t()) if ctx.needs_input_grad[1] else None,
            rows.sum(0) if ctx.needs_input_grad[2] else None,
        )


class Linear(nn.Linear):
    """`torch.nn.Linear` by `linear`: the same parameters, initialised alike.

    >>> Linear(3, 5)(torch.zeros(2, 3)).shape
    torch.Size([2, 5])
    """

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def prepared(weight: Tensor, rows: int) -> Tensor:
    """A weight (G, I, O) as `blocks` and `add_blocks` read it fastest for so many rows, while weights rest.

    It is the weight itself, or a copy in oneDNN's order of bytes, which pays if it is made `once` for several products.
    """
    if not kept() or torch.is_grad_enabled() or rows % PIXELS or not suits_onednn(rows, weight):
        return weight
    groups, inputs, outputs = weight.shape
    taps = weight.mT.reshape(groups * outputs, inputs, 1, 1)
    packed: Tensor = _pack(taps, *POINT, groups, [rows // PIXELS, groups * inputs, PIXELS, 1])  # type: ignore[misc]
    return packed


def blocks(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x (N, G, I), a `prepared` weight (G, I, O), bias (G, 1, O) -> x W + b for each block, (N, G, O).

    >>> x, weight, bias = torch.randn(32, 4, 16), torch.randn(4, 16, 8), torch.randn(4, 1, 8)
    >>> torch.allclose(blocks(x, weight, bias), torch.einsum("ngi,gio->ngo", x, weight) + bias[:, 0], atol=1e-4)
    True
    """
    if not weight.is_mkldnn:
        return torch.baddbmm(bias, x.transpose(0, 1), weight).transpose(0, 1)
    out: Tensor = _convolution(pixels(x), weight, bias.flatten(), *POINT, x.shape[1], "none", [], "")  # type: ignore[misc]
    return out.permute(0, 2, 3, 1).reshape(*x.shape[:2], -1)


def add_blocks(to: Tensor, x: Tensor, weight: Tensor) -> None:
    """to (N, G, O) += x W for each block, in place: x (N, G, I), a `prepared` weight (G, I, O)."""
    if not weight.is_mkldnn:
        to.transpose(0, 1).baddbmm_(x.transpose(0, 1), weight)
    else:
        _convolution_(pixels(to), pixels(x), weight, None, *POINT, x.shape[1], "add", 1.0, None, [], None)  # type: ignore[misc]


def pixels(x: Tensor) -> Tensor:
    """Rows (N, G, C) as images (N / 16, G * C, 16, 1) whose channels lie together: a view, if the rows do."""
    return x.reshape(-1, PIXELS, 1, x.shape[1] * x.shape[2]).permute(0, 3, 1, 2)
