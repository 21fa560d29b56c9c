"""`dream --sensitivity` of a Dreamer: what the decoder of its dream is sensitive to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest


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
