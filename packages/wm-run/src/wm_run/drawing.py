"""Observations that are no images, as pictures, where the environments know how to draw them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from numpy.typing import NDArray

from wm_run.filmstrip import Pixels

Draw = Callable[[NDArray[Any]], Pixels]


def drawn(envs: Any, name: str | None) -> Draw | None:
    """Values (..., X) of the entry of a record with this name, true or a model's, -> pictures uint8 (..., H, W, 3); None where
    these environments draw none. No promise of Environments: `drawable` names such entries, `drawn(name, values)` draws.

    >>> import numpy as np
    >>> from types import SimpleNamespace
    >>> envs = SimpleNamespace(drawable=("state",), drawn=lambda name, values: np.zeros((*values.shape[:-1], 8, 8, 3), np.uint8))
    >>> drawn(envs, "state")(np.zeros((2, 5))).shape, drawn(envs, "vector"), drawn(object(), "state")
    ((2, 8, 8, 3), None, None)
    """
    return partial(envs.drawn, name) if name in getattr(envs, "drawable", ()) else None
