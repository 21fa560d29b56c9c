"""What a finished run's folder says of its score."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from wm_core.errors import UserError
from wm_run import scoring
from wm_run.config import RunConfig
from wm_run.episodes import Episode
from wm_run.measures import RandomActions, logged


@pytest.fixture
def run(tmp_path: Path) -> Path:
    scores = [{"step": step, "episode/score": step / 10} for step in range(10, 201, 10)]
    metrics: list[dict[str, Any]] = [
        {"step": 100, "train/updates": 7},
        {"step": 100, "eval/score": 0.5, "eval/won": 0.25},
    ]
    metrics.append({"step": 200, "eval/score": 1.0, "eval/won": 0.5, "eval/episodes": 4})
    metrics += [{"step": 200, "train/updates": 15}, {"step": 200, "eval/score": None}]
    for name, rows in (("scores", scores), ("metrics", metrics)):
        text = "".join(f"{json.dumps(row)}\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(text + '{"step": 2')  # what a kill leaves
    (tmp_path / "config.toml").write_text('eval_acting = "sample"\n')
    (tmp_path / "eval").mkdir()
    return tmp_path


def evaluation(run: Path, name: str, score: float, **more: Any) -> None:
    found = {
        "step": int(name.split("-", maxsplit=1)[0]),
        "scores": [score, score],
        "lengths": [3, 4],
        "acting": "sample",
    } | more
    (run / "eval" / f"{name}.json").write_text(json.dumps(found))


def test_what_a_run_has_logged_is_its_measure(run: Path) -> None:
    found = logged(run, {})
    assert found["training"] == [19.0, 20.0] and found["updates"] == 15
    assert found["evaluations"] == [[100, 0.5], [200, 1.0]]
    assert found["evaluations_of"] == {"won": [[100, 0.25], [200, 0.5]]}
    assert "trained" not in found  # it has made no evaluation at its end
    assert "training_of" not in found  # its episodes have nothing but a score
    with (run / "scores.jsonl").open("w") as file:
        for step, won in ((20, 1.0), (190, 0.0), (200, 1.0)):
            file.write(json.dumps({"step": step, "episode/score": 1.5, "episode/length": 3, "episode/won": won}) + "\n")
    assert logged(run, {})["training_of"] == {"won": [0.0, 1.0]}


def test_the_runs_own_evaluation_is_taken_and_no_other(run: Path) -> None:
    for name, score in (
        ("100", 1.0),
        ("200", 2.0),
        ("200-mode", 3.0),
        ("200-5f83350f", 4.0),
        ("1000-mode-5f83350f", 5.0),
    ):
        evaluation(run, name, score, outcomes={"won": [1.0, 0.0]})
    found = logged(run, {})
    assert found["trained"] == [2.0, 2.0] and found["evaluated_at"] == 200 and found["lengths"] == [3, 4]
    assert found["won"] == [1.0, 0.0]
    (run / "config.toml").write_text('eval_acting = "mode"\n')
    assert logged(run, {})["trained"] == [3.0, 3.0]
    (run / "eval" / "200-mode.json").write_text("{")
    with pytest.raises(UserError, match=r"200-mode.json is damaged: remove it"):
        logged(run, {})


def test_reading_logs_needs_no_torch(run: Path) -> None:
    code = "import sys, pathlib, wm_run.measures as m; m.logged(pathlib.Path(sys.argv[1]), {}); print('torch' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code, str(run)], capture_output=True, text=True, check=True).stdout
    assert told == "False\n"


def test_each_episodes_outcome_stands_in_an_evaluation() -> None:
    episodes = [Episode(1.0, 3, {"won": 1.0}), Episode(0.0, 4, {"won": 0.0})]
    app: Any = SimpleNamespace(name="a")
    found = scoring.result(app, RunConfig(), 5, scoring.Scored(episodes, 2, "mode", {}), {}, remembers=False)
    assert found["won"] == 0.5 and found["outcomes"] == {"won": [1.0, 0.0]}
    none = scoring.Scored([Episode(1.0, 3, {})], 1, "mode", {})
    assert "outcomes" not in scoring.result(app, RunConfig(), 5, none, {}, remembers=False)


def test_random_actions_are_uniform_and_fit_the_space() -> None:
    agent = RandomActions(SimpleNamespace(discrete=(2, 3), continuous=2))
    actions = agent.act(None, {"first": np.ones(3000, bool)})[1]
    assert actions.shape == (3000, 7)
    assert np.abs(actions[:, :2].mean(0) - 1 / 2).max() < 0.04 and np.abs(actions[:, 2:5].mean(0) - 1 / 3).max() < 0.04
    assert np.abs(actions[:, 5:].mean(0)).max() < 0.06 and np.abs(actions[:, 5:].std(0) - 3**-0.5).max() < 0.03
