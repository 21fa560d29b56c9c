"""tools/catch_share.py: the share of a map on ball and paddle."""

from __future__ import annotations

import pathlib
import sys

import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tools"))

import catch_share
from env_adapters import make


def test_only_ball_and_paddle_of_valid_imagined_frames_count() -> None:
    env = make("toy:catch_distracted")
    frames = [env.reset(seed=3)[0]["image"]] + [env.step(2)[0]["image"] for _ in range(4)]
    true = np.stack([frames, frames])[..., :].astype(np.float32) / 255
    matters = np.stack([(f == (250, 215, 50)).all(-1) | (f == (70, 110, 240)).all(-1) for f in frames])[2:]
    assert (matters.sum((1, 2)) == 36 + 64).all()  # a ball of 6 x 6, a paddle of 8 x 8
    valid = np.ones((2, 5), bool)
    valid[1, 3:] = False
    maps = np.where(np.stack([matters, matters]), 4.0, 1.0)
    maps[1, 1:] = 1000.0  # not valid, not counted
    kept = {"true": true, "valid": valid, "context": np.array(2)} | dict.fromkeys(catch_share.MAPS, maps)
    found = catch_share.shares(kept)
    assert found["pixels"] == pytest.approx(100 / 4096)
    assert found["weighted"] == found["plain"] == pytest.approx(400 / (4096 + 300))
