"""Products by oneDNN are torch's own products, forward and backward, and are taken by processor and size alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from types import MappingProxyType

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from wm_core import plain
from wm_core.blocks import BlockGRU, BlockLinear
from wm_core.fast import product
from wm_core.fast.resting import resting

ROWS, INPUTS, OUTPUTS = 64, 160, 130
onednn = pytest.mark.skipif(not product.available(), reason="this torch has no oneDNN")


@pytest.fixture(autouse=True)
def taken(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """oneDNN wherever sizes allow it, whatever the processor."""
    torch.manual_seed(0)
    monkeypatch.setattr(product, "faster", product.available)
    yield


@dataclasses.dataclass
class Seen:
    """How often oneDNN's operators were called."""

    count: int = 0


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    found = Seen()

    def watch(operator: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(*args: object) -> Tensor:
            found.count += 1
            return operator(*args)

        return call

    for name in ("_linear", "_convolution", "_convolution_"):
        monkeypatch.setattr(product, name, watch(getattr(product, name)))
    return found


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def layouts() -> dict[str, tuple[Tensor, Tensor, Tensor | None]]:
    """x, weight and bias in every layout that the layers hand over."""
    x, weight, bias = numbers(ROWS, INPUTS), numbers(OUTPUTS, INPUTS), numbers(OUTPUTS)
    return {
        "plain": (x, weight, bias),
        "no bias": (x, weight, None),
        "three axes": (x.view(4, 16, INPUTS), weight, bias),
        "rows that skip": (numbers(4, 17, INPUTS)[:, :-1], weight, bias),
        "columns of a wider weight": (x, numbers(OUTPUTS, INPUTS + 7)[:, 7:], bias),
        "a weight turned over": (x, numbers(INPUTS, OUTPUTS).t(), bias),
        "rows of one number": (numbers(ROWS, 1).expand(-1, INPUTS), weight, bias),
        "few outputs": (numbers(2**12, INPUTS), numbers(6, INPUTS), numbers(6)),
    }


@onednn
@pytest.mark.parametrize("name", layouts())
def test_a_layer_and_its_gradients_are_those_of_float64(name: str, seen: Seen) -> None:
    exact = [given if given is None else given.detach().requires_grad_() for given in layouts()[name]]
    mine = [given if given is None else given.detach().float().requires_grad_() for given in exact]
    pull = numbers(*exact[0].shape[:-1], exact[1].shape[0])  # type: ignore[union-attr]
    found = {}
    for kind, layer, given in (
        ("exact", plain.linear, exact),
        ("mine", product.linear, mine),
        ("torch", F.linear, mine),
    ):
        out = layer(*given)  # type: ignore[arg-type]
        some = [x for x in given if x is not None]
        found[kind] = [out, *torch.autograd.grad(out, some, pull.to(out.dtype))]
    assert seen.count == (2 if name == "few outputs" else 3)  # forward, and the gradients of x and of the weight
    for exactly, ours, theirs in zip(*found.values(), strict=True):
        assert ours.shape == exactly.shape and ours.dtype == torch.float32
        wrong, usual = (ours - exactly).abs().max(), (theirs - exactly).abs().max()
        assert wrong <= 4 * usual + 1e-6 * exactly.abs().max()


@onednn
def test_the_gradient_of_a_gradient_is_right_too(seen: Seen) -> None:
    def penalty(layer: Callable[..., Tensor], dtype: torch.dtype) -> Tensor:
        x, weight, bias = (
            value.to(dtype).requires_grad_()
            for value in (torch.linspace(-1, 1, ROWS * INPUTS).view(ROWS, -1), fixed, torch.ones(OUTPUTS))
        )
        (slope,) = torch.autograd.grad(layer(x, weight, bias).square().sum(), x, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), weight)[0]

    fixed = torch.randn(OUTPUTS, INPUTS)
    exact = penalty(plain.linear, torch.float64)
    assert (penalty(product.linear, torch.float32) - exact).abs().max() < 1e-5 * exact.abs().max()
    assert seen.count > 3


@pytest.mark.parametrize(
    "case", ["float64", "bfloat16", "autocast", "few rows", "one output", "little work", "oneDNN off"]
)
def test_elsewhere_it_is_torchs_layer_bit_for_bit(case: str, seen: Seen) -> None:
    dtype = {"float64": torch.float64, "bfloat16": torch.bfloat16}.get(case, torch.float32)
    rows = {"few rows": product.ROWS - 1, "little work": product.ROWS, "one output": 2**13}.get(case, ROWS)
    wide, outputs = 2**11 if case == "few rows" else INPUTS, 1 if case == "one output" else OUTPUTS
    x, weight, bias = (torch.randn(*shape, dtype=dtype) for shape in ((rows, wide), (outputs, wide), (outputs,)))
    on = torch.backends.mkldnn.flags(enabled=case != "oneDNN off")
    with torch.autocast("cpu", torch.bfloat16, enabled=case == "autocast"), on:
        assert torch.equal(product.linear(x, weight, bias), F.linear(x, weight, bias))
    assert seen.count == 0


@pytest.mark.parametrize(
    ("name", "wide", "chosen"),
    [
        ("AMD EPYC 9575F", True, True),
        ("AMD EPYC 7742", False, False),
        ("Intel(R) Xeon(R)", True, False),
        (None, True, False),
    ],
)
def test_the_processor_decides(name: str | None, wide: bool, chosen: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    told = {"avx512_f": wide} | ({"cpu_name": name} if name else {})
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: MappingProxyType(told), raising=False)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    monkeypatch.setattr(product, "available", lambda: True)
    assert product.faster.__wrapped__() is chosen


@onednn
def test_the_same_numbers_come_every_time() -> None:
    x, weight = torch.randn(ROWS, INPUTS), torch.randn(OUTPUTS, INPUTS)
    first = product.linear(x, weight)
    assert all(torch.equal(product.linear(x.clone(), weight.clone()), first) for _ in range(5))


@onednn
@pytest.mark.parametrize("rows", [48, 50])
@pytest.mark.parametrize(("groups", "inputs", "outputs"), [(8, 32, 96), (3, 100, 90), (1, 160, 160)])
def test_blocks_do_not_see_each_other(rows: int, groups: int, inputs: int, outputs: int, seen: Seen) -> None:
    x, weight = numbers(rows, groups, inputs), numbers(inputs, groups, outputs).transpose(0, 1)
    bias, to = numbers(groups, 1, outputs), numbers(rows, groups, outputs)
    apart = plain.blocks(x, weight, torch.zeros_like(bias))
    with resting():
        ready = product.prepared(weight.float(), rows)
        found = product.blocks(x.float(), ready, bias.float())
        product.add_blocks(into := to.float(), x.float(), ready)
    torch.testing.assert_close(found.double(), apart + bias[:, 0], rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(into.double(), to + apart, rtol=1e-5, atol=1e-4)
    assert seen.count == (2 if rows % product.PIXELS == 0 else 0)  # 50 rows are no whole number of images


@onednn
def test_what_carries_gradient_is_not_packed() -> None:
    weight = torch.randn(8, 256, 256)
    assert product.prepared(weight, ROWS) is weight
    with resting():
        assert product.prepared(weight, ROWS) is not weight
        with torch.enable_grad():
            assert product.prepared(weight, ROWS) is weight
    layer = BlockLinear(512, 512, blocks=4)
    layer(torch.randn(ROWS, 512)).sum().backward()
    assert layer.weight.grad is not None and layer.weight.grad.abs().max() > 0


@onednn
def test_a_dreaming_cell_is_the_learning_one(seen: Seen) -> None:
    cell = BlockGRU(deter=512, state=(512, 64), action=3, hidden=32, blocks=4)
    torch.nn.init.normal_(cell.gates.bias)
    deter, stoch, action = torch.randn(ROWS, 512).tanh(), torch.randn(ROWS, 64), torch.randn(ROWS, 3)
    exact = plain.block_gru(cell.double(), deter.double(), (deter.double(), stoch.double()), action.double())
    cell.float()
    with resting():
        for _ in range(2):  # the second time with what was packed the first time
            torch.testing.assert_close(cell.advance(deter, (deter, stoch), action).double(), exact, rtol=0, atol=1e-5)
    assert seen.count >= 4


@onednn
def test_flops_are_those_of_torchs_own_products(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = BlockGRU(deter=512, state=(512, 64), action=3, hidden=32, blocks=4)
    layer = product.Linear(512, 64)
    x, stoch, action = torch.randn(ROWS, 512), torch.randn(ROWS, 64), torch.randn(ROWS, 3)

    def count() -> int:
        with FlopCounterMode(display=False) as counter:
            layer(x.requires_grad_()).sum().backward()
            with resting():
                cell.advance(x, (x, stoch), action)
        return int(counter.get_total_flops())

    mine = count()
    monkeypatch.setattr(product, "faster", lambda: False)
    theirs = count()
    inplace = 2 * ROWS * 512 * 512 // 4  # torch's counter knows no `baddbmm_`
    assert mine == theirs + inplace
