"""The Triton kernel: the same numbers as the loop in Triton's interpreter, and machine code for a real GPU."""

from __future__ import annotations

import itertools

import pytest
import torch
import wm_ssm.kernel
from wm_ssm import linear_scan, plain_scan

triton = pytest.importorskip("triton")
CONSTANTS = ("SHARED", "RESET", "REVERSE", "END", "BLOCK")


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU the kernel itself; elsewhere Triton's interpreter, on CPU tensors."""
    if not torch.cuda.is_available():
        monkeypatch.setattr(triton.knobs.runtime, "interpret", True)
        monkeypatch.setattr(wm_ssm.kernel, "kernel", triton.jit(wm_ssm.kernel._segment))  # noqa: SLF001


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("dtype", [torch.complex128, torch.complex64])
@pytest.mark.parametrize(("length", "least"), [(2, 16), (7, 16), (13, 4)])  # 13: segments of 5, 5 and 3 steps
def test_kernel_equals_the_loop(
    length: int, least: int, dtype: torch.dtype, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wm_ssm.kernel, "LEAST", least)
    rows, states = 2, 3
    torch.manual_seed(length)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    shape = (states,) if shared else (length, rows, states)
    radius, angle = 1 - 0.1 * torch.rand(shape, dtype=torch.float64), torch.randn(shape, dtype=torch.float64)
    exact = [torch.polar(radius, angle), torch.randn(length, rows, states, dtype=torch.complex128)]
    exact += [torch.randn(states, dtype=torch.complex128), torch.randn(rows, states, dtype=torch.complex128)]
    reset = torch.rand(length, rows, device=device) < 0.2
    weights = torch.randn(length, rows, states, dtype=torch.complex128)
    for given in (reset, None):
        found = []
        for scan, kind in ((linear_scan, dtype), (plain_scan, torch.complex128)):
            leaves = [x.to(device, dtype).to(kind).requires_grad_() for x in exact]
            options = {"method": "triton"} if scan is linear_scan else {}
            x = scan(*leaves[:3], given, carry=leaves[3], **options)
            loss = (x * weights.to(device, kind)).real.sum()
            found.append([x, *torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)])
        for got, wanted in zip(*found, strict=True):
            gap = (got.to(wanted.dtype) - wanted).abs().max() / wanted.abs().max().clamp(min=1e-9)
            assert gap < (1e-10 if dtype == torch.complex128 else 1e-4)


@pytest.mark.filterwarnings("ignore:invalid value")  # the interpreter's numpy speaks of inf * 0
@pytest.mark.usefixtures("interpreted")
def test_a_reset_is_hard_across_segments_and_strides_are_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wm_ssm.kernel, "LEAST", 2)
    for when in (3, 6):  # segments of 3 steps: within one, and where one begins
        given = torch.zeros(1, 9, 2, dtype=torch.complex64).transpose(0, 1)  # rows first in memory
        given[when - 2] = float("inf")
        reset = torch.zeros(9, 1, dtype=torch.bool)
        reset[when] = True
        one = torch.ones(2, dtype=torch.complex64)
        x = linear_scan(0.5 * one, given, one, reset, method="triton")
        assert not x[when - 1].isfinite().any() and x[when:].isfinite().all()
        torch.testing.assert_close(x[when:, 0, 0].real, 0.5 ** torch.arange(1, 10 - when))


@pytest.mark.filterwarnings("ignore:invalid value", "ignore:overflow")
@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize("shared", [True, False])
def test_a_decay_that_overflows_stays_before_its_reset(shared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between resets the states are finite; the product over a segment, were it formed through them, is not."""
    monkeypatch.setattr(wm_ssm.kernel, "LEAST", 2)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    shape = (2,) if shared else (16, 1, 2)
    decay = torch.full(shape, 1e10j, dtype=torch.complex64, device=device)  # four steps to a segment: 1e40
    if not shared:
        decay[1] = float("inf")
    given = torch.ones(16, 1, 2, dtype=torch.complex64, device=device)
    reset = (torch.arange(16, device=device) % 3 == 2)[:, None]
    found = []
    for method in ("triton", "sequential"):
        leaves = [x.clone().requires_grad_() for x in (decay, given, given[0, 0])]
        x = linear_scan(*leaves, reset, method=method)
        found.append([x[2:], *torch.autograd.grad(x[2:].real.sum(), leaves)])
    assert all(bool(wanted.isfinite().all()) for wanted in (found[1] if shared else found[1][:1]))
    torch.testing.assert_close(*found, equal_nan=True)


def test_it_compiles_for_a_gpu_that_is_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """To machine code of an A100, in every variant: the interpreter accepts what the compiler refuses."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    pointers = dict.fromkeys(("decay", "given", "out", "product", "start", "begin"), "*fp32")
    pointers |= {"reset": "*u8", "crossed": "*u8"}
    for shared, reset, reverse, end in itertools.product([True, False], repeat=4):
        values = dict(zip(CONSTANTS, (shared, reset, reverse, end, 64), strict=True))
        kinds = {
            name: "constexpr" if name in values else pointers.get(name, "i32")
            for name in wm_ssm.kernel.kernel.arg_names
        }
        source = ASTSource(fn=wm_ssm.kernel.kernel, signature=kinds, constexprs=values)
        made = triton.compile(source, target=GPUTarget("cuda", 80, 32), options={"num_warps": 2})
        assert len(made.asm["cubin"]) > 1000
