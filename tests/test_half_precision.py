"""Half precision leaves no tensor without a gradient: each that has one in float32 has one in bf16, in every app."""

from __future__ import annotations

import pathlib
import sys
from typing import Any

import pytest
import torch

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import gradients
from bench.cases import prepare
from gpu_checks import TASKS
from wm_core import learner, precision

NONE = 1e-6  # of the root mean square of all of a part's gradients: rounding, as that of a bias before a batch norm
OPTIONS = ("--preset", "tiny", "--device", "cpu", "--seed", "3")
CASES = TASKS | {"po_dreamer of a team": ("--task", "toy:leavers", "--epochs", "1")}  # an app, and what of it


def silent(app: str) -> list[str]:
    """Tensors whose gradient is zero or no number in bf16, but not in float32."""
    half, exact = (
        gradients.of_update(prepare(app.partition(" ")[0], [*OPTIONS, *CASES[app], "--precision", kind]))
        for kind in ("bf16", "fp32")
    )
    assert half.keys() == exact.keys()
    parts = {part: [g for name, g in exact.items() if gradients.of(name) == part] for part in map(gradients.of, exact)}
    least = {part: NONE * gradients.rms(found) for part, found in parts.items()}
    lit = {name for name, g in exact.items() if gradients.rms([g]) > least[gradients.of(name)]}
    assert len(lit) > 0.9 * len(exact), sorted(exact.keys() - lit)
    return sorted(name for name in lit if not half[name].any() or not half[name].isfinite().all())


@pytest.mark.parametrize("app", CASES)
def test_every_tensor_has_a_gradient_in_half_precision(app: str) -> None:
    assert silent(app) == []


def test_an_actor_without_gradient_in_half_precision_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the mean of all gradients did not show."""
    real = gradients.of_update

    def blind(case: Any) -> dict[str, torch.Tensor]:
        found = real(case)
        actor = case.config.precision == "bf16"
        return {name: g * 0 if actor and "actor" in name else g for name, g in found.items()}

    monkeypatch.setattr(gradients, "of_update", blind)
    assert silent("storm") and all("actor" in name for name in silent("storm"))


@pytest.mark.parametrize("mended", [True, False])
def test_weights_that_were_used_without_gradient_have_one_afterwards(
    mended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inside one region: an older torch keeps what was cast under no_grad, which has no gradient; there nothing is kept."""
    agent = prepare("dreamer", [*OPTIONS, *TASKS["dreamer"], "--precision", "bf16"]).agent
    if not mended:
        monkeypatch.setattr(learner, "casts_keep_gradients", lambda: False)
    layer, x = torch.nn.Linear(4, 4), torch.ones(2, 4)
    with agent.computing():
        assert torch.is_autocast_cache_enabled() is (mended and precision.casts_keep_gradients())
        with torch.no_grad():
            layer(x)
        found = layer(x)
    found.float().sum().backward()
    assert layer.weight.grad is not None and layer.weight.grad.any()
