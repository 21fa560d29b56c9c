"""What the record of an environment says whose own record never came: a truncation, or a reset that nobody acts on."""

# n environments

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from env_adapters.step import Step


def cut(step: Step, last: Step, lost: NDArray[np.bool_], action: NDArray[np.float32], signals: Iterable[str]) -> None:
    """Lost rows (n,) repeat their last record as a truncation, with the action just sent and reward 0; in place.

    >>> last = {"x": np.array([7]), "action": np.zeros((1, 2)), "reward": np.ones(1)}
    >>> last |= {name: np.array([False]) for name in ("first", "last", "terminal", "won")}
    >>> step = {name: array.copy() for name, array in last.items()} | {"x": np.array([0])}
    >>> cut(step, last, np.array([True]), np.array([[0.0, 1.0]]), ["won"])
    >>> [step[name].tolist() for name in ("x", "action", "reward", "last", "terminal")]
    [[7], [[0.0, 1.0]], [0.0], [True], [False]]
    """
    for name, array in step.items():
        array[lost] = last[name][lost]
    step["action"][lost] = action[lost]
    step["reward"][lost] = 0.0
    for name in ("first", "terminal", *signals):
        step[name][lost] = False
    step["last"][lost] = True


def stand_in(step: Step, last: Step | None, rows: NDArray[np.bool_], signals: Iterable[str]) -> None:
    """After a failure: resets that did not happen look like the last record, if there is one, as a first one; in place."""
    if last is not None:
        for name, array in step.items():
            array[rows] = last[name][rows]
    step["action"][rows], step["reward"][rows] = 0.0, 0.0
    for name in ("last", "terminal", *signals):
        step[name][rows] = False
    step["first"][rows] = True
