"""The recurrence as a Triton kernel: a program for each segment of time, row and block of states, its state in registers.

Read `wm_ssm.plain.plain_scan` first, then `loops`. One sequence after another would leave a GPU idle where rows and states are few. Time is cut into segments as in
`loops.two_level`: one launch finds what each segment ends in alone, a second carries that across segments, a third
writes the states. With rows and states enough, one launch does it all. Complex numbers are read as pairs.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from typing import Any

import torch
from torch import Tensor

FOUND = importlib.util.find_spec("triton") is not None  # not on every platform that torch runs on
triton: Any = importlib.import_module("triton") if FOUND else None
tl: Any = importlib.import_module("triton.language") if FOUND else None

PROGRAMS = 1024  # beyond these a GPU is busy enough; a guess, not measured
LEAST = 16  # steps of a segment


def _segment(  # type: ignore[no-untyped-def]
    decay, given, out, product, reset, crossed, start, begin,
    length, rows, states, steps,
    decay_t, decay_b, given_t, given_b, out_t, out_b, reset_t, reset_b,
    SHARED: tl.constexpr, RESET: tl.constexpr, REVERSE: tl.constexpr, END: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One segment. END: write its last state (from nothing) and its product alone, else every state."""
    segment, row = tl.program_id(0), tl.program_id(1)
    p = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)
    inside = p < states
    re, im = 2 * p, 2 * p + 1
    own = (segment * rows + row) * states * 2  # begin, product and the END output are (segments, rows, states, 2)
    at = row * states * 2
    start_r = tl.load(start + at + re, inside, 0.0)
    start_i = tl.load(start + at + im, inside, 0.0)
    x_r = tl.load(begin + own + re, inside, 0.0)
    x_i = tl.load(begin + own + im, inside, 0.0)
    none = (p * 0).to(x_r.dtype)  # not x_r * 0.0: what a segment begins with may be infinite
    grown_r, grown_i = none + 1.0, none
    if SHARED:
        a_r = tl.load(decay + re, inside, 0.0)
        a_i = tl.load(decay + im, inside, 0.0)
    cut = False
    for i in range(steps):
        step = segment * steps + i
        if step < length:
            t = step
            if REVERSE:
                t = length - 1 - step
            if not SHARED:
                a_r = tl.load(decay + t * decay_t + row * decay_b + re, inside, 0.0)
                a_i = tl.load(decay + t * decay_t + row * decay_b + im, inside, 0.0)
            if RESET:
                fresh = tl.load(reset + t * reset_t + row * reset_b) != 0
                if fresh:
                    x_r, x_i = start_r, start_i
                    grown_r, grown_i = none, none  # nothing crosses, however much it had grown
                    cut = True
            b_r = tl.load(given + t * given_t + row * given_b + re, inside, 0.0)
            b_i = tl.load(given + t * given_t + row * given_b + im, inside, 0.0)
            x_r, x_i = a_r * x_r - a_i * x_i + b_r, a_r * x_i + a_i * x_r + b_i
            if END:
                grown_r, grown_i = a_r * grown_r - a_i * grown_i, a_r * grown_i + a_i * grown_r
            else:
                tl.store(out + t * out_t + row * out_b + re, x_r, inside)
                tl.store(out + t * out_t + row * out_b + im, x_i, inside)
    if END:
        tl.store(out + own + re, x_r, inside)
        tl.store(out + own + im, x_i, inside)
        tl.store(product + own + re, grown_r, inside)
        tl.store(product + own + im, grown_i, inside)
        if RESET:
            leader = tl.program_id(2) == 0
            tl.store(crossed + segment * rows + row, cut, leader)


kernel: Any = triton.jit(_segment) if FOUND else None


def triton_scan(
    decay: Tensor, given: Tensor, out: Tensor, reset: Tensor | None, state: Tensor, start: Tensor, reverse: bool
) -> None:
    """out[t] = decay[t] * state + given[t] over the first axis, backwards with `reverse`; complex tensors."""
    length, rows, states = given.shape
    start = start.contiguous()
    count = segments(length, rows * states)
    if count == 1:
        _launch(decay, given, out, reset, state.contiguous()[None], start, length, reverse)
        return
    steps = math.ceil(length / count)
    count = math.ceil(length / steps)
    zero = torch.zeros(count, rows, states, dtype=given.dtype, device=given.device)
    end, product = torch.empty_like(zero), torch.empty_like(zero)
    crossed = torch.zeros(count, rows, dtype=torch.bool, device=given.device)
    _launch(decay, given, end, reset, zero, start, steps, reverse, product, crossed)
    begin = torch.empty_like(zero)
    begin[0] = state
    if count > 1:  # what a segment begins with: the state carried through the segments before it
        _launch(product[:-1], end[:-1], begin[1:], crossed[:-1], begin[:1], zero[0], count, False)
    _launch(decay, given, out, reset, begin, start, steps, reverse)


def segments(length: int, width: int) -> int:
    """Into how many segments `length` steps of `width` states are cut: 1 where rows and states fill a GPU.

    >>> segments(4096, 16 * 512), segments(1024, 4 * 128), segments(20, 128)
    (8, 32, 1)
    """
    programs = math.ceil(width / 64)
    most = min(math.isqrt(length), length // LEAST)
    return max(1, min(most, PROGRAMS // programs))


def _launch(
    decay: Tensor, given: Tensor, out: Tensor, reset: Tensor | None, begin: Tensor, start: Tensor,
    steps: int, reverse: bool, product: Tensor | None = None, crossed: Tensor | None = None,
) -> None:  # fmt: skip
    length, rows, states = given.shape
    pair = [torch.view_as_real(x.resolve_conj()) for x in (decay, given, out, start, begin)]
    a, b, o, s, begun = (x if x.stride()[-2:] == (2, 1) else x.contiguous() for x in pair)
    block = min(64, 1 << (states - 1).bit_length())
    shared = decay.ndim == 1
    spare: Any = o  # never touched where the kernel is told so
    flags = spare if reset is None else reset.view(torch.uint8)
    grid = (math.ceil(length / steps), rows, math.ceil(states / block))
    kernel[grid](
        a, b, o,
        spare if product is None else torch.view_as_real(product),
        flags,
        spare if crossed is None else crossed.view(torch.uint8),
        s, begun,
        length, rows, states, steps,
        *((0, 0) if shared else a.stride()[:2]), *b.stride()[:2], *o.stride()[:2],
        *((0, 0) if reset is None else flags.stride()),
        SHARED=shared, RESET=reset is not None, REVERSE=reverse, END=product is not None, BLOCK=block, num_warps=2,
    )  # fmt: skip
