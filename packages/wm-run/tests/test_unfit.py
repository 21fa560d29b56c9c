"""States under right hashes that no run writes: one sentence each, and the folder stays as it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from wm_run import checkpoint
from wm_run.cli import main

made: list[Path] = []


@pytest.fixture
def run(fakes: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 140 steps, trained once, with one checkpoint."""
    monkeypatch.setattr("wm_run.dreams.videos", lambda session, step: [])
    if not made:
        made.append(tmp_path_factory.mktemp("runs") / "D")
        main(
            fakes.app,
            ["train", "--preset", "tiny", "--steps", "140", "--chunk", "8", "--keep", "1", "--logdir", str(made[0])],
        )
        capsys.readouterr()
    shutil.copytree(made[0], "D")
    return Path("D")


def rewrite(run: Path, change: Callable[[dict[str, Any], dict[str, Any]], Any]) -> None:
    """The last checkpoint, written anew by our own writer with other content: hashes and seal are right."""
    path = checkpoint.latest(run)
    assert path is not None
    saved = checkpoint.load(path)
    change(saved.state, saved.weights)
    checkpoint.save(run, saved.step, weights=saved.weights, state=saved.state, meta=saved.meta, keep=1)


def files(run: Path) -> dict[str, bytes]:
    return {
        str(path): path.read_bytes() for path in sorted(run.rglob("*")) if path.suffix in (".chunk", ".jsonl", ".pt")
    }


STATES: dict[str, Callable[[dict[str, Any], dict[str, Any]], Any]] = {
    "no carry": lambda state, weights: state["loop"].pop("carry"),
    "no loop": lambda state, weights: state.pop("loop"),
    "a list": lambda state, weights: state.update(loop=[1]),
    "position -5": lambda state, weights: state["replay"].update(position=-5),
    "position 2^63": lambda state, weights: state["replay"].update(position=2**63),
    "position of 5,000 digits": lambda state, weights: state["replay"].update(position=10**5000),
    "offsets -1": lambda state, weights: state["run"].update({"scores.jsonl": -1}),
    "offsets 2^63": lambda state, weights: state["run"].update({"scores.jsonl": 2**63}),
    "offsets of 5,000 digits": lambda state, weights: state["run"].update({"scores.jsonl": 10**4000}),
    "a queue out of the replay": lambda state, weights: state["replay"]["queue"].__iadd__(10**6),
    "a generator that is none": lambda state, weights: state["replay"].update(rng="[" * 5000),
    "weights that are nan": lambda state, weights: weights["weight"].fill_(float("nan")),
}


@pytest.mark.parametrize("name", STATES)
def test_a_state_that_no_run_writes_is_one_sentence(fakes: Any, capsys: Any, run: Path, name: str) -> None:
    def change(state: dict[str, Any], weights: dict[str, Any]) -> None:
        if "queue" in name and not len(state["replay"]["queue"]):
            state["replay"]["queue"].resize((1, 2), refcheck=False)
        STATES[name](state, weights)

    rewrite(run, change)
    before = files(run)
    said = fakes.refused(capsys, "train --logdir D --steps 180")
    assert "D/checkpoint/" in said or "copy the checkpoint again" in said
    assert files(run) == before


@pytest.mark.parametrize("name", ["no loop", "a list", "weights that are nan", "steps of 5,000 digits"])
def test_what_acts_only_refuses_it_too(fakes: Any, capsys: Any, run: Path, name: str) -> None:
    odd = STATES.get(name, lambda state, weights: state["loop"].update(steps=10**5000))
    rewrite(run, odd)
    if name == "no loop":  # of which acting needs nothing but what training remembered
        main(fakes.app, ["eval", "D", "--episodes", "1"])
        return
    assert "D/checkpoint/" in fakes.refused(capsys, "eval D --episodes 1")


@pytest.mark.parametrize("text", ["9" * 5000, "[" * 5000], ids=["5,000 digits", "5,000 deep"])
def test_numbers_and_lists_without_end_are_one_sentence(fakes: Any, capsys: Any, run: Path, text: str) -> None:
    config = (run / "config.toml").read_text()
    (run / "config.toml").write_text(f"odd = {text}\n{config}")
    assert "config.toml" in fakes.refused(capsys, "eval D --episodes 1")
    (run / "config.toml").write_text(config)
    (run / "replay/commit.json").write_text(json.dumps({"position": 0})[:-2] + text)
    assert "commit.json" in fakes.refused(capsys, "train --logdir D --steps 180")
    for path in run.glob("checkpoint/*/manifest.json"):
        path.write_text(f'{{"format": {text}')
    assert "checkpoint" in fakes.refused(capsys, "eval D --episodes 1")
