"""A whole run of MAPPO: the law of an app, going on, being killed, what it refuses, and what each update is made of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mappo.agent import Mappo
from mappo.cli import APP
from wm_run.cli import parse
from wm_run.configs import resolve
from wm_run.testing import check_app, check_goes_on_alike


def test_it_obeys_the_law_of_an_app(tmp_path: Path, run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    logdir = check_app(APP, tmp_path)
    with pytest.raises(SystemExit) as end:
        run("play", logdir)
    assert end.value.code == 2
    assert capsys.readouterr().err == (
        "mappo: mappo learns no world model: `play` has no expectation to draw; `eval` plays, and says how well\n"
    )


@pytest.mark.parametrize("actor", ["mlp", "gru"])
def test_stopped_and_resumed_equals_one_run(actor: str, tmp_path: Path) -> None:
    """Stopped in the middle of a row, of which the rest is played by the process that goes on."""
    options = ("--task", "toy:leavers", "--actor", actor, "--backward", 4)
    state = check_goes_on_alike(APP, tmp_path, *options, stop=110)
    assert state["replay"]["position"] % 8 != 1 and not len(state["replay"]["queue"])


def test_every_transition_is_learned_from_once_and_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Any
) -> None:
    """Rows are T + 1 records of every stream, each beginning where the last one ended, the newest when they are used."""
    rows, learn = [], Mappo.learn

    def watched(agent: Mappo, feed: Any) -> Any:
        sample = feed.sample

        def sampled(*asked: Any, **more: Any) -> Any:
            batch = sample(*asked, **more)
            rows.append((batch.index.stream.tolist(), batch.index.start.tolist(), feed.replay._position))  # noqa: SLF001
            return batch

        feed.sample = sampled
        try:
            return learn(agent, feed)
        finally:
            del feed.sample

    monkeypatch.setattr(Mappo, "learn", watched)
    run("train", "--preset", "tiny", "--device", "cpu", "--final-video", "False", "--logdir", tmp_path / "run")
    assert len(rows) > 10
    assert rows == [([0, 1], [8 * i, 8 * i], 8 * i + 9) for i in range(len(rows))]


def test_smax_is_played_without_a_forbidden_action_and_won_or_lost(tmp_path: Path, run: Any) -> None:
    """SMAX raises for an action that its mask forbids. 400 steps of 4 battles, sampled and greedy, some of the dead."""
    small = ("--envs", 4, "--batch", 4, "--steps", 1600, "--eval-episodes", 4, "--eval-every", 800)
    run("train", "--preset", "tiny", "--device", "cpu", "--task", "smax:3m", *small, "--logdir", tmp_path / "run")
    scores = [json.loads(line) for line in (tmp_path / "run/scores.jsonl").read_text().splitlines()]
    assert len(scores) > 30 and {row["episode/won"] for row in scores} <= {0.0, 1.0}
    evaluations = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert all(0 <= row["eval/won"] <= 1 for row in evaluations if "eval/score" in row)
    assert any("eval/won" in row for row in evaluations)
    assert [path.suffix for path in (tmp_path / "run/video").iterdir()] == [".mp4"]  # battles: there is no world model


# ---- numbers


@pytest.mark.parametrize("preset", ["smax", "paper", "meltingpot", "cpu", "tiny"])
def test_a_preset_is_one_update_of_every_environments_newest_steps(preset: str) -> None:
    config: Any = resolve(APP, preset)
    assert config.mistake == ""
    assert config.replayed == config.batch * config.stride == config.envs * (config.length - 1)
    assert config.longest == config.length and config.train_ratio == 1 and config.ratio_counts == "records"


@pytest.mark.parametrize("ablation", ["ippo", "living-values", "raw-values"])
def test_an_ablation_is_another_learner(ablation: str, play: Any, tiny: Any) -> None:
    """One number is another, and what is learned from the same rows is, too."""
    plain, other = resolve(APP, "tiny"), resolve(APP, "tiny", ablation=ablation)
    (field,) = (name for name, value in vars(other).items() if vars(plain)[name] != value)
    rows = play(rows=2)
    expected = rows.agent.update(rows.rows[-1])[0]["loss/value"]
    changed = play(rows=2, **{field: vars(other)[field]})
    assert changed.agent.update(changed.rows[-1])[0]["loss/value"] != expected


MISTAKES = {
    "--batch 4": "batch is 4 and envs 2",
    "--envs 4": "give both alike",
    "--train-ratio 2": "say how often with --epochs",
    "--ratio-counts actions": "train_ratio must be 1",
    "--learning-starts 19": "leave it at 0",
    "--first-updates 2": "leave it out",
    "--online-stride 7": "a row is due every 8 steps",
    "--actor gru --backward 3": "give --length 7",
}
ZEROS = {
    "--huber 0": "huber must be above 0, not 0",
    "--clip 0": "clip must be above 0, not 0",
    "--advantage-floor 0": "advantage_floor must be above 0, not 0",
    "--grad-clip 0": "grad_clip bounds gradients and must be above 0",
}


@pytest.mark.parametrize("words", MISTAKES | ZEROS)
def test_what_rows_of_the_newest_or_ppo_rule_out_is_a_sentence(words: str) -> None:
    with pytest.raises(Exception, match=(MISTAKES | ZEROS)[words]) as told:
        parse(APP, ["train", "--preset", "tiny", *words.split()])
    assert "\n" not in str(told.value)


def test_the_way_out_of_a_sentence_is_one() -> None:
    assert parse(APP, ["train", "--preset", "tiny", "--actor", "gru", "--backward", "3", "--length", "7"])
    assert parse(APP, ["train", "--preset", "tiny", "--train-ratio", "0", "--learning-starts", "18"])
