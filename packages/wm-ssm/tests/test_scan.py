"""linear_scan against the loop it stands for, in float64: values, gradients, resets, chunks. T time, B rows, P states."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from wm_ssm import linear_scan, plain_scan
from wm_ssm.scan import choose

CPU = ("sequential", "two_level")


def problem(
    length: int,
    rows: int = 2,
    states: int = 5,
    *,
    shared: bool = True,
    resets: float = 0.02,
    dtype: Any = torch.complex128,
) -> dict[str, Any]:
    """A scan's arguments with |decay| from 0.9 to 0.9999, random resets (two in a row among them), start and carry."""
    torch.manual_seed(length + rows)
    shape = (states,) if shared else (length, rows, states)
    radius = 1 - 10 ** -(1 + 3 * torch.rand(shape, dtype=torch.float64))
    decay = torch.polar(radius, 3 * torch.randn(shape, dtype=torch.float64)) if dtype.is_complex else radius
    reset = torch.rand(length, rows) < resets
    if length > 6:
        reset[3:5, 0] = reset[-1, 1] = reset[0, 1] = True
    numbers = {"decay": decay, "input": torch.randn(length, rows, states, dtype=dtype)}
    numbers |= {"start": torch.randn(states, dtype=dtype), "carry": torch.randn(rows, states, dtype=dtype)}
    return {name: value.requires_grad_() for name, value in numbers.items()} | {"reset": reset}


def results(scan: Any, arguments: dict[str, Any], **options: Any) -> dict[str, Tensor]:
    """States, and the gradient of everything that has one under a fixed random weighting of the states."""
    x = scan(**arguments, **options)
    kind = torch.complex128 if x.is_complex() else torch.float64
    weights = torch.randn(x.shape, dtype=kind, generator=torch.Generator().manual_seed(7)).to(x.dtype)
    leaves = {name: value for name, value in arguments.items() if value is not None and value.requires_grad}
    loss = (x * weights).real.sum() if x.is_complex() else (x * weights).sum()
    grads = torch.autograd.grad(loss, [*leaves.values()], allow_unused=True, materialize_grads=True)
    return {"states": x.detach()} | dict(zip(leaves, grads, strict=True))


def gaps(got: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, float]:
    """Largest difference of each, relative to the largest number."""
    assert got.keys() == wanted.keys()
    return {
        name: float((got[name].to(value.dtype) - value).abs().max() / value.abs().max().clamp(min=1e-9))
        for name, value in wanted.items()
    }


@pytest.mark.parametrize("method", CPU)
@pytest.mark.parametrize("length", [1, 2, 5, 64, 1000, 4096])
def test_scan_equals_the_loop_in_double_precision(method: str, length: int) -> None:
    arguments = problem(length)
    found = gaps(results(linear_scan, arguments, method=method), results(plain_scan, arguments))
    assert max(found.values()) < 1e-10, found


@pytest.mark.parametrize("method", CPU)
@pytest.mark.parametrize("length", [64, 1024, 4096])
def test_single_precision_stays_near_the_loop_in_double(method: str, length: int) -> None:
    exact = problem(length, states=16)
    single = {"reset": exact["reset"]} | {
        name: value.detach().to(torch.complex64).requires_grad_() for name, value in exact.items() if name != "reset"
    }
    wanted = results(plain_scan, {"reset": exact["reset"]} | {
        name: value.detach().to(torch.complex128).requires_grad_() for name, value in single.items() if name != "reset"
    })  # fmt: skip
    found = gaps(results(linear_scan, single, method=method), wanted)
    assert max(found.values()) < 1e-4, found


@pytest.mark.parametrize("method", CPU)
@pytest.mark.parametrize("dtype", [torch.complex128, torch.float64])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("given", [*itertools.product([True, False], repeat=2)])
def test_any_decay_dtype_and_missing_argument(method: str, dtype: Any, shared: bool, given: tuple[bool, bool]) -> None:
    arguments = problem(30, shared=shared, dtype=dtype, resets=0.2)
    for name, kept in zip(("reset", "carry"), given, strict=True):
        arguments[name] = arguments[name] if kept else None
    found = gaps(results(linear_scan, arguments, method=method), results(plain_scan, arguments))
    assert max(found.values()) < 1e-12, found


@pytest.mark.parametrize("method", CPU)
@pytest.mark.parametrize("shared", [True, False])
def test_gradcheck(method: str, shared: bool) -> None:
    arguments = problem(9, states=2, shared=shared, resets=0.3)

    def scan(decay: Tensor, input: Tensor, start: Tensor, carry: Tensor) -> Tensor:
        return linear_scan(decay, input, start, arguments["reset"], carry=carry, method=method)

    assert torch.autograd.gradcheck(scan, [arguments[name] for name in ("decay", "input", "start", "carry")])


@pytest.mark.parametrize("method", CPU)
def test_decays_of_each_step_over_a_long_time(method: str) -> None:
    arguments = problem(1000, shared=False)
    assert max(gaps(results(linear_scan, arguments, method=method), results(plain_scan, arguments)).values()) < 1e-10


@pytest.mark.parametrize("method", CPU)
def test_the_gradient_does_not_hang_on_the_size_of_its_blocks(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = problem(300, resets=0.05)
    wanted = results(plain_scan, arguments)
    for cached in (10, 70, 1 << 20):  # 1, 7 and all steps in a block
        monkeypatch.setattr("wm_ssm.scan.CACHED", cached)
        assert max(gaps(results(linear_scan, arguments, method=method), wanted).values()) < 1e-10


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("length", [1, 70])
def test_one_sequence_needs_no_axis_of_rows(length: int, shared: bool) -> None:
    whole = problem(length, shared=shared)
    one = whole | {"input": whole["input"][:, 0], "reset": whole["reset"][:, 0], "carry": whole["carry"][0]}
    if not shared:
        one["decay"] = whole["decay"][:, 0]
    one = {name: value if name == "reset" else value.detach().requires_grad_() for name, value in one.items()}
    wanted = results(plain_scan, one)
    for method in CPU:
        assert max(gaps(results(linear_scan, one, method=method), wanted).values()) < 1e-10


def test_by_hand() -> None:
    """decay 2, input 1, start 5: a reset restarts from 5 in its own step, not one early as in R2I's released code."""
    reset = torch.tensor([[False], [False], [True], [True], [False]])
    for method in CPU:
        x = linear_scan(torch.tensor([2.0]), torch.ones(5, 1, 1), torch.tensor([5.0]), reset, method=method)
        assert x.flatten().tolist() == [11.0, 23.0, 11.0, 11.0, 23.0]


@pytest.mark.parametrize("method", CPU)
@pytest.mark.parametrize("shared", [True, False])
def test_a_decay_that_overflows_stays_before_its_reset(method: str, shared: bool) -> None:
    """Between resets the states are finite; the product over a segment, were it formed through them, is not."""
    length, rows, states = 256, 2, 3
    decay = torch.full((states,), 0.5 + 0j, dtype=torch.complex64)
    decay[1] = 600j  # 16 steps to a segment
    if not shared:
        decay = decay.repeat(length, rows, 1)
        decay[40, 0] = float("inf")
    reset = (torch.arange(length) % 7 == 3)[:, None].repeat(1, rows)
    found = []
    for one in ("sequential", method):
        leaves = [
            x.clone().requires_grad_() for x in (decay, torch.ones(length, rows, states) + 0j, torch.ones(states) + 0j)
        ]
        x = linear_scan(*leaves, reset, method=one)
        found.append([x, *torch.autograd.grad(x[45:].real.sum(), leaves)])
    assert bool(found[0][0][45:].isfinite().all()) and bool(found[0][0][:40].isfinite().all())
    assert not shared or all(bool(each.isfinite().all()) for each in found[0])
    torch.testing.assert_close(*found, equal_nan=True)


@pytest.mark.parametrize("method", CPU)
def test_a_reset_is_hard(method: str) -> None:
    """Infinity before a reset reaches no number after it, and no gradient of what comes after."""
    for when in (3, 50, 63, 77):
        for bad in (float("inf"), float("nan")):
            given = torch.zeros(100, 1, 2, dtype=torch.complex64)
            given[when - 2] = bad
            given.requires_grad_()
            reset = torch.zeros(100, 1, dtype=torch.bool)
            reset[when] = True
            decay = torch.tensor([0.5 + 0.5j, 0.9])
            x = linear_scan(decay, given, torch.ones(2, dtype=torch.complex64), reset, method=method)
            assert not x[when - 1].isfinite().any() and x[when:].isfinite().all()
            (grad,) = torch.autograd.grad(x[when:].abs().sum(), given)
            assert grad.isfinite().all() and not grad[:when].any()


@pytest.mark.parametrize("method", CPU)
def test_pieces_with_a_carry_equal_the_whole(method: str) -> None:
    whole = problem(200, resets=0.05)
    x = linear_scan(**whole, method=method)
    for size in (1, 7, 64):
        carry, parts = whole["carry"], []
        for t in range(0, 200, size):
            given, reset = whole["input"][t : t + size], whole["reset"][t : t + size]
            parts.append(linear_scan(whole["decay"], given, whole["start"], reset, carry=carry, method=method))
            carry = parts[-1][-1]
        torch.testing.assert_close(torch.cat(parts), x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("method", CPU)
def test_more_axes_of_rows_and_strides_of_any_order(method: str) -> None:
    arguments = problem(40, rows=6)
    x = linear_scan(**arguments, method=method)
    swapped = arguments["input"].detach().transpose(0, 1).contiguous().transpose(0, 1)
    assert linear_scan(**(arguments | {"input": swapped}), method=method).equal(x)
    folded = {
        "input": arguments["input"].unflatten(1, (2, 3)),
        "reset": arguments["reset"].unflatten(1, (2, 3)),
        "carry": arguments["carry"].unflatten(0, (2, 3)),
    }
    assert linear_scan(**(arguments | folded), method=method).flatten(1, 2).equal(x)
    one = {"input": arguments["input"][:, 0], "reset": arguments["reset"][:, 0], "carry": arguments["carry"][0]}
    torch.testing.assert_close(linear_scan(**(arguments | one), method=method), x[:, 0])


def test_half_precision_is_widened() -> None:
    x = linear_scan(torch.tensor([0.5]), torch.ones(40, 1, 1, dtype=torch.bfloat16), torch.zeros(1))
    assert x.dtype == torch.float32 and abs(x[-1].item() - 2) < 1e-6


def test_nothing_given_is_changed_nor_the_states_by_their_gradient() -> None:
    for dtype, shared in itertools.product([torch.complex128, torch.float64], [True, False]):
        arguments = problem(50, dtype=dtype, shared=shared)
        before = {name: value.detach().clone() for name, value in arguments.items()}
        x = linear_scan(**arguments)
        states = x.detach().clone()
        x.backward(torch.ones_like(x))
        assert all(before[name].equal(value) for name, value in arguments.items()) and states.equal(x)


@pytest.mark.parametrize("method", CPU)
def test_only_the_states_are_kept_for_the_gradient(method: str) -> None:
    arguments = problem(1024, rows=4, states=64)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        linear_scan(**arguments, method=method)
    whole = [x for x in kept if x.numel() >= arguments["input"].numel()]
    assert len(whole) == 1


def test_what_does_not_fit_is_said() -> None:
    decay, given, start = torch.ones(3), torch.ones(4, 2, 3), torch.zeros(3)
    for arguments, words in (
        ((torch.ones(2), given, start), "decay is"),
        ((decay, given, start, torch.zeros(4, 3, dtype=torch.bool)), "reset is"),
        ((decay, given[:0], start), "at least one step"),
    ):
        with pytest.raises(ValueError, match=words):
            linear_scan(*arguments)
    for name, wrong in itertools.product(
        ("start", "carry"), (torch.zeros(given.shape[-1] + 1), torch.zeros(given.shape))
    ):
        arguments = {"start": start} | {name: wrong}
        for scan in (linear_scan, plain_scan):
            with pytest.raises(ValueError, match=f"{name} is "):
                scan(decay, given, **arguments)
    with pytest.raises(ValueError, match="sequential, two_level, triton"):
        linear_scan(decay, given, start, method="fast")


def test_the_choice_for_a_cpu() -> None:
    assert choose(torch.empty(1024, 4, 128)) == "two_level"
    assert choose(torch.empty(1024, 16, 512)) == choose(torch.empty(16, 4, 128)) == "sequential"


def test_the_compiler_is_told_the_truth_about_the_operator() -> None:
    arguments = problem(20)
    torch.library.opcheck(
        torch.ops.wm_ssm.scan.default,
        (
            *(arguments[name] for name in ("decay", "input")),
            arguments["start"].expand(2, 5),
            arguments["reset"],
            arguments["carry"],
            "two_level",
        ),
        test_utils=("test_schema", "test_faketensor", "test_autograd_registration"),
    )


@pytest.mark.parametrize("shared", [True, False])
def test_what_a_gpu_is_not_asked_makes_no_difference(shared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU rows without a reset are left out; where asking for them would wait, all are computed."""
    expected = results(linear_scan, problem(40, shared=shared), method="two_level")
    for part in ("loops", "scan"):
        monkeypatch.setattr(f"wm_ssm.{part}.waits", lambda x: True)
    for method in CPU:
        assert max(gaps(results(linear_scan, problem(40, shared=shared), method=method), expected).values()) < 1e-12
