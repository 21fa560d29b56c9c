"""Players by rule, for recordings that are half random and half knowing: `wm-run collect ... --who random:0.5 players:breakout:0.5`.

Each is a function of the records alone, (n, ...) -> actions (n, A). Run from tools/, or with it on PYTHONPATH. Scores of ten
episodes: `uv run tools/players.py`.
"""

# n environments; the picture is 64 x 64

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import closing
from typing import Any

import numpy as np
from numpy.typing import NDArray

AIR, PADDLE, COURT = (
    slice(29, 57),
    slice(57, 59),
    slice(4, 60),
)  # rows below the bricks, of the paddle; columns between the walls
SEEN = 40  # summed over colours; the court itself is black
NOOP, FIRE, RIGHT, LEFT = range(4)


def breakout(record: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    """Follow the ball of `atari100k_breakout` from the picture alone; where none is in the air, ask for one.

    >>> court = np.zeros((1, 64, 64, 3), np.uint8)
    >>> court[0, 57:59, 40:47], court[0, 50, 20] = 200, 200
    >>> breakout({"image": court, "action": np.zeros((1, 4), np.float32)}).argmax(-1).tolist() == [LEFT]
    True
    """
    bright = record["image"].sum(-1, dtype=np.int64)
    ball, there = _middle(np.where(bright[:, AIR, COURT] > SEEN, bright[:, AIR, COURT], 0))
    paddle, _ = _middle(np.where(bright[:, PADDLE, COURT] > 200, 1, 0))
    choice = np.where(ball > paddle + 1.5, RIGHT, np.where(ball < paddle - 1.5, LEFT, NOOP))
    return np.eye(record["action"].shape[-1], dtype=np.float32)[np.where(there, choice, FIRE)]


def _middle(weights: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The mean column (n,) of what weighs something, and whether anything does."""
    columns = weights.sum(1).astype(np.float64)
    total = columns.sum(1)
    return columns @ np.arange(columns.shape[1]) / np.maximum(total, 1e-9), total > 0


def scores(task: str, player: Any, episodes: int = 10, seed: int = 0) -> list[float]:
    """Of one episode of each of so many environments."""
    from env_adapters import make_vec

    with closing(make_vec(task, episodes, workers=0)) as envs:
        step = envs.reset(seed=seed)
        total, over = np.zeros(episodes), np.zeros(episodes, np.bool_)
        while not over.all():
            step = envs.step(player(step))
            total += np.where(over, 0, step["reward"])
            over |= step["last"]
    return [float(one) for one in total]


if __name__ == "__main__":
    found = scores("atari100k_breakout", breakout)
    print(f"atari100k_breakout, ten episodes: mean {np.mean(found):.1f}, each {sorted(found)}")
    sys.exit(0)
