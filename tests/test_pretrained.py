"""The agents in pretrained/: each is small, loads by its name, plays as its card says, and says what it was made with."""

from __future__ import annotations

import importlib
import json
import math
import pathlib

import numpy as np
import pytest
from wm_run import agents, card, published
from wm_run.app import App
from wm_run.cli import main

ROOT = pathlib.Path(__file__).resolve().parents[1]
SHELF = ROOT / "pretrained"
NAMES = sorted(path.parent.name for path in SHELF.glob("*/agent.json"))
EACH, ALL = 5_000_000, 20_000_000  # bytes


def app_of(name: str) -> App:
    app: App = importlib.import_module(f"{published.read(SHELF / name)['app']}.cli").APP
    return app


def size(folder: pathlib.Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_a_checkout_has_agents_and_they_are_small() -> None:
    assert NAMES and agents.shelf() == SHELF
    assert all(size(SHELF / name) <= EACH for name in NAMES) and size(SHELF) <= ALL
    assert {path.name for path in SHELF.iterdir() if path.is_dir()} == set(NAMES)
    assert all(
        {path.name for path in (SHELF / name).iterdir()} <= {"agent.json", "README.md", *published.POSSIBLE}
        for name in NAMES
    )


@pytest.mark.parametrize("name", NAMES)
def test_it_plays_as_its_card_says(
    name: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    about, facts = published.checked(SHELF / name), card.facts((SHELF / name / "README.md").read_text())
    main(app_of(name), ["eval", f"pretrained:{name}", "--episodes", "3", "--device", "cpu"])
    result = json.loads(capsys.readouterr().out)
    assert result["step"] == about["step"] and len(result["scores"]) == 3
    shipped = next(row for row in facts["scores"] if row["seed"] == facts["seed"])
    if not isinstance(shipped["score"], dict):  # else it is a measure of its own
        spread = shipped["standard_error"] * math.sqrt(shipped["episodes"] / 3)
        assert abs(np.mean(result["scores"]) - shipped["score"]) <= 4 * spread + 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_its_card_says_what_it_is(name: str) -> None:
    about, facts = published.read(SHELF / name), card.facts((SHELF / name / "README.md").read_text())
    assert {field: facts[field] for field in ("app", "task", "step", "protocol")} == {
        field: about[field] for field in ("app", "task", "step", "protocol")
    }
    assert facts["license"] == "mit" and facts["parameters"] > 0 and facts["hardware"] and facts["commit"]
    assert facts["command"].startswith(f"uv run -m {facts['module']} train --preset ")
    for row in facts["scores"]:
        scores = row["score"].values() if isinstance(row["score"], dict) else [row["score"]]
        assert np.isfinite(list(scores)).all() and row["episodes"] >= 30 and row["step"] > 0 and row["commit"]
    assert sum(row["seed"] == facts["seed"] and row["step"] == facts["step"] for row in facts["scores"]) == 1
