"""x_t = decay * x_{t-1} + input_t along time, with resets: one operator, its gradient, and the choice of its method.

Read `wm_ssm.plain.plain_scan` first. The gradient is the same recurrence backwards in time: h_t = g_t + conj(decay_{t+1}) h_{t+1}, cut where a reset cuts.
Kept for it are the states alone; nothing grows with T log T. Sizes: T time, B rows, P states.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import Tensor

from wm_ssm.loops import sequential, two_level, waits

METHODS = ("sequential", "two_level", "triton")
CACHED = 1 << 15  # elements of a temporary that stays in a core's cache
NARROW = 1024  # states of a step below which the call costs more than its arithmetic


def linear_scan(
    decay: Tensor,
    input: Tensor,
    start: Tensor,
    reset: Tensor | None = None,
    *,
    carry: Tensor | None = None,
    method: str | None = None,
) -> Tensor:
    """States x_t = decay_t * s_{t-1} + input_t, all of them: (T, B, P). `plain_scan` is the same in straight lines.

    s_{t-1} is `start` where reset_t, else x_{t-1}; s_0 is `carry` (of an earlier chunk), by default `start` too.

    Args:
        decay: (P,), or (T, B, P) for a decay of each step; complex or real, of float32 at least.
        input: (T, B, P), or (T, ..., P) with more axes of rows, or none; any strides.
        start: what a reset puts in place of the past: (P,), or (B, P) for each row.
        reset: (T, B) bool, True where a step begins a new sequence; None for never.
        carry: the state before step 1: (P,) or (B, P).
        method: one of "sequential", "two_level", "triton"; None picks the fastest for device and size. All are exact.

    Raises:
        ValueError: shapes that do not fit, or a method that does not exist.

    Whatever was in the past of a reset, infinite or nan, stays there. Where powers of a decay overflow within a row, a state
    of exactly 0 stays 0 in "sequential" alone; the others may make nan of it. First derivatives alone; `plain_scan` has all.

    >>> decay, ones = torch.tensor([0.5]), torch.ones(4, 1, 1)
    >>> reset = torch.tensor([[False], [False], [True], [False]])
    >>> linear_scan(decay, ones, torch.tensor([0.0]), reset).flatten()
    tensor([1.0000, 1.5000, 1.0000, 1.5000])
    >>> linear_scan(decay, ones, torch.tensor([0.0]), reset, carry=torch.tensor([8.0])).flatten()
    tensor([5.0000, 3.5000, 1.0000, 1.5000])
    """
    decay, input, start, reset, carry = fitted(decay, input, start, reset, carry)
    if method is not None and method not in METHODS:
        raise ValueError(f"no scan is called {method!r}; take one of {', '.join(METHODS)}")
    if len(input) == 1:  # a step of acting or imagination: four small operations, no operator around them
        return _step(decay, input, start, reset, carry)
    rows = input.shape[1:-1]
    if len(rows) != 1:
        x = _operator(
            decay if decay.ndim == 1 else _one_axis(decay),
            _one_axis(input),
            start.reshape(-1, start.shape[-1]),
            None if reset is None else reset.reshape(len(input), -1),
            carry.reshape(-1, start.shape[-1]),
            method or choose(input),
        )
        return x.reshape(input.shape)
    return _operator(decay, input, start, reset, carry, method or choose(input))


def choose(input: Tensor) -> str:
    """The method for an input (T, B, P): Triton's kernel on CUDA, else what `tools/bench scan` found faster."""
    if input.is_cuda:
        return "triton" if input.is_complex() and importlib.util.find_spec("triton") else "two_level"
    return "two_level" if len(input) >= 64 and input[0].numel() <= NARROW else "sequential"


def fitted(
    decay: Tensor, input: Tensor, start: Tensor, reset: Tensor | None, carry: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor]:
    """One dtype, full shapes (views); a sentence about what does not fit."""
    shape = input.shape
    if input.ndim < 2 or not len(input):
        raise ValueError(f"input is (time, rows, states) with at least one step, not {tuple(shape)}")
    if decay.shape not in (shape[-1:], shape):
        raise ValueError(f"decay is {tuple(shape[-1:])} or {tuple(shape)} for this input, not {tuple(decay.shape)}")
    if reset is not None and reset.shape != shape[:-1]:
        raise ValueError(f"reset is {tuple(shape[:-1])} for this input, not {tuple(reset.shape)}")
    for name, value in (("start", start), ("carry", carry)):
        if value is not None and not _expands(value.shape, shape[1:]):
            fits = " or ".join(str(tuple(one)) for one in dict.fromkeys((shape[-1:], shape[1:])))
            raise ValueError(f"{name} is {fits} for this input, not {tuple(value.shape)}")
    dtype = torch.promote_types(torch.promote_types(decay.dtype, input.dtype), torch.float32)
    start = start.to(dtype).expand(shape[1:])
    carry = start if carry is None else carry.to(dtype).expand(shape[1:])
    return decay.to(dtype), input.to(dtype), start, None if reset is None else reset.bool(), carry


def _expands(shape: torch.Size, full: torch.Size) -> bool:
    """Whether torch expands the one to the other."""
    sizes = zip(reversed(shape), reversed(full), strict=False)
    return len(shape) <= len(full) and all(one in (1, other) for one, other in sizes)


def _one_axis(x: Tensor) -> Tensor:
    """(T, ..., P) -> (T, B, P)."""
    return x.flatten(1, -2) if x.ndim > 2 else x[:, None]


def _step(decay: Tensor, input: Tensor, start: Tensor, reset: Tensor | None, carry: Tensor) -> Tensor:
    before = carry if reset is None else torch.where(reset[0][..., None], start, carry)
    return torch.addcmul(input, decay, before)


def _run(method: str, *scan: Any) -> None:
    if method == "triton":
        from wm_ssm.kernel import triton_scan  # Triton is not installed everywhere torch is

        triton_scan(*scan)
    else:
        (two_level if method == "two_level" else sequential)(*scan)


def _forward(decay: Tensor, input: Tensor, start: Tensor, reset: Tensor | None, carry: Tensor, method: str) -> Tensor:
    x = torch.empty_like(input)
    _run(method, decay, input, x, reset, carry, start, False)
    return x


def _backward(
    grad: Tensor, decay: Tensor, x: Tensor, start: Tensor, reset: Tensor | None, carry: Tensor, method: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of decay, input, start and carry."""
    shared = decay.ndim == 1
    back = decay.conj().resolve_conj() if shared else decay.conj()
    h = torch.empty_like(x)
    h[-1] = grad[-1]
    if len(x) > 1:  # the transition from t to t + 1 has the decay and the reset of t + 1
        later = None if reset is None else reset[1:]
        over = back if shared else back[1:]
        _run(method, over, grad[:-1], h[:-1], later, h[-1].clone(), torch.zeros_like(start), True)
    return _reduce(decay, h, x, start, reset, carry)


def _reduce(
    decay: Tensor, h: Tensor, x: Tensor, start: Tensor, reset: Tensor | None, carry: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The sums over time, in blocks that stay in a CPU's cache (on a GPU larger ones, for it waits for launches)."""
    shared, length = decay.ndim == 1, len(x)
    to_decay = torch.zeros_like(x[0]) if shared else torch.empty_like(x)
    to_start = torch.zeros_like(x[0])

    given = h[0] * (decay if shared else decay[0]).conj()  # what reaches the state before the first step
    if reset is None:
        begun, to_carry = carry, given
    else:
        fresh = reset[0].unsqueeze(-1)
        begun, to_carry = torch.where(fresh, start, carry), torch.where(fresh, 0, given)
        to_start += torch.where(fresh, given, 0)
    to_decay[... if shared else 0] = begun.conj() * h[0]

    size = max(1, (CACHED << (8 if x.is_cuda else 0)) // x[0].numel())
    for t in range(1, length, size):
        mine = h[t : t + size]
        before = torch.conj_physical(x[t - 1 : t - 1 + len(mine)])
        if reset is not None:
            back = decay.conj() if shared else decay[t : t + size].conj()
            before = _refill(before, start.conj(), reset[t : t + size], mine, back, to_start)
        if shared:
            to_decay += (before * mine).sum(0)
        else:
            torch.mul(before, mine, out=to_decay[t : t + size])
    return to_decay.sum(0) if shared else to_decay, h, to_start, to_carry.clone()


def _refill(before: Tensor, start: Tensor, reset: Tensor, h: Tensor, back: Tensor, to_start: Tensor) -> Tensor:
    """`before` with the start where a reset put it; adds to the start's gradient what reaches it from there."""
    if waits(reset):  # asking which rows
        fresh = reset.unsqueeze(-1)
        to_start += torch.where(fresh, h * back, 0).sum(0)
        return torch.where(fresh, start, before)
    t, row = reset.nonzero(as_tuple=True)
    if not len(t):
        return before
    to_start.index_add_(0, row, h[t, row] * (back if back.ndim == 1 else back[t, row]))
    before = before if before.is_complex() else before.clone()  # of real numbers torch gives the conjugate as it is
    before[t, row] = start[row]
    return before


def _fake_forward(
    decay: Tensor, input: Tensor, start: Tensor, reset: Tensor | None, carry: Tensor, method: str
) -> Tensor:
    return torch.empty_like(input)


def _fake_backward(
    grad: Tensor, decay: Tensor, x: Tensor, start: Tensor, reset: Tensor | None, carry: Tensor, method: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rows = x.new_empty(x.shape[1:])
    return torch.empty_like(decay), torch.empty_like(x), rows, torch.empty_like(rows)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    decay, _, start, reset, carry, ctx.method = inputs
    ctx.save_for_backward(decay, output, start, reset, carry)


def _gradient(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    decay, x, start, reset, carry = ctx.saved_tensors
    to_decay, to_input, to_start, to_carry = torch.ops.wm_ssm.scan_backward.default(
        grad, decay, x, start, reset, carry, ctx.method
    )
    return to_decay, to_input, to_start, None, to_carry, None


# Two operators, so that torch.compile sees calls and not T steps. `torch.library.custom_op` would import torch's
# compiler at the first call, which takes seconds.
_LIBRARY = torch.library.Library("wm_ssm", "DEF")
_LIBRARY.define("scan(Tensor decay, Tensor input, Tensor start, Tensor? reset, Tensor carry, str method) -> Tensor")
_LIBRARY.define(
    "scan_backward(Tensor grad, Tensor decay, Tensor x, Tensor start, Tensor? reset, Tensor carry, str method)"
    " -> (Tensor, Tensor, Tensor, Tensor)"
)
for _name, _real, _fake in (("scan", _forward, _fake_forward), ("scan_backward", _backward, _fake_backward)):
    _LIBRARY.impl(_name, _real, "CompositeExplicitAutograd")
    torch.library.register_fake(f"wm_ssm::{_name}", _fake, lib=_LIBRARY)
torch.library.register_autograd("wm_ssm::scan", _gradient, setup_context=_keep, lib=_LIBRARY)
_operator = torch.ops.wm_ssm.scan.default
