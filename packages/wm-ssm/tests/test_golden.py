"""HiPPO, discretisations and the S5 stack against golden/r2i-s5.npz, which R2I's code computed in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from wm_ssm import S5Stack, bilinear, hippo_n, zoh

FILE = np.load(Path(__file__).parent / "golden/r2i-s5.npz")
METHODS = {"bilinear": bilinear, "zoh": zoh}
TOLERANCE = 1e-11, 7e-14  # absolute, relative to the largest entry: ten times what was measured when the file was made
GIVEN = {
    *("discretise/spectrum", "discretise/step", "discretise/B"),
    *(f"stack/{name}" for name in ("config", "u", "x0", "start", "first", "weight", "weight_resets")),
    *(name for name in FILE.files if name.startswith("stack/params/")),
}


def gold(name: str) -> Tensor:
    return torch.from_numpy(FILE[name])


Layout = Callable[[Tensor], Tensor]
Place = tuple[str, Layout, slice]  # our parameter, how it lies there, its rows


def places(width: int, layers: int) -> dict[str, Place]:
    """Of every tensor of the reference's stack."""

    def same(x: Tensor) -> Tensor:
        return x

    found: dict[str, Place] = {}
    for i in range(layers):
        theirs, ours = f"layers_{i}", f"blocks.{i}"
        for name in ("B", "C", "D", "Lambda_re", "Lambda_im", "log_step"):
            own = name.lower() if name.startswith("Lambda") else name
            layout: Layout = torch.Tensor.flatten if name == "log_step" else same
            found[f"{theirs}/seq/{name}"] = f"{ours}.s5.{own}", layout, slice(None)
        for half, rows in (("out", slice(width)), ("out2", slice(width, None))):
            found[f"{theirs}/{half}/kernel"] = f"{ours}.gate.weight", torch.Tensor.t, rows
            found[f"{theirs}/{half}/bias"] = f"{ours}.gate.bias", same, rows
        for name, own in (("scale", "weight"), ("bias", "bias")):
            found[f"{theirs}/norm/{name}"] = f"{ours}.norm.{own}", same, slice(None)
    found["out_proj/kernel"] = "out.0.weight", torch.Tensor.t, slice(None)
    found["out_proj/bias"] = "out.0.bias", same, slice(None)
    return found


def spectra() -> Iterator[tuple[str, Tensor]]:
    for size in (2, 4, 8, 16, 64):
        yield f"hippo/{size}/spectrum", hippo_n(size)[0]
    for name, method in METHODS.items():
        decay, gain = method(gold("discretise/spectrum"), gold("discretise/step"))
        yield f"discretise/{name}/decay", decay
        yield f"discretise/{name}/input", gain[:, None] * gold("discretise/B")


def stacks() -> Iterator[tuple[str, Tensor]]:
    """Without resets, and with resets to nothing and to a start, each with its gradients."""
    x0, first, where = gold("stack/x0"), gold("stack/first"), places(8, 2)
    for method, discretise in METHODS.items():
        for at, start in (("", 0.0), ("resets_zero/", 0.0), ("resets_start/", 1.0)):
            stack = S5Stack(8, 16, 2, out=10, blocks=4, discretise=discretise)
            params = dict(stack.named_parameters())
            with torch.no_grad():
                for theirs, (ours, layout, rows) in where.items():
                    params[ours][rows] = layout(gold(f"stack/params/{theirs}"))
                for i, state in enumerate(torch.view_as_real(gold("stack/start"))):
                    params[f"blocks.{i}.s5.start"].copy_(start * state)
            u = gold("stack/u").requires_grad_()
            carry = torch.view_as_real(x0).clone().requires_grad_()  # (B, L, P, 2)
            out, hidden, _, _ = stack(carry.flatten(1), u, first if at else torch.zeros_like(first))
            name = f"stack/{method}/{at}"
            states = torch.view_as_complex(hidden.detach().unflatten(-1, (2, 16, 2)))
            yield from {f"{name}out": out, f"{name}states": states}.items()
            weight = gold("stack/weight_resets" if at else "stack/weight")
            names = [n for n in params if at or not n.endswith("start")]
            grads = torch.autograd.grad((weight * out).sum(), [u, carry, *(params[n] for n in names)])
            yield from {f"{name}grad_u": grads[0], f"{name}grad_x0": grads[1]}.items()
            own = dict(zip(names, grads[2:], strict=True))
            for theirs, (ours, _, rows) in where.items():
                yield f"{name}grad/{theirs}", own[ours][rows]
            if at:
                yield f"{name}grad_start", torch.stack([own[f"blocks.{i}.s5.start"] for i in range(2)])


@cache
def found() -> dict[str, Tensor]:
    """Every array that is no input, by our code, in float64."""
    torch.set_default_dtype(torch.float64)
    try:
        return {name: value.detach() for part in (spectra, stacks) for name, value in part()}
    finally:
        torch.set_default_dtype(torch.float32)


def errors(name: str) -> tuple[float, float]:
    """The largest difference, absolute and as a share of the largest entry."""
    ours, theirs = found()[name], gold(name)
    if "/grad/" in name:
        theirs = places(8, 2)[name.split("/grad/")[1]][1](theirs)
    assert ours.shape == theirs.shape, f"{name}: {tuple(ours.shape)}, not {tuple(theirs.shape)}"
    off, largest = (ours - theirs).abs().max().item(), theirs.abs().max().item()
    return off, off / largest if largest else off


def test_every_array_is_an_input_or_held() -> None:
    """The state-space model around the stack is R2I's: its arrays are held where that is."""
    own = {name for name in FILE.files if not name.startswith("s3m/")}
    assert own == found().keys() | GIVEN and not found().keys() & GIVEN


@pytest.mark.parametrize("name", [name for name in FILE.files if name not in GIVEN and not name.startswith("s3m/")])
def test_it_is_what_the_reference_computed(name: str) -> None:
    off = errors(name)
    assert off[0] <= TOLERANCE[0] and off[1] <= TOLERANCE[1], off
