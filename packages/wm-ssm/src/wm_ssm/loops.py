"""The recurrence as loops of one fused multiply-add: step by step, or in segments that advance side by side.

Read `wm_ssm.plain.plain_scan` first: every way gives its numbers. Both directions are one loop over lists of views: nothing is flipped, shifted or padded in memory. A step is
out = decay * state + input, where the state is `start` on the rows that a mask names.
Sizes: T time, B rows, P states, n segments of c steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import repeat

import torch
from torch import Tensor

Masks = Sequence[Tensor | None]  # of each step (..., B, 1), or None where no row is reset


def waits(x: Tensor) -> bool:
    """Whether to ask for a number of it would wait for its device, and end the recording of a graph."""
    return x.is_cuda


def masks(reset: Tensor | None, length: int) -> Masks:
    """reset (T, ..., B) -> each step's mask; None for steps without a reset, which then cost nothing, if asking does not."""
    if reset is None:
        return [None] * length
    rows = reset.unsqueeze(-1).unbind()
    if waits(reset):
        return rows
    return [row if some else None for row, some in zip(rows, reset.flatten(1).any(1).tolist(), strict=True)]


def sweep(
    decays: Iterable[Tensor], inputs: Iterable[Tensor], outs: Iterable[Tensor], cuts: Iterable[Tensor | None],
    state: Tensor, start: Tensor,
) -> Tensor:  # fmt: skip
    """One step for each element of the lists; writes `outs` and gives the last state."""
    for decay, given, out, cut in zip(decays, inputs, outs, cuts, strict=False):
        before = state if cut is None else torch.where(cut, start, state)
        torch.addcmul(given, decay, before, out=out)
        state = out
    return state


def sequential(
    decay: Tensor, given: Tensor, out: Tensor, reset: Tensor | None, state: Tensor, start: Tensor, reverse: bool
) -> Tensor:
    """out[t] = decay[t] * state + given[t] over the first axis, T small steps; gives the last state."""
    order = -1 if reverse else 1
    decays = repeat(decay) if decay.ndim == 1 else decay.unbind()[::order]
    return sweep(
        decays, given.unbind()[::order], out.unbind()[::order], masks(reset, len(given))[::order], state, start
    )


def two_level(
    decay: Tensor, given: Tensor, out: Tensor, reset: Tensor | None, state: Tensor, start: Tensor, reverse: bool
) -> Tensor:
    """The same in about 4 sqrt(T) wide steps: segments run side by side twice, first for what they end in alone.

    The second run begins with the right states, so that every number is made by the same multiply-adds as in
    `sequential` and a reset is as hard. Extra memory: three states for each of sqrt(T) segments.
    """
    length = len(given)
    c = math.isqrt(length)
    n = length // c
    rest = length - n * c  # these steps run alone, after the segments in the direction of the loop
    main, tail = (slice(rest, length), slice(rest)) if reverse else (slice(n * c), slice(n * c, length))
    order = -1 if reverse else 1

    def segments(x: Tensor) -> Sequence[Tensor]:
        return x[main].unflatten(0, (n, c)).unbind(1)[::order]

    shared = decay.ndim == 1
    decays: Iterable[Tensor] = [decay] * c if shared else segments(decay)
    inputs = segments(given)
    cuts: Masks = [None] * c
    if reset is not None:
        split = reset[main].unflatten(0, (n, c))
        cuts = masks(split.transpose(0, 1), c)[::order]

    end = torch.empty_like(inputs[0])
    sweep(decays, inputs, repeat(end), cuts, torch.zeros_like(end), start)
    if shared:
        product: Iterable[Tensor] = repeat(power(decay, c))
    else:
        grown = torch.ones_like(end)
        for one in decays:
            grown *= one
        product = grown.unbind()[::order]
    begin = torch.empty_like(end)
    crossed = masks(None if reset is None else split.any(1), n)[::order]  # a segment with a reset forgets its past
    for across, own, first, cut in zip(product, end.unbind()[::order], begin.unbind()[::order], crossed, strict=False):
        first.copy_(state)
        state = torch.addcmul(own, across, state)
        if cut is not None:
            state = torch.where(cut, own, state)  # not own + across * 0: of an infinite product that is nan
    sweep(decays, inputs, segments(out), cuts, begin, start)
    if rest:
        decay = decay if shared else decay[tail]
        state = sequential(decay, given[tail], out[tail], None if reset is None else reset[tail], state, start, reverse)
    return state


def power(base: Tensor, exponent: int) -> Tensor:
    """base ** exponent, by squaring in double precision.

    >>> power(torch.tensor([0.5, 1j]), 6)
    tensor([ 0.0156+0.j, -1.0000+0.j])
    """
    square = base.to(torch.complex128 if base.is_complex() else torch.float64)
    result = torch.ones_like(square)
    while exponent:
        if exponent % 2:
            result = result * square
        square, exponent = square * square, exponent // 2
    return result.to(base.dtype)
