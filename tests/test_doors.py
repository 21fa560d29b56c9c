"""tools/doors.py and tools/visits.py: reference agents against counting by hand, the measure, the table, and rows."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from env_adapters import make_vec
from numpy.typing import NDArray

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tools"))

import doors
from visits import NearestNeighbour, visits
from wm_suite import suites
from wm_suite.rows import missing, read_rows

CHANCE, CUES = 0.25, 4
SUITES = pathlib.Path(__file__).resolve().parents[1] / "tools" / "suites"


class Scripted:
    """From the hidden rules: agent 0 of a team is right, agent 1 wrong, agent 2 right for the first two cues alone."""

    def __init__(self, envs: Any) -> None:
        self.envs = envs
        self.seen: list[tuple[NDArray[Any], NDArray[Any]]] = []  # of each episode's end: cues and who was right

    def initial(self, n: int) -> None: ...

    def act(self, carry: None, step: Any, mode: bool) -> tuple[None, NDArray[Any], dict[str, Any]]:
        assert mode
        cue = step["vector"][..., :CUES].argmax(-1)
        if step["last"].all():
            self.seen.append((cue, step["right"]))
        right = np.take_along_axis(np.array(self.envs.get("rule")), cue[..., None], -1)[..., 0]
        wrong = np.stack([np.zeros(len(cue), int), np.ones(len(cue), int), cue[:, 2] // 2], 1)
        return None, np.eye(4, dtype=np.float32)[(right + wrong) % 4], {}


def test_an_agents_own_doors_are_counted_whatever_its_team_is_paid() -> None:
    envs = make_vec("toy:doors_team", 5, cues=CUES, redraw=0)
    agent = Scripted(envs)
    found = visits(agent, envs, 3, steps=81)
    assert found["agents"][0] == [1.0] * 10 and found["agents"][1] == [0.0] * 10
    right, total = np.zeros((2, 3, 11))
    for env in range(5):
        for player in range(3):
            count = dict.fromkeys(range(CUES), 0)
            for cue, hit in agent.seen:
                count[c := int(cue[env, player])] += 1
                if count[c] <= 10:
                    right[player, count[c]] += hit[env, player]
                    total[player, count[c]] += 1
    assert found["n"] == total.sum(0)[1:].tolist() and found["n"][0] == 5 * 3 * CUES
    np.testing.assert_allclose(found["agents"], (right / np.maximum(total, 1))[:, 1:])
    np.testing.assert_allclose([found[str(k)] for k in range(1, 11)], (right.sum(0) / np.maximum(total.sum(0), 1))[1:])


def test_one_agent_is_counted_by_its_reward() -> None:
    envs = make_vec("toy:doors", 40, redraw=0)
    found = visits(NearestNeighbour(), envs, 0, steps=400)
    assert found["1"] == pytest.approx(CHANCE, abs=0.05) and found["n"][0] > 40 * 31  # 1,280 cues of 40 rules
    assert [found[str(k)] for k in range(2, 11)] == [1.0] * 9 and "agents" not in found


def test_a_memory_of_ones_own_knows_and_one_that_is_shared_mixes_the_rules() -> None:
    envs = make_vec("toy:doors_team", 24, redraw=0)
    own = visits(NearestNeighbour(3), envs, 1, steps=400)
    shared = visits(NearestNeighbour(3, shared=True), envs, 1, steps=400)
    assert own["1"] == pytest.approx(CHANCE, abs=0.05) and all(own[str(k)] == 1 for k in range(2, 11))
    assert own["n"] == shared["n"] and all(agent[1:] == [1.0] * 9 for agent in own["agents"])
    for k in range(2, 5):  # it is one's own visit that was the last in a third of the cases, else another's
        assert shared[str(k)] == pytest.approx(1 / 3 + 2 / 3 * CHANCE, abs=0.05) and shared["n"][k - 1] > 2000


@pytest.mark.parametrize(("agents", "shared"), [(1, False), (2, False), (2, True)])
def test_the_memory_holds_the_last_records_alone(agents: int, shared: bool) -> None:
    """Against lists of records, of which the oldest are thrown away."""
    options = {"cues": CUES, "redraw": 0, **({"agents": agents} if agents > 1 else {})}
    envs = make_vec("toy:doors" if agents == 1 else "toy:doors_team", 3, **options)
    window = 6
    memory, step = NearestNeighbour(agents, shared=shared, window=window), envs.reset(0)
    carry = memory.initial(3)
    banks: list[list[Any]] = [[] for _ in range(3 if shared else 3 * agents)]
    told = forgotten = 0
    for _ in range(80):
        carry, action, _ = memory.act(carry, step)
        chosen = action.reshape(3 * agents, 4).argmax(-1)
        shown = step["vector"].reshape(3 * agents, -1)
        for row, seen in enumerate(shown):
            bank = banks[row // agents if shared else row]
            known = [
                one for records in bank[-window:] for one in records if one[:CUES] @ seen[:CUES] and one[CUES:].any()
            ]
            if known:
                assert chosen[row] == known[-1][CUES:].argmax()
                told += 1
            else:
                forgotten += any(one[:CUES] @ seen[:CUES] for records in bank for one in records)
        for at, bank in enumerate(banks):
            bank.append(list(shown.reshape(len(banks), -1, shown.shape[1])[at]))
        step = envs.step(action)
    assert told > 50 and forgotten > 10


def measured(value: float) -> dict[str, Any]:
    found: dict[str, Any] = {str(k): CHANCE if k == 1 else value for k in range(1, 11)}
    return found | {"n": [9] * 10, "agents": [[CHANCE] + [value + change] * 9 for change in (-0.02, 0.0, 0.02)]}


@pytest.fixture
def place(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A folder of its own for rows, table and plot."""
    monkeypatch.setattr(doors, "RESULTS", tmp_path)
    return tmp_path


def test_rows_of_either_making_are_the_suites(place: pathlib.Path) -> None:
    """The seeds of a suite's runs that have rows are not run again, and both kinds stand in one table."""
    suite = suites.read("doors_team", folders=[SUITES])
    old = {"variant": "co-co", "policy": "mat", "seed": 0, "trained": measured(0.2), "untrained": measured(0.25)}
    cell = next(cell for cell in suite.cells if (cell.arm, cell.seed) == ("co-co mat", 1))
    new = {"task": cell.task, "arm": cell.arm, "seed": 1, "settings": cell.settings, "right_at_5": 0.3}
    new |= {"trained": measured(0.3), "untrained": measured(0.25)}
    found = doors.modern("doors_team", [old, new])
    assert found[1] == new and found[0]["right_at_5"] == 0.2
    left = missing(suite, found)
    assert len(left) == len(suite.cells) - 2
    assert not [cell for cell in left if cell.arm == "co-co mat" and cell.seed < 2]
    (place / "doors_team.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in (old, new)))
    assert list(doors.lines_of(doors.TASKS["doors_team"])) == ["co-co, mat"]
    assert "| co-co, mat | 2 | 0.25 (0.25-0.25) | 0.25 (0.20-0.30) |" in doors.table(
        doors.TASKS["doors_team"], {"oracle": measured(1.0)}
    )


@pytest.mark.parametrize("name", ["doors", "doors_team"])
def test_the_suite_has_the_runs_whose_rows_are_kept(name: str) -> None:
    suite = suites.read(name, folders=[SUITES])
    found = doors.modern(name, read_rows(SUITES.parents[1] / "docs" / "results" / f"{name}.jsonl"))
    assert {(row["task"], row["arm"]) for row in found} <= {(cell.task, cell.arm) for cell in suite.cells}
    assert {cell.measure for cell in suite.cells} == {"doors:measured"} and suite.score == "right_at_5"
    missing(suite, found)  # raises where the settings of a row are not the suite's
    assert {cell.task.removeprefix("toy:") for cell in suite.cells} == {name}


def test_a_run_is_measured_as_the_table_has_it(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the measure's name, of a run of the tiny preset, whose agent knows nothing."""
    monkeypatch.setattr(doors, "TASKS", {"doors": dataclasses.replace(doors.TASKS["doors"], envs=8)})
    monkeypatch.setattr(doors, "visits", lambda agent, envs, seed, steps=0: visits(agent, envs, seed, steps=100))
    command = [sys.executable, "-m", "po_dreamer", "train", "--preset", "tiny", "--task", "toy:doors", "--steps", "80"]
    subprocess.run([*command, "--logdir", str(tmp_path / "run")], check=True, capture_output=True)
    found = doors.measured(tmp_path / "run", {"task": "toy:doors", "seed": 0})
    assert found["step"] == 80 and found["updates"] > 0 and found["right_at_5"] == found["trained"]["5"]
    assert found["trained"]["n"][0] > 100 and 0.0 <= found["trained"]["1"] <= 0.5


def test_the_table_says_what_holds(place: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    team = doors.TASKS["doors_team"]
    every = [("full", "mat", 0, 0.9), ("full", "mat", 1, 0.6), ("full", "decentralised", 0, 0.9)]
    every += [("full", "decentralised", 1, 0.5), ("co-co", "mat", 0, 0.28), ("co-co", "decentralised", 0, 0.3)]
    lines = [
        {"variant": v, "policy": p, "seed": s, "trained": measured(value), "untrained": measured(0.2)}
        for v, p, s, value in every
    ]
    lines.insert(0, lines[0] | {"trained": measured(0.1)})  # of an earlier attempt
    team.rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    said = doors.table(team, {"oracle": measured(1.0)}).splitlines()
    cells = {line.split(" | ")[0].strip("| "): line.strip("| ").split(" | ") for line in said}
    assert cells["full, mat"][1:3] == ["2", "0.25 (0.25-0.25)"] and cells["full, mat"][3] == "0.75 (0.60-0.90)"
    assert cells["full, mat"][-2:] == ["0.58-0.92", "holds"]
    assert cells["full, decentralised"][-1] == "fails"  # one seed
    assert cells["co-co, mat"][-1] == "holds" and cells["co-co, decentralised"][-1] == "fails"
    assert cells["full, mat, untrained"][2:4] == ["0.25", "0.20"] and cells["oracle"][3] == "1.00"
    assert len({line.count("|") for line in said}) == 1


def test_what_a_team_is_measured_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        doors, "visits", lambda agent, envs, seed: (agent.agents, agent.shared, envs.num_envs * envs.agents)
    )
    own, shared, oracle = doors.references(doors.TASKS["doors_team"]).values()
    assert own == (3, False, 51) and shared == (3, True, 51) and (oracle["1"], oracle["2"]) == (CHANCE, 1.0)


def test_one_agents_table_is_the_one_that_is_kept() -> None:
    task = doors.TASKS["doors"]
    kept = task.page.read_text()
    nearest = next(line for line in kept.splitlines() if line.startswith("| nearest")).split(" | ")[2:]
    beside = dict(zip(map(str, doors.SHOWN), (float(cell.strip(" |")) for cell in nearest), strict=True))
    oracle = {str(k): CHANCE if k == 1 else 1.0 for k in doors.SHOWN}
    assert doors.table(task, {"nearest-neighbour memory": beside, "oracle": oracle}) == kept
