"""Scores of tasks with different scales -> shares of the way from a random score to a reference: (x - random) / (reference - random).

0 is a random agent (or the least return there can be), 1 the reference: a person, an oracle, or the most there can be.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from wm_suite.errors import SuiteError
from wm_suite.statistics import Floats
from wm_suite.tables import entry, table


def reference(task: str, name: str) -> tuple[float, float]:
    """The random and the reference score of a task in a table of data/. Raises SuiteError where it has none.

    >>> reference("atari_pong", "atari_human")
    (-20.7, 14.6)
    """
    found = entry(table(name, "references")["references"], task)
    if found is None:
        raise SuiteError(
            f"{name} has no random and reference score of {task}: leave the task out, or name another table"
        )
    return float(found[0]), float(found[1])


def normalised(scores: ArrayLike, task: str, name: str) -> Floats:
    """Of any shape. Raises SuiteError as `reference` does.

    >>> normalised([-20.7, 14.6, 49.9], "atari100k_pong", "atari_human").round(9).tolist()
    [0.0, 1.0, 2.0]
    """
    least, most = reference(task, name)
    return (np.asarray(scores, np.float64) - least) / (most - least)


def every(scores: Mapping[str, ArrayLike], name: str) -> dict[str, Any]:
    """Of every task by its name, each with any number of seeds. Raises SuiteError as `reference` does."""
    return {task: normalised(one, task, name) for task, one in scores.items()}


def limit(task: str) -> int | None:
    """Steps after which a battle of SMAC or SMACv2 is a draw; None for other tasks.

    >>> limit("smac:2c_vs_64zg"), limit("smacv2:zerg_5_vs_5"), limit("smax:3m")
    (400, 200, None)
    """
    found = entry(table("smac_limits", "limits")["limits"], task)
    return None if found is None else int(found)
