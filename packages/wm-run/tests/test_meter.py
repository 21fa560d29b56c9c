"""The packed meter against a sum for each metric, bit by bit; and what it asks of a device."""

from __future__ import annotations

import itertools
import math
import random
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: PLC2701
from wm_core import health
from wm_run.meter import Meter


def separately(updates: list[dict[str, torch.Tensor]]) -> dict[str, float]:
    """As it was: one sum and one count a name."""
    sums: dict[str, torch.Tensor] = {}
    counts: dict[str, int] = {}
    for metrics in updates:
        for name, value in metrics.items():
            value = value.double()
            sums[name] = sums[name] + value if name in sums else value
            counts[name] = counts.get(name, 0) + 1
    return {name: sums[name].item() / counts[name] for name in sums}


def test_means_are_those_of_separate_sums() -> None:
    rng = random.Random(0)
    kinds: Any = {"a": torch.float32, "b": torch.int64, "c": torch.float64, "d": torch.float32, "e": torch.bfloat16}
    for _ in range(30):
        updates = []
        for _ in range(rng.randint(1, 6)):
            names = rng.sample(sorted(kinds), rng.randint(1, 5))
            updates.append({name: torch.tensor(rng.uniform(-9e4, 9e4)).to(kinds[name]) for name in names})
        meter, half = Meter(), Meter()
        for i, metrics in enumerate(updates):
            meter.add(metrics)
            if i == len(updates) // 2:
                half.load_state(meter.state(), "cpu")
            elif i > len(updates) // 2:
                half.add(metrics)
        expected = separately(updates)
        assert meter.means() == half.means() == expected and list(meter.means()) == list(expected)
        assert meter.take() == expected and meter.take() == {}


def test_a_sign_of_zero_stays() -> None:
    meter = Meter()
    meter.add({"a": torch.tensor(-0.0)})
    meter.add({"b": torch.tensor(-0.0)})
    assert [str(value) for value in meter.take().values()] == ["-0.0", "-0.0"]


def test_an_update_more_costs_three_calls_however_many_metrics_there_are() -> None:
    class Count(TorchDispatchMode):
        calls = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            Count.calls += "detach" not in func.name()
            return func(*args, **(kwargs or {}))

    for many in (3, 90):
        meter, Count.calls = Meter(), 0
        updates = [{f"loss/{i}": torch.tensor(float(i)) for i in range(many)} for _ in range(2)]
        meter.add(updates[0])
        with Count():
            meter.add(updates[1])
        assert Count.calls == 3, many
    assert all(value == i for value, i in zip(meter.take().values(), itertools.count()))


def test_a_mean_over_rare_steps_is_exact_over_an_interval_and_absent_without_any():
    """Two batches, errors 3 on one paid step and 1 on two: 5/3, not the mean of means; a third batch pays nothing."""
    meter = Meter()
    for real, guess in (([2.0, 0.0], [5.0, 0.0]), ([1.0, 1.0], [2.0, 0.0]), ([0.0, 0.0], [9.0, 0.0])):
        one = {"reward": torch.tensor([real]), "terminal": torch.zeros(1, 2, dtype=torch.bool)}
        meter.add(health.calibration(torch.tensor([guess]), torch.ones(1, 2), one, discount=1.0))
    found = meter.take()
    assert found["health/reward_mae_nonzero"] == pytest.approx(5 / 3)
    assert math.isnan(found["health/cont_at_end"])
    assert not any(name.startswith("weight/") for name in found)
