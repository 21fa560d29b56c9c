"""Vectors that the environments draw are shown as pictures: in films of open loops, and by whoever plays."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import imageio.v3 as imageio
import numpy as np
import torch
from numpy.typing import NDArray
from wm_run.dreams import show
from wm_run.filmstrip import GONE
from wm_run.observer import Observer
from wm_run.openloop import OpenLoop


def grey(values: NDArray[Any]) -> NDArray[np.uint8]:
    """As bright as the first number says."""
    return np.broadcast_to(values[..., :1, None, None], (*values.shape[:-1], 64, 64, 3)).round().astype(np.uint8)


def test_an_open_loop_of_vectors_is_a_film_where_they_can_be_drawn(tmp_path: Path) -> None:
    true, predicted = torch.full((2, 5, 3), 100.0), torch.full((2, 5, 3), 40.0)
    valid = torch.ones(2, 5, dtype=torch.bool)
    valid[1, 3:] = False
    found = OpenLoop("vector", true, predicted, 2, valid)
    assert [path.name for path in show(tmp_path, "7", found, 2)] == ["openloop-7.png"]  # traces
    film, strip = show(tmp_path, "8", found, 2, grey)
    assert (film.name, strip.name) == ("openloop-8.mp4", "openloop-8.png")
    assert len(imageio.imread(film, plugin="pyav")) == 5
    page = imageio.imread(strip)
    middles = [page[16 + 32 + 66 * i, 72 + 32 + 66 * column, 0] for i in range(3) for column in (0, 4)]
    assert middles == [100, 100, 40, 40, 60, 60]  # true, predicted, error
    assert page[16 + 3 * 66 + 6 + 66 + 32, 72 + 32 + 66 * 4, 0] == GONE  # where none was asked


def test_what_is_seen_and_what_is_expected_are_drawn_alike() -> None:
    latent: Any = SimpleNamespace()
    agent: Any = SimpleNamespace(device="cpu", eval=lambda: None)
    step = {"vector": np.array([[[1.0, 2.0], [3.0, 4.0]]])}
    plain, drawing = (
        Observer(agent, "vector", seed=0, team=latent, which=1, draw=draw)
        for draw in (None, lambda value: value[:, None] * [7])
    )
    assert np.array_equal(plain.seen(step), [3.0, 4.0]) and np.array_equal(drawing.seen(step), [[21.0], [28.0]])
    assert np.array_equal(plain.draw(np.ones((2, 3))), np.ones(6)) and plain.draw(np.ones((2, 2, 3))).shape == (2, 2, 3)
