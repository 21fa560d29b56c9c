"""Two calls from one state -> whether they did the same: what they gave, and how they moved the state.

Tensor by tensor, in the mean of its entries: a sum of all would hide a temperature behind ten million weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import keystr, tree_flatten_with_path  # noqa: PLC2701 - torch's own, no other door

NEAR = 2e-3  # of a result's mean size, of a movement's: what rounding in another order may come to
TIMES = 4.0  # how much further two calls may lie apart than one lies from its own repetition
LEAST = 1e-5  # results below it are rounding
DIGIT = 2**-23  # of a float32, which a weight keeps of a movement


@dataclass(frozen=True)
class Outcome:
    """What a call gave, nested tensors, and the state before and after it."""

    given: Any
    before: Sequence[Tensor]
    after: Sequence[Tensor]


class _Measured(NamedTuple):
    names: list[str]
    size: Tensor  # (tensors,) mean size of the result, or of the movement
    off: Tensor  # (tensors,) mean difference; inf where one is finite and the other not, or where whole numbers differ
    least: Tensor  # (tensors,) what is rounding in any case


def difference(expected: Outcome, found: Outcome, again: Outcome | None = None, *, rounding: bool = True) -> str | None:
    """None where two outcomes are the same up to rounding, else in words what differs most.

    again: the second of two outcomes of the same call: what they differ by is chance, and may be found `TIMES` as large.
    rounding: False asks for the very same numbers.

    >>> def outcome(loss: float, count: int) -> Outcome:
    ...     return Outcome({"loss": torch.tensor(loss)}, [torch.tensor(0)], [torch.tensor(count)])
    >>> difference(outcome(1.0, 3), outcome(1.0001, 3))
    >>> difference(outcome(1.0, 3), outcome(1.01, 3))
    "['loss'] differs by 1% of its size"
    >>> difference(outcome(1.0, 3), outcome(1.01, 3), outcome(1.015, 3))
    >>> difference(outcome(1.0, 3), outcome(1.0, 4))
    'entry 0 of the state is another number'
    """
    if len(expected.after) != len(found.after):
        return "the state has other entries"
    if not _alike(expected.given, found.given):
        return "what it gives has other shapes"
    for part in (_results, _movements):
        one = part(expected, found)
        if not one.names:
            continue
        allowed = NEAR * one.size + one.least if rounding else torch.zeros_like(one.size)
        if again is not None:
            noise = part(found, again).off
            noise = torch.where(noise.isfinite(), noise, 0.0)  # no chance makes a nan, or another count
            everywhere = noise.sum() / one.size.sum().clamp(min=torch.finfo(noise.dtype).tiny)
            allowed = allowed + TIMES * (noise + everywhere * one.size)
        excess = one.off - allowed
        worst = int(excess.nan_to_num(torch.inf).argmax())
        if not bool(excess[worst] <= 0):
            share = float(one.off[worst] / one.size[worst])
            how = f"differs by {100 * share:.2g}% of its size" if share < torch.inf else "is another number"
            return f"{one.names[worst]} {how}"
    return None


def _alike(one: Any, other: Any) -> bool:
    (ours, spec), (theirs, other_spec) = tree_flatten_with_path(one), tree_flatten_with_path(other)
    shapes = [[getattr(leaf, "shape", None) for _, leaf in leaves] for leaves in (ours, theirs)]
    return bool(spec == other_spec and shapes[0] == shapes[1])


def _results(expected: Outcome, found: Outcome) -> _Measured:
    def rows() -> Iterator[tuple[str, Tensor, Tensor, Tensor]]:
        ours, theirs = tree_flatten_with_path(expected.given)[0], tree_flatten_with_path(found.given)[0]
        for (path, a), (_, b) in zip(ours, theirs, strict=True):
            if isinstance(a, Tensor) and a.numel():
                size, off = _compared(a, b)
                yield keystr(path) or "what it gives", size, off, torch.full_like(size, LEAST)

    return _measured(rows())


def _movements(expected: Outcome, found: Outcome) -> _Measured:
    def rows() -> Iterator[tuple[str, Tensor, Tensor, Tensor]]:
        for i, (start, a, b) in enumerate(zip(expected.before, expected.after, found.after, strict=True)):
            if not a.numel():
                continue
            size, off = _compared(a, b)
            if not a.is_floating_point():
                off = torch.where(off > 0, torch.inf, 0.0)
            yield f"entry {i} of the state", _compared(start, a)[1], off, DIGIT * size

    return _measured(rows())


@torch.no_grad()
def _compared(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Mean size of the first, mean difference of the two: 0-d, float64. What is not finite in both is left out."""
    one, other = (x.detach().to(torch.complex128 if x.is_complex() else torch.float64) for x in (a, b))
    odd = (one.isfinite() != other.isfinite()).any()
    both = one.isfinite() & other.isfinite()
    one, other = (torch.where(both, x, 0.0) for x in (one, other))
    return one.abs().mean(), torch.where(odd, torch.inf, (one - other).abs().mean())


def _measured(rows: Iterator[tuple[str, Tensor, Tensor, Tensor]]) -> _Measured:
    names, *columns = [[*column] for column in zip(*rows, strict=True)] or [[], [], [], []]
    return _Measured(names, *(torch.stack(column) if column else torch.zeros(0) for column in columns))
