"""The law of an app finds what does not hold. Apps are held to it in their own tests."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from wm_run.testing import Failed, check_goes_on_alike
from wm_run.testing.app import check_finite, check_goes_on, check_other_runs, check_refusal, mistakes


def test_a_sentence_without_its_words_or_a_run_left_behind_fails(fakes, tmp_path: Path) -> None:
    line, words = next(iter(mistakes(fakes.app).items()))
    check_refusal(fakes.app, line, words, tmp_path)
    with pytest.raises(Failed, match="not a sentence with 'what nobody says'"):
        check_refusal(fakes.app, line, "what nobody says", tmp_path)
    (tmp_path / "runs").mkdir()
    with pytest.raises(Failed, match="leaves a run folder"):
        check_refusal(fakes.app, line, words, tmp_path)


def test_what_is_no_mistake_fails(fakes, tmp_path: Path) -> None:
    with pytest.raises(Failed, match="ends with 0"):
        check_refusal(fakes.app, "train --help", "", tmp_path)


def test_runs_of_others_are_refused(fakes, tmp_path: Path) -> None:
    check_other_runs(fakes.app, tmp_path)


def test_a_run_that_begins_anew_fails(fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it would be if rows were lost on the way."""
    from wm_run.cli import main

    words = ["train", "--preset", "tiny", "--device", "cpu", "--final-video", "False", "--logdir", str(tmp_path / "D")]
    main(fakes.app, words)
    check_goes_on(fakes.app, tmp_path / "D")
    monkeypatch.setattr("wm_run.testing.app._run", lambda app, words: (tmp_path / "D/metrics.jsonl").write_text(""))
    with pytest.raises(Failed, match="does not go on from"):
        check_goes_on(fakes.app, tmp_path / "D")


def trained(fakes, logdir: Path) -> Path:
    from wm_run.cli import main

    words = "train --preset tiny --device cpu --final-video False --learning_starts 8 --logdir"
    main(fakes.app, [*words.split(), str(logdir)])
    return logdir


def test_a_number_that_is_not_finite_fails(fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What no alarm stops: neither a loss nor the optimiser's."""
    check_finite(fakes.app, trained(fakes, tmp_path / "sound"))
    learn, odd = fakes.agent.learn, {"health/age": torch.tensor(math.inf)}
    monkeypatch.setattr(fakes.agent, "learn", lambda agent, replay: learn(agent, replay) | odd)
    with pytest.raises(Failed, match="health/age, in the log of a run of fakeapp, is not finite"):
        check_finite(fakes.app, trained(fakes, tmp_path / "odd"))


def test_a_run_that_forgets_at_its_stop_fails(fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    middle = check_goes_on_alike(fakes.app, tmp_path / "whole", "--learning_starts", 8, stop=100)
    assert middle["loop"]["length"].max() > 0
    load_state = fakes.agent.load_state

    def forgetful(agent, state) -> None:
        load_state(agent, state | {"moment": state["moment"] * 0})

    monkeypatch.setattr(fakes.agent, "load_state", forgetful)
    with pytest.raises(Failed, match="differs from unbroken in: weights"):
        check_goes_on_alike(fakes.app, tmp_path / "half", "--learning_starts", 8, stop=100)
