"""tools/maze.py: what it compares is alike, what it counts is what a whole update has, and what stands beside it is the same for all."""

from __future__ import annotations

import dataclasses
import importlib
import json
import pathlib
import subprocess
import sys
import tomllib
from contextlib import closing
from typing import Any

import numpy as np
import pytest
import torch
from wm_run.configs import resolve
from wm_run.loading import build, environments

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import maze
import maze_cost
import maze_held_out

# what a method sets beside the numbers that all three have: its nets, and what it alone knows
OWN = {
    "dreamer": {"deter", "hidden", "depth"},
    "po_dreamer": {
        *("deter", "hidden", "depth", "diagnose_every", "bottleneck_hidden"),
        *(f"memory_{name}" for name in ("width", "hidden", "units", "depth")),
    },
    "r2i": {"deter", "width", "depth", "ssm_lr", "actor_lr", "critic_lr", "dyn_scale", "rep_scale"},
}


def app_of(name: str) -> Any:
    return importlib.import_module(f"{name}.cli").APP


def test_the_three_methods_have_the_same_small_budget() -> None:
    said = {}
    for name, own in OWN.items():
        found = tomllib.loads(app_of(name).files("presets")[maze.SMALL].read_text())
        assert own <= found.keys()
        said[name] = {key: value for key, value in found.items() if key not in own}
    assert said["dreamer"] == said["po_dreamer"] == said["r2i"]
    shared = {"task", "steps", "envs", "batch", "length", "train_ratio", "horizon", "dream_last", "learning_starts"}
    assert shared <= said["dreamer"].keys()


def test_po_dreamers_preset_has_the_papers_numbers() -> None:
    """Its Table 3, for the full model and every row of Table 5, on every maze."""
    table3 = {"batch": 16, "length": 64, "horizon": 15, "lr": 4e-5, "optimiser": "adam", "memory_dropout": 0.1}
    table3 |= {"rep_scale": 0.1, "dyn_scale": 0.5, "lam": 0.95, "memory_window": 800, "memory_count": 40}
    app = app_of("po_dreamer")
    full = dataclasses.asdict(resolve(app, "memory_maze", "", ""))
    assert {name: full[name] for name in table3} == table3
    assert full["replay_bytes"] * 8 / 9 > 5e6 * 13_300  # an eighth of it is for what a resumed run needs back
    changed = {}
    for name in maze.ABLATIONS:
        config = dataclasses.asdict(resolve(app, "memory_maze", "", name))
        changed[name] = {field: value for field, value in config.items() if value != full[field]}
    assert changed == {
        "this-episode": {"memory_sight": "episode"},
        "mg-only": {"branches": "mg"},
        "co-only": {"branches": "co"},
        "co-co": {"branches": "co+co"},
        "no-vae": {"bottleneck": "none"},
        "no-cross-attention": {"attention": "none"},
        "no-position": {"positions": "none"},
        "no-action": {"actions": "none"},
    }


def test_table_5_is_one_listing() -> None:
    command = [sys.executable, "tools/maze.py", "run", "memory_maze_9x9", "memory_maze_15x15", "--arms", "table5"]
    done = subprocess.run(
        [*command, "--preset", "memory_maze", "--seeds", "5", "--dry"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 2 * 9 * 5 == len(set(lines))
    assert all("--preset memory_maze " in line for line in lines)
    for name in maze.ABLATIONS:
        assert sum(f"--ablation {name} " in line for line in lines) == 10
    assert sum("--task memory_maze_15x15 " in line for line in lines) == 45


def test_an_extrapolated_cost_is_that_of_the_whole_update(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows, and steps where two lengths are given; the total is made of updates and acts."""
    sizes = ("--task", "toy:catch", "--batch", "3", "--length", "32", "--train_ratio", "24")
    costs = {name: (name, "--preset", "tiny", *sizes) for name in ("r2i", "po_dreamer")}
    monkeypatch.setattr(maze_cost, "COSTS", costs)
    monkeypatch.setattr(maze_cost, "BUDGET", 3_200)
    from bench.calls import count
    from bench.cases import batches_of, prepare

    for name, lengths in (("r2i", (8, 16)), ("po_dreamer", None)):
        found = maze_cost.cost(name, lengths)
        case = prepare(name, [*costs[name][1:]])
        batches = batches_of(case)
        whole = count(lambda case=case, batches=batches: case.agent.update(*batches))
        assert found["update_flops"] == pytest.approx(whole.flops, rel=0.01)
        assert found["update_bytes"] == pytest.approx(whole.bytes, rel=0.1)
        assert found["updates"] == 3_200 * 24 / (3 * 32) == 800
        assert found["act_flops"] > 0
        for what in ("flops", "bytes"):
            acts = 3_200 * found[f"act_{what}"]
            assert found[f"total_{what}"] == pytest.approx(800 * found[f"update_{what}"] + acts)


@pytest.fixture(scope="module")
def records() -> list[dict[str, Any]]:
    from env_adapters import make_vec

    with closing(make_vec("toy:catch", 3, workers=0)) as envs:
        return list(maze_held_out.walk(envs, 40, seed=5))


def test_the_walk_goes_on_and_is_the_same_again(records: list[dict[str, Any]]) -> None:
    from env_adapters import make_vec

    with closing(make_vec("toy:catch", 3, workers=0)) as envs:
        again = list(maze_held_out.walk(envs, 40, seed=5))
    for one, other in zip(records, again, strict=True):
        assert one.keys() == other.keys() and all(np.array_equal(one[key], other[key]) for key in one)
    moves = np.stack([record["action"] for record in records])
    kept = (moves[1:] == moves[:-1]).all(-1).mean()
    assert 0.5 < kept < 0.95 and len({record["image"].tobytes() for record in records}) > 20


def test_every_agent_foretells_the_same_rows(records: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it keeps of the past; copying and the mean frame are computed once more by hand."""
    monkeypatch.setattr(maze_held_out, "CONTEXT", 3)
    monkeypatch.setattr(maze_held_out, "AHEAD", (1, 4))
    from wm_run import openloop

    seen, real = [], openloop.openloop

    def watched(agent: Any, batch: Any, context: int) -> Any:
        found = real(agent, batch, context)
        seen.append((batch.past is None, found["image"]))
        return found

    monkeypatch.setattr(openloop, "openloop", watched)
    told = {}
    for name in ("po_dreamer", "r2i", "dreamer"):
        app = app_of(name)
        config = dataclasses.replace(resolve(app, "tiny", "", ""), task="toy:catch", device="cpu", precision="fp32")
        with closing(environments(app, config, 1)) as envs:
            agents = [build(app, dataclasses.replace(config, seed=seed), envs) for seed in (0, 1)]
        told[name] = maze_held_out.errors(*agents, records)
    assert [bare for bare, _ in seen[::2]] == [False, True, False]  # R2I's rows need nothing from before
    first = seen[0][1]
    assert all(torch.equal(one.true, first.true) and torch.equal(one.valid, first.valid) for _, one in seen)
    assert told["r2i"]["model"] != told["dreamer"]["model"] != told["dreamer"]["untrained"]
    true, valid = first.true.numpy(), first.valid.numpy()
    for place, ahead in enumerate((1, 4)):
        asked = valid[:, 2 + ahead]
        copied = ((true[:, 2] - true[:, 2 + ahead]) ** 2).mean((1, 2, 3))[asked].mean()
        constant = ((true.mean((0, 1)) - true[:, 2 + ahead]) ** 2).mean((1, 2, 3))[asked].mean()
        for found in told.values():
            assert found["copy"][place] == pytest.approx(copied, abs=1e-5)
            assert found["mean"][place] == pytest.approx(constant, abs=1e-5)


def test_the_page_shows_runs_and_costs() -> None:
    errors = {name: [0.01, 0.02, 0.03, 0.04] for name in ("model", "copy", "mean", "untrained")}
    run = {
        "kind": "run", "task": "memory_maze_9x9", "arm": "r2i", "seed": 0, "preset": maze.SMALL, "steps": 0,
        "trained": 8000, "updates": 937, "cpu_minutes": 20.5, "scores": [[2002, 1.0], [2002, 2.0]], "fresh": [0.0, 3.0],
        "random": [1.0, 1.0], "loss": {name: [[400, 300.0], [8000, 100.0]] for name in ("image", "reward")},
        "openloop": errors | {"seen": 0.005, "ahead": [1, 5, 15, 45], "rows": 32},
    }  # fmt: skip
    cost = {
        "kind": "cost", "method": "r2i", "parameters": 10**8, "batch": 4, "length": 1024, "ratio": 64.0,
        "updates": 6_250_000, "update_flops": 2e13, "update_bytes": 3e11, "act_flops": 1e8, "act_bytes": 4e8,
        "total_flops": 1.25e20, "total_bytes": 1.9e18,
    }  # fmt: skip
    page = maze.table([run], [cost])
    assert json.dumps(run)  # as a row is written
    assert "34.8" in page
    assert (
        "| r2i | 0 | 8,000 | 937 | 20.5 | 1.50 (1, 2) | 1.50 (0, 3) | 1.00 (1, 1) | 300 to 100 | 300 to 100 |" in page
    )
    assert "| r2i | 0 | 0.0050 | 0.0100 | 0.0200 | 0.0300 | 0.0400 | 0.0400, 0.0400, 0.0400 |" in page
    assert (
        "| r2i | 100,000,000 | 4 x 1024, 64 | 6,250,000 | 20,000, 300.0 | 100.0, 400.0 | 1.25e+20 | 1.90e+18 |" in page
    )
