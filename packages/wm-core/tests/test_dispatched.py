"""The recorder of operations: a replay computes what the function would, from the tensors that are there then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from wm_core.dispatched import Dispatched
from wm_core.fast.product import prepared
from wm_core.fast.resting import resting
from wm_core.testing import assert_same


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 2 * x * grad


def gradient(x: Tensor) -> Tensor:
    w = x.detach().clone().requires_grad_()
    (found,) = torch.autograd.grad((Square.apply(w).sin() @ w.t()).sum(), w)
    return found


def inside(x: Tensor) -> list[Tensor]:
    y = torch.empty_like(x)
    y[0], y[1:] = x[0].exp(), x[1:]
    y[:, 1].mul_(2)
    parts = list(y.unbind())
    torch._foreach_add_(parts, 1.0)
    return [y, *parts, y.t()[1:]]


def opposite(x: Tensor) -> Tensor:
    z = torch.complex(x, 2 * x).conj()
    return torch.view_as_real((z[:1] @ z.mT).resolve_conj())


def packed(x: Tensor) -> Tensor:
    with resting():
        rows = torch.cat([x] * 128).repeat(1, 128)  # (512, 512)
        weight = prepared(rows[None], len(rows))
        return weight.to_dense() if weight.is_mkldnn else weight


CALLS: list[Callable[[Tensor], Any]] = [
    gradient,
    inside,
    opposite,
    packed,
    lambda x: {"same": x, "new": [x + 1, 3, None]},
    lambda x: nn.functional.one_hot(x.argmax(-1), 4),
    lambda x: torch.where(x > 0, x, 0).sort()[1].to(torch.uint8),
]


@pytest.mark.parametrize("call", CALLS)
def test_a_replay_computes_anew_from_what_is_there(call: Callable[[Tensor], Any]) -> None:
    x = torch.linspace(-1, 2, 16).reshape(4, 4)
    given, replay = Dispatched().record(lambda: call(x), [])
    for shift in (0.0, 0.7):
        x.add_(shift)
        replay()
        assert_same(given, call(x))


def test_a_state_is_changed_by_a_replay_alone() -> None:
    layer, count = nn.BatchNorm1d(3), torch.zeros((), dtype=torch.int64)

    def call() -> Tensor:
        count.add_(1)
        return layer(torch.arange(6.0).reshape(2, 3))

    before = {name: value.clone() for name, value in layer.state_dict().items()}
    _, replay = Dispatched().record(call, [])
    assert_same(dict(layer.state_dict()), before)
    replay()
    replay()
    assert (count.item(), layer.num_batches_tracked.item()) == (2, 2)  # type: ignore[union-attr]


def test_registered_generators_go_on_and_others_are_refused() -> None:
    mine, other = torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)
    before = mine.get_state()
    given, replay = Dispatched().record(lambda: torch.rand(3, generator=mine), [mine])
    assert torch.equal(mine.get_state(), before)
    for _ in range(2):
        replay()
        assert torch.equal(given, torch.rand(3, generator=other))
    with pytest.raises(RuntimeError, match="not registered"):
        Dispatched().record(lambda: torch.rand(3, generator=other), [mine])


def test_what_the_host_decides_stays_as_it_was() -> None:
    """As on a GPU; so a test sees it."""
    x, rate = torch.ones(2), [0.5]

    def call() -> Tensor:
        rate[0] *= 2
        return x * rate[0] if x.sum() > 0 else -x

    given, replay = Dispatched().record(call, [])
    x.fill_(-3)
    replay()
    assert given.tolist() == [-3.0, -3.0] and rate == [1.0]
