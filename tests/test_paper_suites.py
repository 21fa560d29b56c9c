"""The suites that come with wm-suite are of things that there are: apps, presets, ablations, options, tasks, tables."""

from __future__ import annotations

import dataclasses
import inspect
import os
import sys
import tomllib
from importlib import resources
from pathlib import Path

import pytest
from env_adapters import tasks
from env_adapters.atari import Atari
from env_adapters.smac_maps import SCENARIOS
from wm_suite import suites, tables
from wm_suite.normalise import limit, reference
from wm_suite.printed import printed
from wm_suite.rows import read_rows

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

import papers
import papers_cost

NAMES = suites.shipped()
KNOWN = {*tasks(), *(f"smacv2:{name}" for name in SCENARIOS)}
KNOWN |= {task.replace("dmc_", "dmc_vision_", 1) for task in KNOWN if task.startswith("dmc_")}


@pytest.mark.parametrize("name", NAMES)
def test_every_run_of_a_suite_is_one_that_its_app_can_make(name: str):
    for cell in suites.read(name).cells:
        config = papers.config_of(cell)  # presets, ablations, sizes and options by the app's own rules
        assert config.steps > 0
        assert cell.task in KNOWN, cell.task
        for option in cell.options:
            if option.startswith("env."):
                assert cell.task.startswith("atari100k_")
                assert option.removeprefix("env.") in inspect.signature(Atari).parameters


@pytest.mark.parametrize("name", papers.of_papers())
def test_a_papers_suite_has_its_tables_and_references(name: str):
    suite = suites.read(name)
    assert suite.minutes >= 10_000  # a run of a paper ends by its steps
    if suite.normalise:
        assert all(reference(task, suite.normalise) for task in suite.tasks)
    for one in suite.printed:
        printed(one)
    if suite.outcome:
        assert all(limit(task) for task in suite.tasks)
    assert papers.about(name).startswith(papers.PAPERS[name.partition("-")[0]])


@pytest.mark.parametrize("name", papers.of_papers())
def test_a_papers_suite_is_scored_by_what_its_runs_find_out(name: str):
    """`logged` has `trained` where a run ends with an evaluation, of as many episodes for every method of one backbone."""
    suite = suites.read(name)
    assert all(cell.measure == "wm_run.measures:logged" for cell in suite.cells)
    ends = {(cell.app, papers.config_of(cell).final_episodes) for cell in suite.cells}
    assert suite.score == ("trained" if all(episodes for _, episodes in ends) else "training")
    assert len(ends) == len({app for app, _ in ends})
    if suite.outcome:
        assert {episodes for _, episodes in ends} == {32}


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("po_dreamer-atari", "po_dreamer_table1"),
        ("po_dreamer-fusion", "po_dreamer_table2"),
        ("po_dreamer-components", "po_dreamer_table4"),
        ("po_dreamer-maze", "po_dreamer_table5"),
        ("var-atari", "var_table1"),
        ("var-dmc-vision", "var_table2_vision"),
        ("var-dmc-proprio", "var_table2_proprio"),
        ("var-weight", "var_table3"),
        ("r2i-bsuite-memory", "r2i_bsuite_memory"),
        ("r2i-bsuite-chain", "r2i_bsuite_chain"),
        ("r2i-popgym", "r2i_popgym"),
        ("r2i-maze", "r2i_memory_maze"),
    ],
)
def test_a_suite_runs_the_tasks_and_our_methods_of_its_table(name: str, table: str):
    suite, found = suites.read(name), printed(table)
    assert table in suite.printed and set(suite.tasks) == set(found.scores)
    strangers = {"DreamerV3 + static weight", "DreamerV3 + adaptive weight"} | (
        {"STORM", "STORM+Var"} & set(suite.arms)
    )
    ours = set(suite.arms) - strangers - {"CO Only", "DreamerV3"}
    assert ours and ours <= set(found.methods), ours - set(found.methods)


def test_every_ablation_of_po_dreamers_tables_is_a_run():
    for name, table in (("po_dreamer-fusion", 2), ("po_dreamer-components", 4), ("po_dreamer-maze", 5)):
        assert set(suites.read(name).arms) == set(printed(f"po_dreamer_table{table}").methods)


def test_every_printed_table_and_every_list_of_tasks_is_used():
    used = {one for name in NAMES for one in suites.read(name).printed}
    assert set(tables.names("scores")) - used == {"r2i_step_times"}  # no run is needed: docs/results/papers.md
    lists = tomllib.loads((resources.files("wm_suite") / "data" / "tasks.toml").read_text("utf-8"))
    texts = "".join((resources.files("wm_suite") / "suites" / f"{name}.toml").read_text("utf-8") for name in NAMES)
    assert [one for one in lists if f'tasks = "{one}"' not in texts] == []


def test_the_page_of_the_papers_suites_is_as_they_are():
    assert papers.table() in papers.FILE.read_text(), "uv run tools/papers.py --write"


def test_rows_of_what_runs_take_are_of_kinds_that_there_are():
    """A field that a config gains must not orphan what was counted before."""
    have = {row["kind"] for row in read_rows(papers_cost.ROWS)}
    assert have
    assert have <= {kind for kind, _, _ in papers_cost.kinds(papers.of_papers())}


def test_a_kind_is_of_the_network_and_of_how_long_it_learns():
    cell = next(cell for cell in suites.read("po_dreamer-atari").cells if cell.arm == "PO-Dreamer")
    config = papers_cost.config_of(cell)
    kind = papers_cost.kind_of(cell.app, config, cell.task)
    newer = dataclasses.make_dataclass("Newer", [("heads_of_next_year", int, 3)], bases=(type(config),), frozen=True)
    fields = {one.name: getattr(config, one.name) for one in dataclasses.fields(config)}
    assert papers_cost.kind_of(cell.app, newer(**fields), cell.task) == kind
    assert papers_cost.kind_of(cell.app, newer(**fields, heads_of_next_year=4), cell.task) != kind
    for same in ({"seed": 7}, {"final_episodes": 1}, {"act_temperature": 0.5}):
        assert papers_cost.kind_of(cell.app, dataclasses.replace(config, **same), cell.task) == kind
    for other in ({"deter": 8}, {"steps": 8}, {"env": {"size": 96}}):
        assert papers_cost.kind_of(cell.app, dataclasses.replace(config, **other), cell.task) != kind
    assert papers_cost.kind_of(cell.app, config, "memory_maze_9x9") != kind
    assert papers_cost.kind_of("r2i", config, cell.task) != kind


def test_a_kind_that_could_not_be_counted_is_tried_again_and_stands_once(monkeypatch, tmp_path) -> None:
    file, answers = tmp_path / "papers.jsonl", [{"error": "no game"}, {"error": "no game"}, {"updates": 5}]
    cell = next(cell for _, cell, _ in papers_cost.kinds(["var-cost"]))
    monkeypatch.setattr(papers_cost, "ROWS", file)
    monkeypatch.setattr(papers_cost, "kinds", lambda names: iter([("a", cell, None)]))
    monkeypatch.setattr(papers_cost, "counted", lambda kind, cell, config: {"kind": kind, **answers.pop(0)})
    for found in (1, 1, 2, 2):  # rows: the error, once; then the numbers, which nothing counts again
        papers_cost.count([])
        assert len(read_rows(file)) == found
    assert answers == [] and read_rows(file)[-1] == {"kind": "a", "updates": 5}


def test_where_no_game_is_named_the_tests_server_stands_in_and_goes_again(monkeypatch) -> None:
    monkeypatch.delenv("SC2PATH", raising=False)
    with papers_cost.game():
        folder = Path(os.environ["SC2PATH"])
        assert (folder / "Maps" / "SMAC_Maps" / "corridor.SC2Map").is_file()
    assert "SC2PATH" not in os.environ and not folder.exists()
    monkeypatch.setenv("SC2PATH", "mine")
    with papers_cost.game():
        assert os.environ["SC2PATH"] == "mine"
