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
    assert (
        told[2] == app and all(str(word) in told for word in words) and job.logdir.startswith("runs/battles/smax_3m-")
    )
    config = parse(importlib.import_module(f"{app}.cli").APP, told[3:]).config
    assert (config.task, config.steps, config.eval_every, config.eval_acting) == ("smax:3m", 300, 100, "mode")
    assert (config.seed, config.eval_episodes, config.final_episodes, config.final_video) == (1, 128, 0, False)


def test_a_suites_row_becomes_one_of_these() -> None:
    battle = battles.Battle("smax:3m", "mappo", 0, 300, 100)
    won = [[100, 0.0], [200, 0.5]]
    found = {"evaluations_of": {"won": won}, "commit": "12345678", "hardware": {"cores": 2}}
    row = battles.row_of(battle, found)
    kept = json.loads(battles.ROWS.read_text().splitlines()[-1])
    for later in ("spent", "scores", "played"):  # which the first rows do not say
        kept.pop(later, None)
    assert row.keys() == kept.keys() and row["evaluations"] == won and row["last_3"] == 0.25
    assert [type(value) for value in row.values()] == [type(value) for value in kept.values()]
    more = {"spent": [[100, 7.5], [200, 15.0]]}
    assert battles.row_of(battle, found | more) == row | more
    scored = battles.row_of(battle, found | {"evaluations": [[100, 0.5], [200, 1.0]]})
    assert scored == row | {"scores": [[100, 0.5], [200, 1.0]]}
    played = battles.row_of(battle, found | {"training": [1.0, 0.5], "training_of": {"won": [1.0, 0.0]}})
    assert played == row | {"played": [0.5, 0.75]}
    ends = [battles.table([one]).splitlines()[8].rsplit("|", 4)[1:4] for one in (row, scored, played)]
    assert ends == [[" - ", " - ", " - "], [" 0.75 ", " - ", " - "], [" - ", " 0.50 ", " 0.75 "]]


def test_a_win_rate_costs_what_was_spent_until_it_was_reached() -> None:
    def row(arm: str, seed: int, won: list[float], spent: list[float] | None) -> dict[str, object]:
        at = list(range(1, len(won) + 1))
        found = {"evaluations_of": {"won": [*zip(at, won, strict=True)]}, "commit": "12345678", "hardware": {}}
        if spent is not None:
            found["spent"] = [*zip(at, spent, strict=True)]
        return battles.row_of(battles.Battle("smax:3m", arm, seed, 3, 1), found)

    rows = [row("mappo", 0, [0.01, 0.06, 0.04], [10, 20, 30]), row("mappo", 1, [0.3, 0.0, 0.0], [11, 21, 1234])]
    said = battles.prices([*rows, row("dmawm", 0, [0.5], None)])
    assert said[-1] == "| smax:3m | mappo | 3 | 20, 11 | 20, 11 | -, 11 | -, 11 | 30, 1,234 |"
    assert not battles.prices([row("dmawm", 0, [0.5], None)])
    assert battles.prices(rows) == said


def test_the_rows_give_the_page_that_is_kept() -> None:
    assert battles.table(battles.rows()) == battles.PAGE.read_text()
