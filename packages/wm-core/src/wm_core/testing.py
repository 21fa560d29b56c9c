"""The laws of a Dynamics as one public check, and scripted steps to try parts on.

Sizes: B batch, T time, A action.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wm_core import draws
from wm_core.contracts import Dynamics
from wm_core.types import Past, Trace

Embed = Callable[[int, int], dict[str, Tensor]]


def assert_same(one: Any, other: Any, path: str = "") -> None:
    """Nested dicts and sequences of tensors, arrays and plain values are equal, bit by bit. AssertionError says where.

    >>> assert_same({"a": [torch.ones(2), 3]}, {"a": [torch.ones(2), 4]})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    AssertionError: /a/1: 3 and 4...
    """
    assert type(one) is type(other), f"{path}: {type(one).__name__} and {type(other).__name__}"
    if isinstance(one, Mapping):
        assert one.keys() == other.keys(), f"{path}: {sorted(one.keys() ^ other.keys())}"
        for key in one:
            assert_same(one[key], other[key], f"{path}/{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), f"{path}: {len(one)} and {len(other)} entries"
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{path}/{i}")
    elif isinstance(one, (Tensor, np.ndarray)):
        assert one.shape == other.shape and bool((one == other).all()), path
    else:
        assert one == other, f"{path}: {one} and {other}"


def random_embed(widths: Mapping[str, int], seed: int = 0) -> Embed:
    """A function (B, T) -> {name: (B, T, width)} of normal numbers."""

    def embed(rows: int, length: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return {name: torch.randn(rows, length, width, generator=generator) for name, width in widths.items()}

    return embed


def check_dynamics(
    dynamics: Dynamics,
    *,
    embed: Embed | Mapping[str, int],
    action: int,
    across_episodes: bool = False,
    length: int = 9,
    tolerance: float = 1e-4,
) -> None:
    """Check the laws that every dynamics obeys; AssertionError with the law's name where one is broken.

    1. chunking: observing T steps at once equals observing pieces, down to T = 1 (acting).
    2. reset: what precedes `first` cannot change what follows. A memory that recalls across episodes declares
       `across_episodes`: then the rule is checked for its imagination start alone through `deter` being independent
       of the earlier recurrent state.
    3. starts: imagining from start t equals imagining from the carry after t steps.
    4. post and prior have one shape; gradients reach the prior; every leaf of the carry keeps the batch first.
    5. prefill: the carry made of what was stored of all past steps goes on like the carry that observed them
       (for dynamics that store anything; float16 tolerance).
    6. past: the future of a step cannot change it (no leak from later steps).

    >>> from wm_core.rssm import RSSM
    >>> rssm = RSSM(deter=16, stoch=(4, 3), embed=5, action=2, hidden=8, blocks=2)
    >>> check_dynamics(rssm, embed={"obs": 5}, action=2)
    """
    module: Any = dynamics
    was = module.training if isinstance(module, nn.Module) else False
    if isinstance(module, nn.Module):
        module.eval()
    try:
        with draws.drawing(draws.Fixed()):
            make = random_embed(embed) if isinstance(embed, Mapping) else embed
            _Laws(dynamics, make, action, across_episodes, length, tolerance).check()
    finally:
        if isinstance(module, nn.Module):
            module.train(was)


class _Laws:
    def __init__(
        self, dynamics: Dynamics, embed: Embed, action: int, across: bool, length: int, tolerance: float
    ) -> None:
        generator = torch.Generator().manual_seed(1)
        self.dynamics, self.across, self.length, self.tolerance = dynamics, across, length, tolerance
        self.embed = embed(2, length)
        self.first = torch.zeros(2, length, dtype=torch.bool)
        self.first[:, 0] = self.first[0, 4] = True
        self.action = torch.randn(2, length, action, generator=generator) * (~self.first)[..., None]
        self.whole = self.observe(dynamics.initial(2), 0, length)

    def check(self) -> None:
        self.shapes()
        self.chunking()
        self.leak()
        self.reset()
        self.starts()
        if self.dynamics.stores:
            self.prefill()

    def observe(self, carry: Any, start: int, stop: int, *, action: Tensor | None = None, **swap: Tensor) -> Trace:
        part = slice(start, stop)
        embed = {name: swap.get(name, value)[:, part] for name, value in self.embed.items()}
        led = self.action if action is None else action
        return self.dynamics.observe(carry, embed, led[:, part], self.first[:, part])

    def same(self, left: Tensor, right: Tensor, law: str, tolerance: float | None = None) -> None:
        gap = (left - right).abs().max().item()
        assert gap <= (tolerance or self.tolerance), f"law broken: {law} (largest difference {gap:.2e})"

    def features(self, trace: Trace) -> Tensor:
        return trace.latent.read(*trace.latent.names())

    def shapes(self) -> None:
        whole = self.whole
        assert whole.post.shape == whole.prior.shape, "law broken: posterior and prior describe different factors"
        assert whole.prior.requires_grad, "law broken: no gradient reaches the prior"
        for carry in (self.dynamics.initial(2), whole.carry):
            for leaf in torch.utils._pytree.tree_leaves(carry):  # noqa: SLF001 - the only walk torch offers
                assert leaf.shape[:1] == (2,), "law broken: a leaf of the carry does not keep the batch first"

    def chunking(self) -> None:
        for size in (1, 4):
            carry, parts, priors = self.dynamics.initial(2), [], []
            for start in range(0, self.length, size):
                trace = self.observe(carry, start, min(start + size, self.length))
                carry = trace.carry
                parts.append(self.features(trace))
                priors.append(trace.prior)
            law = f"observing pieces of {size} differs from observing all at once"
            self.same(torch.cat(parts, 1), self.features(self.whole), law)
            self.same(torch.cat(priors, 1), self.whole.prior, law + " (prior)")

    def leak(self) -> None:
        changed = {name: value.clone() for name, value in self.embed.items()}
        for value in changed.values():
            value[:, 6:] += 1
        trace = self.observe(self.dynamics.initial(2), 0, self.length, **changed)
        law = "a later step changed an earlier one"
        self.same(self.features(trace)[:, :6], self.features(self.whole)[:, :6], law)
        self.same(trace.prior[:, :7], self.whole.prior[:, :7], law + " (prior)")

    def reset(self) -> None:
        changed = {name: value.clone() for name, value in self.embed.items()}
        for value in changed.values():  # by much: the stoch that is drawn of a small change is often the same
            value[0, :4] += torch.linspace(-8, 8, 4)[:, None] * torch.linspace(-1, 1, value.shape[-1])
        action = self.action.clone()
        action[0, :4] = -action[0, :4]
        if self.across:  # the memory stays, so the recurrent half is swapped under it
            before = self.observe(self.dynamics.initial(2), 0, 4)
            carry = dict(before.carry)
            for name in ("deter", "stoch"):
                carry[name] = carry[name] + 1.0
            one, two = self.observe(before.carry, 4, self.length), self.observe(carry, 4, self.length)
            self.same(self.features(one)[0], self.features(two)[0], "the recurrent state survived a reset")
            return
        trace = self.observe(self.dynamics.initial(2), 0, self.length, action=action, **changed)
        after, whole = self.features(trace), self.features(self.whole)
        self.same(after[0, 4:], whole[0, 4:], "what preceded a reset changed what followed")
        self.same(trace.prior[0, 4:], self.whole.prior[0, 4:], "what preceded a reset changed the prior after it")
        assert (after[0, :4] - whole[0, :4]).abs().max() > 1e-6, "law broken: the embedding changes nothing"

    def starts(self) -> None:
        dynamics, last, rows = self.dynamics, 3, 2
        carry, latent = dynamics.starts(self.whole, last)
        read = latent.read(*latent.names()).unflatten(0, (rows, last))
        self.same(read, self.features(self.whole)[:, -last:], "starts are not the last latents, row b*last + t")
        action = torch.randn(rows * last, self.action.shape[-1], generator=torch.Generator().manual_seed(2))
        _, dream = dynamics.imagine(carry, action)
        got = dream.read(*dream.names()).unflatten(0, (rows, last))
        for t in range(last):
            prefix = self.observe(dynamics.initial(rows), 0, self.length - last + t + 1)
            one, _ = dynamics.starts(prefix, 1)
            _, alone = dynamics.imagine(one, action.unflatten(0, (rows, last))[:, t])
            self.same(got[:, t], alone.read(*alone.names()), "imagining from a start differs from the carry there")
            _, alone = dynamics.imagine(prefix.carry, action.unflatten(0, (rows, last))[:, t])
            self.same(got[:, t], alone.read(*alone.names()), "imagining from the carry differs from the start there")

    def prefill(self) -> None:
        dynamics, cut = self.dynamics, 6
        before = self.observe(dynamics.initial(2), 0, cut)
        stored = dynamics.stored(before)
        assert stored.keys() == dynamics.stores.keys(), "law broken: `stored` and `stores` name different things"
        kept = {name: value[:, max(0, cut - dynamics.stores[name]) :] for name, value in stored.items()}
        past = Past(kept, self.action[:, :cut], self.first[:, :cut], torch.ones(2, cut, dtype=torch.bool))
        carry = dynamics.prefill(dynamics.initial(2), past)
        one, two = self.observe(carry, cut, self.length), self.observe(before.carry, cut, self.length)
        self.same(self.features(one), self.features(two), "prefill from fresh entries differs from observing", 2e-2)
        empty = Past(
            {name: torch.zeros_like(value) for name, value in kept.items()},
            torch.zeros_like(past.action),
            torch.zeros_like(past.first),
            torch.zeros_like(past.valid),
        )
        fresh = self.observe(dynamics.prefill(dynamics.initial(2), empty), 0, cut)
        self.same(self.features(fresh), self.features(before), "prefill without a valid past differs from the start")
