"""`dream --sensitivity`: maps of the dream's own states, against Jacobians column by column; what it leaves behind."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from storm.cli import APP
from torch import Tensor
from wm_core.testing import assert_same
from wm_core.types import Batch, Index, Latent
from wm_run import sensitivity
from wm_run.cli import main
from wm_run.openloop import openloop


def test_maps_are_the_jacobians_at_the_priors_probabilities_of_the_dream(tiny: Any, steps: Any) -> None:
    agent, index = tiny(), Index(torch.zeros(2, dtype=torch.int64), torch.zeros(2, dtype=torch.int64))
    before = copy.deepcopy((agent.state(), agent.state_dict()))
    agent.train()
    found = openloop(agent, Batch(steps(2, 5), None, index), 3)["image"]
    maps = sensitivity.measure(agent, found)
    assert agent.training
    assert_same((agent.state(), agent.state_dict()), before)

    agent.eval()
    decoder, critic = copy.deepcopy(agent.world.decoder).double(), copy.deepcopy(agent.behaviour.critic).double()
    h, dynamics = found.imagined.deter, agent.world.dynamics
    z = dynamics.logits(dynamics.prior(h)).detach().exp().double()  # (B, T, S, K)

    def image(z: Tensor) -> Tensor:
        with torch.no_grad():
            return decoder(Latent(h.double(), z))["image"].mode()

    columns = []
    for one in torch.eye(z[0, 0].numel(), dtype=torch.float64).view(-1, *z.shape[-2:]):
        columns.append((image(z + 1e-6 * one) - image(z - 1e-6 * one)) / 2e-6)
    jacobian = torch.stack(columns, -1)  # (B, T, H, W, C, S * K)
    free = z.clone().requires_grad_()
    critic(Latent(h.double(), free)).mode().sum().backward()
    unit = (free.grad / free.grad.flatten(2).norm(dim=2)[..., None, None]).flatten(2)
    along = (jacobian @ unit[:, :, None, None, :, None])[..., 0].abs().sum(-1)
    torch.testing.assert_close(maps.weighted_at_mean.double(), along, rtol=1e-3, atol=1e-6 * along.max().item())
    norm = jacobian.square().sum((-1, -2)).sqrt()
    ratio = (maps.plain_at_mean.double() / norm)[norm > 0.01 * norm.max()]
    assert 0.97 < ratio.mean() < 1.03 and ratio.std() < 0.15  # 64 random directions


def test_the_command_draws_measures_and_keeps(run: Any, catch: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("dream", catch, "--observed", 2, "--imagined", 5, "--rows", 2, "--sensitivity", "--device", "cpu")
    said = capsys.readouterr().out
    told = json.loads((catch / "dream/sensitivity-200.json").read_text())
    shares = told["share_on_moving_pixels"]
    kinds = {"plain", "weighted", "plain_at_mean", "weighted_at_mean", "plain_of_stoch", "weighted_of_stoch"}
    assert set(shares) == {*kinds, "pixels"}
    assert shares["weighted"] == pytest.approx(shares["weighted_of_stoch"], rel=1e-4)  # STORM's decoder reads no more
    assert all(0 <= one <= 1 for one in shares.values())
    assert 0 < shares["pixels"] < 0.1  # ball and paddle are some 100 of 4,096 pixels
    assert "sensitivity-200.png" in said and "weighted at mean" in said
    kept = np.load(catch / "dream/sensitivity-200.npz")
    rows = len(kept["true"])
    assert kept["plain"].shape == kept["weighted"].shape == (rows, 5, 64, 64)
    assert kept["predicted"].shape == (rows, 7, 64, 64, 3) and kept["valid"].shape == (rows, 7)
    assert told["frames"] == kept["valid"][:, 2:].sum()
    assert (kept["plain"] > 0).all()  # every pixel is reached from the latent
    for t in range(5):  # moving: where consecutive true frames differ, as the maps' mass is counted
        frames = kept["true"][:, t + 1 : t + 3]
        assert ((np.abs(frames[:, 1] - frames[:, 0]).max(-1) > 10 / 255).mean((1, 2)) < 0.1).all()
    assert "sensitivity" not in str(json.loads((catch / "dream/200.json").read_text())["video"])


def test_it_is_refused_in_one_sentence(tmp_path: Path, run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    pole = tmp_path / "pole"
    run("train", "--preset", "tiny", "--device", "cpu", "--task", "gym:CartPole-v1", "--steps", 60, "--logdir", pole)
    for folder, sentence in [
        (pole, "gym:CartPole-v1 shows no image"),
        (tmp_path / "none", "there is no run in"),
    ]:
        with pytest.raises(SystemExit):
            main(APP, ["dream", str(folder), "--sensitivity", "--imagined", "5"])
        said = capsys.readouterr().err
        assert sentence in said and "Traceback" not in said
    for path in (pole / "checkpoint").glob("*"):
        path.rename(path.with_name(f"gone-{path.name}"))
    with pytest.raises(SystemExit):
        main(APP, ["dream", str(pole), "--sensitivity"])
    assert "there is no checkpoint" in capsys.readouterr().err
