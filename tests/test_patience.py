"""What a run says of its environments reaches them, in every app; what only some suites take is a wish."""

from __future__ import annotations

import importlib
from typing import Any

import env_adapters
import pytest

WISHES = {"dreamer": {"protocol": "dreamerv3"}, "r2i": {"resize": "opencv-area"}, "storm": {"protocol": "storm"}}


@pytest.mark.parametrize("app", ["dmawm", "dreamer", "mappo", "po_dreamer", "r2i", "storm"])
def test_patience_attempts_restoring_and_grids_reach_them(app: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(env_adapters, "make_vec", lambda task, n, **options: given.update(options))
    config = importlib.import_module(f"{app}.config").Config
    make = importlib.import_module(f"{app}.cli").APP.part("environments")
    make(config(task="toy:catch", timeout=600.0, attempts=9, restore=False, grids=("a",)), 2)
    assert (given["timeout"], given["attempts"], given["restore"], given["grids"]) == (600.0, 9, False, ("a",))
    assert given["wishes"].items() >= WISHES.get(app, {}).items()
