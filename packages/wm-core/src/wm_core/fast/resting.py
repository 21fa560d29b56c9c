"""While weights rest, what is made of them alone is made once: imagination calls the same layers at every step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

_made: ContextVar[dict[tuple[int, ...], tuple[tuple[Tensor, ...], Tensor]] | None] = ContextVar("made", default=None)


@contextmanager
def resting() -> Iterator[None]:
    """No weight changes inside, and nothing carries gradient.

    >>> weight, count = torch.ones(2), []
    >>> with resting():
    ...     for _ in range(3):
    ...         _ = once(lambda: count.append(1) or weight * 2, weight)
    >>> len(count)
    1
    """
    token = _made.set({})
    try:
        with torch.no_grad():
            yield
    finally:
        _made.reset(token)


def kept() -> bool:
    """Whether what `once` makes now serves again."""
    return _made.get() is not None


def once(make: Callable[[], Tensor], *weights: Tensor) -> Tensor:
    """`make()`, which depends on these weights alone (one function for one set of weights); inside `resting` at the
    first call only."""
    if torch.compiler.is_compiling():  # the compiler's own business, and it would watch every entry
        return make()
    made = _made.get()
    if made is None:
        return make()
    key = tuple(map(id, weights))
    if key not in made:
        made[key] = weights, make()  # holding the weights keeps their ids from being given to others
    return made[key][1]
