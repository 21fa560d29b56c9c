"""Numbers drawn beforehand -> the draws of a step: what is random in an exported step is one of its inputs.

Every draw is made of uniform numbers in [0, 1), or of standard normal ones, so that any runtime can give them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["uniform", "normal"]
Wanted = tuple[Kind, tuple[int, ...]]  # one draw: of what, and its shape
MODE: dict[str, float] = {"uniform": 0.5, "normal": 0.0}  # the same number for all: samples become modes


class Given:
    """A `wm_core.draws.Source` that hands out what it asks `give` for.

    >>> from wm_core import draws
    >>> with draws.drawing(Given(lambda kind, shape: torch.full(shape, MODE[kind]))):
    ...     draws.exponential((2,)), draws.normal((1,))
    (tensor([0.6931, 0.6931]), tensor([0.]))
    """

    def __init__(self, give: Callable[[Kind, tuple[int, ...]], Tensor]) -> None:
        self.give = give

    def uniform(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        return self.give("uniform", shape).clone()  # who asks may compute in place

    def normal(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        return self.give("normal", shape)

    def exponential(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        return -torch.log(self.give("uniform", shape))


def handed_out(noise: Iterator[Tensor]) -> Given:
    """A source of these tensors, in the order in which they are asked for."""
    return Given(lambda kind, shape: next(noise).reshape(shape))


def modes(asked: list[Wanted]) -> Given:
    """A source of modes, which notes in `asked` what it is asked for."""

    def give(kind: Kind, shape: tuple[int, ...]) -> Tensor:
        asked.append((kind, tuple(shape)))
        return torch.full(shape, MODE[kind])

    return Given(give)
