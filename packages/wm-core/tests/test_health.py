"""Health measures against tables made by hand."""

from __future__ import annotations

import math

import pytest
import torch
from wm_core import health
from wm_core.types import Dream, Latent

LN2 = math.log(2)


def logs(rows: list[list[float]]) -> torch.Tensor:
    """Log-probabilities (S, K) in float64."""
    return torch.tensor(rows, dtype=torch.float64).log()


@pytest.fixture
def posterior() -> tuple[torch.Tensor, torch.Tensor]:
    """B 1, T 2, S 3, K 4. Latent 0 is sure of a class each step, 1 knows nothing, 2 half of it; the prior is uniform."""
    sure = [1 - 3e-12, 1e-12, 1e-12, 1e-12]
    one = logs([sure, [0.25] * 4, [0.5 - 1e-12, 0.5 - 1e-12, 1e-12, 1e-12]])
    two = logs([sure[::-1], [0.25] * 4, [0.5 - 1e-12, 0.5 - 1e-12, 1e-12, 1e-12]])
    return torch.stack([one, two])[None], logs([[0.25] * 4] * 3).expand(1, 2, 3, 4)


def test_the_kl_of_each_latent(posterior):
    """KL to the uniform over 4: ln 4 where sure, 0 where uniform, ln 2 between two."""
    found = health.latents(*posterior)
    assert found["latent/kl"].item() == pytest.approx(3 * LN2, abs=1e-6)
    assert found["health/kl_max"].item() == pytest.approx(2 * LN2, abs=1e-6)
    assert found["health/dead_latents"].item() == 1
    assert found["latent/prior_entropy"].item() == pytest.approx(6 * LN2)
    assert found["latent/posterior_entropy"].item() == pytest.approx(3 * LN2, abs=1e-6)


def test_dead_codes_are_classes_that_no_step_is_surest_of(posterior):
    """Latent 0 uses classes 0 and 3, latents 1 and 2 one each: 4 of 12 live."""
    assert health.latents(*posterior)["health/dead_codes"].item() == pytest.approx(8 / 12)


def test_a_class_used_once_in_the_batch_is_alive(posterior):
    post, prior = posterior
    once = post.clone()
    once[0, 1, 1] = logs([[0.1, 0.7, 0.1, 0.1]])
    assert health.latents(once, prior)["health/dead_codes"].item() == pytest.approx(7 / 12)


@pytest.mark.parametrize("nats, dead", [(0.009, 1), (0.011, 0)])
def test_a_latent_is_dead_below_a_hundredth_of_a_nat(nats, dead):
    """The KL of (p, 1 - p) to the fair coin, at the p that gives these nats by bisection."""
    low, high = 0.5, 0.75
    for _ in range(60):
        p = (low + high) / 2
        low, high = (p, high) if LN2 + p * math.log(p) + (1 - p) * math.log(1 - p) < nats else (low, p)
    found = health.latents(logs([[p, 1 - p]])[None, None], logs([[0.5, 0.5]])[None, None])
    assert found["health/dead_latents"].item() == dead


def test_it_is_the_mean_over_steps_that_is_dead_not_a_step(posterior):
    """A latent that tells 1.39 nats once in 200 steps tells 0.007 on average."""
    post, prior = posterior
    rare = logs([[0.25] * 4]).expand(1, 200, 1, 4).clone()
    rare[0, 17] = post[0, 0, :1]
    assert health.latents(rare, prior[:, :1, :1].expand(1, 200, 1, 4))["health/dead_latents"].item() == 1


def test_both_branches_of_a_wider_posterior_count(posterior):
    post, prior = posterior
    found = health.latents(torch.cat([post, post], -2), torch.cat([prior, prior], -2))
    assert found["health/dead_latents"].item() == 2 and found["latent/kl"].item() == pytest.approx(6 * LN2, abs=1e-6)


# ---- heads

REWARD = [[0.0, 1.0, 0.0, -2.0], [0.0, 0.0, 0.0, 4.0]]
PREDICTED = [[0.5, 1.0, 0.0, -1.0], [0.0, 0.0, -0.5, 1.0]]  # errors .5 0 0 1 | 0 0 -.5 -3
CONT = [[0.9, 0.9, 0.45, 0.9], [0.9, 0.9, 0.9, 0.18]]  # on: 1 1 .5 1 | 1 1 1 .2 at a discount of 0.9
TERMINAL = [[False] * 4, [False, True, False, True]]


def steps() -> dict[str, torch.Tensor]:
    return {"reward": torch.tensor(REWARD), "terminal": torch.tensor(TERMINAL)}


def test_calibration_against_a_table():
    found = logged(health.calibration(torch.tensor(PREDICTED), torch.tensor(CONT), steps(), discount=0.9))
    assert found == pytest.approx(
        {
            "health/reward_bias": (0.5 + 1 - 0.5 - 3) / 8,
            "health/reward_mae": 5 / 8,
            "health/reward_mae_nonzero": (0 + 1 + 3) / 3,
            "health/cont_brier": (0.5**2 + 1**2 + 0.2**2) / 8,
            "health/cont_at_end": (1 + 0.2) / 2,
        }
    )


def test_a_dream_is_measured_where_it_began():
    """Rows b*T + t of the dream belong to step (b, t); later steps of the dream do not matter."""
    rows = torch.full((8, 4), 77.0)
    reward, cont = rows.clone(), rows.clone()
    reward[:, 0], cont[:, 0] = torch.tensor(PREDICTED).flatten(), torch.tensor(CONT).flatten()
    dream = Dream(Latent(torch.zeros(8, 4, 1), torch.zeros(8, 4, 1, 2)), torch.zeros(8, 3, 2), reward, cont)
    straight = health.calibration(torch.tensor(PREDICTED), torch.tensor(CONT), steps(), discount=0.9)
    assert health.dreamed(dream, steps(), 0.9) == straight


def test_the_value_bias_has_a_sign():
    found = logged(health.values(torch.tensor([[3.0, 1.0], [2.0, 2.0]]), torch.tensor([[1.0, 2.0], [0.0, 1.0]])))
    assert found == pytest.approx({"health/value_bias": 1.0, "health/value_mae": 1.5})


def logged(metrics: dict[str, torch.Tensor]) -> dict[str, float]:
    """What one update with these metrics logs: sums divided by their weights, where there is any."""
    assert all(value.ndim == 0 and not value.requires_grad for value in metrics.values())
    weight = {name: metrics[f"{health.WEIGHT}{name}"].item() for name in metrics if f"{health.WEIGHT}{name}" in metrics}
    shown = {name: value.item() for name, value in metrics.items() if not name.startswith(health.WEIGHT)}
    return {
        name: value if name not in weight else value / weight[name] if weight[name] else math.nan
        for name, value in shown.items()
    }


def test_no_measure_reads_the_device_or_carries_gradient(posterior, monkeypatch):
    """A host read inside an update would stall a GPU at every update."""

    def read(*args: object) -> None:
        raise AssertionError("a host read")

    for name in ("item", "tolist", "__bool__", "__float__", "__int__"):
        monkeypatch.setattr(torch.Tensor, name, read)
    post = posterior[0].clone().requires_grad_()
    reward = torch.tensor(PREDICTED).requires_grad_()
    found = health.latents(post, posterior[1]) | health.calibration(reward, torch.tensor(CONT), steps(), 0.9)
    found |= health.values(reward, torch.zeros(2, 4))
    assert not any(value.requires_grad for value in found.values())


def test_half_precision_does_not_swallow_the_calibration():
    reward = torch.tensor(PREDICTED).bfloat16()
    found = health.calibration(reward, torch.tensor(CONT).bfloat16(), steps(), 0.9)
    assert all(value.dtype == torch.float32 for value in found.values())
