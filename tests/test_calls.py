"""No change makes an update or an act ask torch for more than tests/calls.json says, unless it says so too."""

from __future__ import annotations

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tools"))

from bench import record

APPS = list(record.recorded()["apps"])


def test_every_app_is_recorded() -> None:
    root = pathlib.Path(__file__).resolve().parents[1]
    apps = {folder.name for folder in (root / "apps").iterdir() if (folder / "pyproject.toml").is_file()}
    assert set(APPS) == set(record.APPS) and {app.partition(" ")[0] for app in APPS} <= apps


@pytest.mark.parametrize("app", APPS)
def test_an_update_makes_no_more_calls_than_recorded(app: str) -> None:
    kept = record.recorded()
    calls = record.update_calls(app, kept["length"], kept["horizon"])
    assert not record.verdict(f"an update of {app}", calls, kept["apps"][app]["update"])


@pytest.mark.parametrize("app", APPS)
@pytest.mark.parametrize("n", [1, 16])
def test_an_act_makes_no_more_calls_than_recorded(app: str, n: int) -> None:
    kept = record.recorded()["apps"][app]["act"][str(n)]
    assert not record.verdict(f"an act of {app} with {n} environments", record.act_calls(app, n), kept)


def test_a_gain_has_to_be_recorded_too() -> None:
    assert "hold the gain" in str(record.verdict("it", 900, 1000))
    assert record.verdict("it", 960, 1000) is None
    assert "40 more than recorded" in str(record.verdict("it", 1040, 1000))
