"""tools/battles.py: its runs as a suite's, and its rows and page as they were."""

from __future__ import annotations

import json
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import battles


@pytest.mark.parametrize("arm", list(battles.ARMS))
def test_an_arm_is_a_run_that_its_app_takes(arm: str) -> None:
    import importlib

    from wm_run.cli import parse

    job = battles.Battle("smax:3m", arm, 1, 300, 100).job
    app, *words = battles.ARMS[arm]
    told = job.command()
    assert told[2] == app and all(word in told for word in words) and job.logdir.startswith("runs/battles/smax_3m-")
    config = parse(importlib.import_module(f"{app}.cli").APP, told[3:]).config
    assert (config.task, config.steps, config.eval_every, config.eval_acting) == ("smax:3m", 300, 100, "mode")
    assert (config.seed, config.eval_episodes, config.final_episodes, config.final_video) == (1, 128, 0, False)


def test_a_suites_row_becomes_one_of_these() -> None:
    battle = battles.Battle("smax:3m", "mappo", 0, 300, 100)
    won = [[100, 0.0], [200, 0.5]]
    row = battles.row_of(battle, {"evaluations_of": {"won": won}, "commit": "12345678", "hardware": {"cores": 2}})
    kept = json.loads(battles.ROWS.read_text().splitlines()[-1])
    assert row.keys() == kept.keys() and row["evaluations"] == won and row["last_3"] == 0.25
    assert [type(value) for value in row.values()] == [type(value) for value in kept.values()]


def test_the_rows_give_the_page_that_is_kept() -> None:
    assert battles.table(battles.rows()) == battles.PAGE.read_text()
