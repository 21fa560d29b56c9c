"""`dream --sensitivity` of a Dreamer: what the decoder of its dream is sensitive to."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dreamer import load
from wm_core.types import Latent
from wm_run import sensitivity
from wm_run.openloop import OpenLoop


def test_the_command_draws_measures_and_keeps(run: Any, catch: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("dream", catch, "--observed", 2, "--imagined", 5, "--rows", 2, "--sensitivity", "--device", "cpu")
    told = json.loads((catch / "dream/sensitivity-200.json").read_text())
    shares = told["share_on_moving_pixels"]
    assert all(0 < one < 1 for one in shares.values()) and 0 < shares["pixels"] < 0.1
    assert (catch / "dream/sensitivity-200.png").stat().st_size > 0 and "sensitivity-200.png" in capsys.readouterr().out
    kept = np.load(catch / "dream/sensitivity-200.npz")
    for name in ("plain", "weighted", "plain_at_mean", "weighted_at_mean"):
        one = kept[name][kept["valid"][:, 2:]]
        assert np.isfinite(one).all() and (one >= 0).all() and (one.max((1, 2)) > 0).all()
    shape = (kept["weighted"] / kept["weighted"].sum((2, 3), keepdims=True))[kept["valid"][:, 2:]]
    other = (kept["plain"] / kept["plain"].sum((2, 3), keepdims=True))[kept["valid"][:, 2:]]
    assert np.abs(shape - other).sum((1, 2)).mean() > 0.05  # the value has a direction of its own
    # the number is the mean over frames of the mass where consecutive true frames differ
    true = kept["true"]
    moving = (np.abs(true[:, 2:] - true[:, 1:-1]).max(-1) > 10 / 255)[kept["valid"][:, 2:]]
    some = moving.any((1, 2))
    assert shares["weighted"] == pytest.approx((shape * moving).sum((1, 2))[some].mean(), rel=1e-3)


def test_the_value_weighted_map_is_by_all_that_the_decoder_reads(catch: Path) -> None:
    """Against the Jacobian by [h, z], column by column, at the prior's probabilities."""
    agent = load(catch).agent.eval()
    size, generator = agent.world.dynamics.deter, torch.Generator().manual_seed(0)
    h = torch.randn(1, 2, size, generator=generator)
    logp = agent.world.dynamics.logits(agent.world.dynamics.prior(h)).detach()
    shown = torch.zeros(1, 3, 64, 64, 3)
    found = OpenLoop("image", shown, shown, 1, torch.ones(1, 3, dtype=torch.bool), Latent(h, logp.exp()))
    maps = sensitivity.measure(agent, found)
    decoder, critic = copy.deepcopy(agent.world.decoder).double(), copy.deepcopy(agent.behaviour.critic).double()
    place = torch.cat([h, logp.exp().flatten(-2)], -1)[0].double()  # (T, D + S * K)

    def state(x: torch.Tensor) -> Latent:
        return Latent(x[:, :size], x[:, size:].unflatten(-1, logp.shape[-2:]))

    free = place.clone().requires_grad_()
    critic(state(free)).mode().sum().backward()
    unit = free.grad / free.grad.norm(dim=-1, keepdim=True)
    assert unit[:, :size].any() and unit[:, size:].any()
    along = torch.zeros(2, 64, 64, 3, dtype=torch.float64)
    with torch.no_grad():
        for column, one in enumerate(torch.eye(place.shape[-1], dtype=torch.float64)):
            pair = [decoder(state(place + sign * 1e-6 * one))["image"].mode() for sign in (1, -1)]
            along += (pair[0] - pair[1]) / 2e-6 * unit[:, column, None, None, None]
    expected = along.abs().sum(-1)
    torch.testing.assert_close(
        maps.weighted_at_mean[0].double(), expected, rtol=1e-3, atol=1e-5 * expected.max().item()
    )
    assert not torch.allclose(maps.weighted_of_stoch, maps.weighted, rtol=0.1)
