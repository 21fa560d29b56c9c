"""tools/new_app.py writes an app that obeys the law of an app, and lists it."""

from __future__ import annotations

import importlib
import pathlib
import shutil
import sys
import tomllib
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import new_app

TAKEN = {
    "new_idea": "is there already",
    "New-Idea": "small letters",
    "class": "would hide",
    "torch": "would hide",
    "dreamer": "would hide",
}


@pytest.fixture
def checkout(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    for name in ("pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "new_idea"]:
        del sys.modules[name]


def test_a_new_app_trains_and_obeys_the_law(checkout: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = new_app.write("new_idea", checkout)
    installed = checkout / "site" / "wm_app_new_idea-0.1.0.dist-info"  # as `uv sync` would leave it
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: wm-app-new-idea\nVersion: 0.1.0\n")
    monkeypatch.syspath_prepend(str(installed.parent))
    monkeypatch.syspath_prepend(str(folder / "src"))
    from wm_run.testing import check_app

    check_app(importlib.import_module("new_idea.cli").APP, checkout)


def test_it_is_listed_where_members_are(checkout: pathlib.Path) -> None:
    new_app.write("new_idea", checkout)
    root = tomllib.loads((checkout / "pyproject.toml").read_text())
    assert "wm-app-new-idea" in root["project"]["dependencies"]
    assert (checkout / "apps" / "new_idea" / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert root["tool"]["uv"]["sources"]["wm-app-new-idea"] == {"workspace": True}
    assert "new_idea" in root["tool"]["importlinter"]["root_packages"]
    assert "new_idea" in root["tool"]["importlinter"]["contracts"][0]["layers"][0].split(" | ")


def test_nothing_is_written_over(checkout: pathlib.Path) -> None:
    new_app.write("new_idea", checkout)
    before = (checkout / "pyproject.toml").read_text()
    for name, words in TAKEN.items():
        with pytest.raises(SystemExit, match=words):
            new_app.write(name, checkout)
    assert (checkout / "pyproject.toml").read_text() == before
