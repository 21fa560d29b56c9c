"""The sequence model against R2I's code, on its weights, embeddings and noise, in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from r2i.config import Config
from r2i.parts import sequence_model
from torch import Tensor
from wm_core import draws
from wm_core.kl import BalancedKL
from wm_core.world import bound_action

# one file for the stack, which is wm-ssm's, and the model around it
FILE = np.load(Path(__file__).parents[3] / "packages/wm-ssm/tests/golden/r2i-s5.npz")
TOLERANCE = 1e-11, 7e-14  # absolute, relative to the largest entry: ten times what was measured when the file was made
GIVEN = {
    *("config", "embed", "action", "first", "noise_observe", "noise_imagine", "weight_deter", "weight_stoch"),
    *(name.removeprefix("s3m/") for name in FILE.files if name.startswith("s3m/params/")),
}
NAMES = [name for name in FILE.files if name.startswith("s3m/") and name.removeprefix("s3m/") not in GIVEN]
Layout = Callable[[Tensor], Tensor]


def gold(name: str) -> Tensor:
    return torch.from_numpy(FILE[f"s3m/{name}"])


def places() -> dict[str, tuple[str, Layout, slice]]:
    """Of the reference's tensors: our parameter, how it lies there, its rows. `initial_*` lie apart."""
    turned, same = torch.Tensor.t, torch.Tensor.clone
    found: dict[str, tuple[str, Layout, slice]] = {}
    for theirs, ours in {
        "img_in": "token",
        "obs_out": "posterior.0",
        "img_out": "prior.0",
    }.items():
        found[f"{theirs}/kernel"] = f"{ours}.0.weight", turned, slice(None)
        found[f"{theirs}/norm/scale"] = f"{ours}.1.scale", same, slice(None)
    for theirs, ours in {
        "obs_stats": "posterior.1",
        "img_stats": "prior.1",
        "out_proj": "backbone.out.0",
    }.items():
        found[f"{theirs}/kernel"] = f"{ours}.weight", turned, slice(None)
        found[f"{theirs}/bias"] = f"{ours}.bias", same, slice(None)
    for i in range(2):
        layer, block = f"mimo_ssm/state/params/layers_{i}", f"backbone.blocks.{i}"
        for name in ("B", "C", "D", "Lambda_re", "Lambda_im", "log_step"):
            own = name.lower() if name.startswith("Lambda") else name
            layout: Layout = torch.Tensor.flatten if name == "log_step" else same
            found[f"{layer}/seq/{name}"] = f"{block}.s5.{own}", layout, slice(None)
        for half, rows in (("out", slice(10)), ("out2", slice(10, None))):
            found[f"{layer}/{half}/kernel"] = f"{block}.gate.weight", turned, rows
            found[f"{layer}/{half}/bias"] = f"{block}.gate.bias", same, rows
        for name, own in (("scale", "weight"), ("bias", "bias")):
            found[f"{layer}/norm/{name}"] = f"{block}.norm.{own}", same, slice(None)
    return found


class Given:
    """Exponential noise as the uniform numbers that make Gumbel noise of it, by the shape that is asked for."""

    def __init__(self, *noise: Tensor) -> None:
        self.noise = {tuple(x.shape): torch.exp(-x) for x in noise}

    def uniform(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        return self.noise[tuple(shape)].clone()

    normal = exponential = uniform


def states(x: Tensor) -> Tensor:
    """(..., L * P * 2) -> (..., L, P) complex."""
    return torch.view_as_complex(x.detach().unflatten(-1, (2, 16, 2)))


def arrays() -> Iterator[tuple[str, Tensor]]:
    sizes: Any = {"deter": 12, "width": 10, "state": 16, "ssm_layers": 2, "ssm_blocks": 4, "stoch": 4, "classes": 5}
    dynamics = sequence_model(Config(**sizes), embed=11, action=4)
    params, where = dict(dynamics.named_parameters()), places()
    hidden = gold("params/rssm/initial_hidden").unbind()  # real, imaginary: (L, P)
    with torch.no_grad():
        for theirs, (ours, layout, rows) in where.items():
            params[ours][rows] = layout(gold(f"params/rssm/{theirs}"))
        for i in range(2):
            params[f"backbone.blocks.{i}.s5.start"].copy_(torch.stack([half[i] for half in hidden], -1))
        for name in ("token.0", "posterior.0.0", "prior.0.0"):
            params[f"{name}.bias"].zero_()
    assert not gold("params/rssm/initial_deter").any()  # ours is 0 and not learned
    with draws.drawing(Given(gold("noise_observe"), gold("noise_imagine"))):
        trace = dynamics.observe(
            dynamics.initial(3), {"obs": gold("embed")}, bound_action(gold("action")), gold("first")
        )
        carry, _ = dynamics.starts(trace, 1)
        _, later = dynamics.imagine(carry, bound_action(gold("action")[:, 0]))
    latent, next_hidden = trace.latent, later.hidden
    assert latent.hidden is not None and next_hidden is not None
    yield from {"posterior/stoch": latent.stoch.argmax(-1), "posterior/deter": latent.deter}.items()
    yield from {"posterior/hidden": states(latent.hidden), "posterior/logit": trace.post}.items()
    yield from {"prior/logit": trace.prior, "policy_input": latent.read("deter", "stoch", "hidden")}.items()
    yield from {"next/stoch": later.stoch.argmax(-1), "next/deter": later.deter}.items()
    yield from {"next/hidden": states(next_hidden), "next/logit": dynamics.logits(dynamics.prior(later.deter))}.items()
    kl, _ = BalancedKL(1.0)(trace.post, trace.prior)
    yield from kl.items()
    wd, ws = gold("weight_deter"), gold("weight_stoch")
    total = (wd * latent.deter).sum() + (ws * latent.stoch).sum() + kl["dyn"].sum() + 0.1 * kl["rep"].sum()
    total = total + (wd[:, 0] * later.deter).sum()
    grads = dict(zip(params, torch.autograd.grad(total, [*params.values()]), strict=True))
    for theirs, (ours, _, rows) in where.items():
        yield f"grad/rssm/{theirs}", grads[ours][rows]
    start = torch.stack([grads[f"backbone.blocks.{i}.s5.start"] for i in range(2)])  # (L, P, 2)
    yield from {"grad/rssm/initial_hidden": start.movedim(-1, 0), "grad/rssm/initial_deter": torch.zeros(12)}.items()


@cache
def found() -> dict[str, Tensor]:
    """Every array that is no input, by our code, in float64."""
    torch.set_default_dtype(torch.float64)
    try:
        return {f"s3m/{name}": value.detach() for name, value in arrays()}
    finally:
        torch.set_default_dtype(torch.float32)


def errors(name: str) -> tuple[float, float]:
    """The largest difference, absolute and as a share of the largest entry."""
    ours, theirs = found()[name], torch.from_numpy(FILE[name])
    tensor = name.removeprefix("s3m/grad/rssm/")
    if tensor in places() and tensor != name:
        theirs = places()[tensor][1](theirs)
    assert ours.shape == theirs.shape, f"{name}: {tuple(ours.shape)}, not {tuple(theirs.shape)}"
    off, largest = (ours - theirs).abs().max().item(), theirs.abs().max().item()
    return off, off / largest if largest else off


def test_every_array_is_an_input_or_held() -> None:
    assert set(NAMES) == found().keys()


@pytest.mark.parametrize("name", NAMES)
def test_it_is_what_the_reference_computed(name: str) -> None:
    off = errors(name)
    assert off[0] <= TOLERANCE[0] and off[1] <= TOLERANCE[1], off
