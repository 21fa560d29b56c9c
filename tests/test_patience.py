"""What a run says of its environments reaches them, in every app."""

from __future__ import annotations

import importlib
from typing import Any

import pytest


@pytest.mark.parametrize("app", ["dreamer", "po_dreamer", "r2i", "storm"])
def test_patience_attempts_restoring_and_grids_reach_the_environments(
    app: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}
    module = importlib.import_module(f"{app}.environments")
    monkeypatch.setattr(module, "make_vec", lambda task, n, **options: given.update(options))
    config = importlib.import_module(f"{app}.config").Config
    module.make(config(task="toy:catch", timeout=600.0, attempts=9, restore=False, grids=("a",)), 2)
    assert (given["timeout"], given["attempts"], given["restore"], given["grids"]) == (600.0, 9, False, ("a",))
