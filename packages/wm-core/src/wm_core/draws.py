"""One source of randomness for everything that samples: a generator that its owner saves, or fixed draws in tests.

`with drawing(source):` names the source for the code inside; without one, torch's global generator is used.
Modules call `gumbel`, `normal` and `uniform` here and never torch.rand, so that a run can be resumed bit by bit,
replayed with fixed draws, and captured as one CUDA graph with its generator registered.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

import torch
from torch import Tensor


class Source(Protocol):
    """Where numbers come from: each call gives a new tensor of that shape, (...), on that device."""

    def uniform(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """Numbers in [0, 1), float32: (...)."""

    def normal(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """Standard normal numbers, float32: (...)."""

    def exponential(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """Exponential numbers of mean 1, float32: (...)."""


class Generator:
    """A `Source`: random numbers from one torch generator, whose state is saved with the run.

    >>> source = Generator(seed=0)
    >>> with drawing(source):
    ...     one = uniform((3,))
    >>> source.load_state_dict(Generator(seed=0).state_dict())
    >>> with drawing(source):
    ...     bool((uniform((3,)) == one).all())
    True
    """

    def __init__(self, seed: int, device: torch.device | str = "cpu") -> None:
        here = "cpu" if torch.device(device).type == "meta" else device  # of networks that are only measured
        self.generator = torch.Generator(device=here).manual_seed(seed)

    def uniform(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        return torch.rand(shape, generator=self.generator, device=device)

    def normal(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        return torch.randn(shape, generator=self.generator, device=device)

    def exponential(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        return torch.empty(shape, device=device).exponential_(generator=self.generator)

    def state_dict(self) -> dict[str, Tensor]:
        """The generator's state, for `load_state_dict`."""
        return {"state": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on where `state` was taken; of another kind of device, whose numbers are others, from a seed made of it."""
        saved = state["state"].cpu()
        if saved.shape == self.generator.get_state().shape:
            self.generator.set_state(saved)
        else:
            self.generator.manual_seed(zlib.crc32(saved.numpy().tobytes()))


class Fixed:
    """A `Source` of the same number every time (0.5, 0, 1): samples become modes and noise vanishes. Laws are checked under
    it."""

    def uniform(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        return torch.full(shape, 0.5, device=device)

    def normal(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        return torch.zeros(shape, device=device)

    def exponential(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        return torch.ones(shape, device=device)


class Global:
    """torch's global generator as a `Source`: what applies outside of any `drawing`."""

    def uniform(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        return torch.rand(shape, device=device)

    def normal(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        return torch.randn(shape, device=device)

    def exponential(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        return torch.empty(shape, device=device).exponential_()


_source: ContextVar[Source] = ContextVar("source", default=Global())  # noqa: B039 - Global holds no state


@contextmanager
def drawing(source: Source) -> Iterator[None]:
    """Take every random number inside from `source`."""
    token = _source.set(source)
    try:
        yield
    finally:
        _source.reset(token)


def uniform(shape: tuple[int, ...], device: torch.device | str = "cpu") -> Tensor:
    """Numbers in [0, 1), float32, from the source in force."""
    return _source.get().uniform(tuple(shape), torch.device(device))


def normal(shape: tuple[int, ...], device: torch.device | str = "cpu") -> Tensor:
    """Standard normal numbers, float32, from the source in force."""
    return _source.get().normal(tuple(shape), torch.device(device))


def exponential(shape: tuple[int, ...], device: torch.device | str = "cpu") -> Tensor:
    """Exponential noise, float32: argmax(p / noise) is a sample of p; a constant gives the mode."""
    return _source.get().exponential(tuple(shape), torch.device(device))


def gumbel(shape: tuple[int, ...], device: torch.device | str = "cpu") -> Tensor:
    """Gumbel noise, float32: argmax(logits + gumbel) is a sample of softmax(logits); a constant gives the mode."""
    tiny = torch.finfo(torch.float32).tiny
    return uniform(shape, device).clamp_(tiny).log_().neg_().clamp_(tiny).log_().neg_()


class Ahead:
    """A `Source` that draws for `steps` requests of one shape at a time from another, and hands them out one by one."""

    def __init__(self, source: Source, steps: int) -> None:
        self.source, self.steps = source, steps
        self.drawn: dict[tuple[str, tuple[int, ...]], list[Tensor]] = {}

    def uniform(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        return self._next("uniform", shape, device)

    def normal(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        return self._next("normal", shape, device)

    def exponential(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        return self._next("exponential", shape, device)

    def _next(self, kind: str, shape: tuple[int, ...], device: torch.device) -> Tensor:
        left = self.drawn.setdefault((kind, shape), [])
        if not left:
            left.extend(getattr(self.source, kind)((self.steps, *shape), device).unbind())
        return left.pop()


@contextmanager
def ahead(steps: int) -> Iterator[None]:
    """Inside a loop of `steps` steps that draws the same shapes at each: one draw of each shape for all of them.

    >>> with drawing(Generator(0)), ahead(3):
    ...     one, two = uniform((2,)), uniform((2,))
    >>> bool((one != two).all())
    True
    """
    with drawing(Ahead(_source.get(), steps)):
        yield
