"""The law of an app finds what does not hold. Apps are held to it in their own tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from wm_run.testing import Failed
from wm_run.testing.app import check_goes_on, check_other_runs, check_refusal, mistakes


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
