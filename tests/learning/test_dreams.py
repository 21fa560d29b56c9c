"""A dream in which others act: whether an agent's view of it shows what they do there.

Seconds of a core for each; what is asked is tools/interaction.py's, of smaller nets than preset whisper has.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from wm_run.testing.fixtures import one_thread

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import interaction

SMALL: dict[str, Any] = {"lr": 4e-3, "deter": 32, "hidden": 32, "width": 32, "feedforward": 64}
UPDATES = 450

__all__ = ["one_thread"]


def heard(variant: str, updates: int = UPDATES) -> float:
    """The share of dreamed views of `toy:whisper` that show what the left neighbour did in the dream; chance is 1/4."""
    return float(interaction.whisper(1, variant, updates, **SMALL)["heard"])


def test_with_the_interaction_predictor_a_dream_hears() -> None:
    assert heard("predictor") >= 0.8


@pytest.mark.parametrize(("variant", "updates"), [("IP", UPDATES), ("predictor", 0)])
def test_without_it_or_untrained_it_does_not(variant: str, updates: int) -> None:
    assert heard(variant, updates) <= 0.4
