"""tools/six_models.py and its tables: players, the plan, and arithmetic on rows made by hand."""

from __future__ import annotations

import math
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from env_adapters import make_vec
from wm_run.microscope.rows import recorded
from wm_run.recorder import Writer
from wm_run.recording import About
from wm_suite.suites import Cell, read

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import six_controls
import six_models
import six_picture
import six_readings
import six_recall
import six_table

APPS = {"po_dreamer", "dreamer", "r2i", "storm"}


def picture(*boxes: tuple[int, int, int, int]) -> dict[str, Any]:
    """A dark picture with bright boxes (top, bottom, left, right)."""
    image = np.zeros((1, 64, 64, 3), np.uint8)
    for top, bottom, left, right in boxes:
        image[:, top:bottom, left:right] = 220
    return {"image": image, "action": np.zeros((1, 6), np.float32)}


@pytest.mark.parametrize(
    ("ball", "action"), [(20, six_models.LEFT), (32, six_models.NOOP), (45, six_models.RIGHT), (None, six_models.FIRE)]
)
def test_the_player_of_breakout_goes_where_the_ball_is(ball: int | None, action: int) -> None:
    boxes = [(57, 59, 29, 36)] + ([] if ball is None else [(40, 42, ball, ball + 1)])
    assert six_models.breakout(picture(*boxes)).argmax() == action


def test_six_models_three_recordings_three_seeds_and_no_run_differs_but_by_its_method() -> None:
    cells = read(ROOT / "tools" / "suites" / "six.toml").cells
    assert len(cells) == 54
    assert Counter((cell.task, cell.seed) for cell in cells) == Counter(
        {(task, seed): 6 for task in {cell.task for cell in cells} for seed in range(3)}
    )
    for task in {cell.task for cell in cells}:
        here = [cell for cell in cells if cell.task == task]
        shared = ("data", "batch", "length", "train_ratio", "lr", "behaviour")
        assert {cell.app for cell in here} == APPS
        for name in shared:
            assert len({str(cell.options[name]) for cell in here}) == 1, name
        dearest = min(int(cell.options["steps"]) for cell in here)  # those that cost less make more updates
        for cell in here:
            steps = int(cell.options["steps"])
            assert steps % dearest == 0 and cell.options["milestone_every"] * 8 == steps
            assert steps == dearest or cell.app != "po_dreamer"
        words = six_models.COLLECT["six"][Path(str(here[0].options["data"])).name]
        assert words[0] == task  # the recording that the runs name is of their task


def test_every_recording_that_a_suite_names_is_made() -> None:
    for suite, made in six_models.COLLECT.items():
        cells = read(ROOT / "tools" / "suites" / f"{suite}.toml").cells
        assert {(cell.task, str(cell.options["data"])) for cell in cells} == {
            (words[0], str(six_models.RECORDINGS / name)) for name, words in made.items()
        }


def row(arm: str, seed: int, errors: list[float], reward: float = 1.0, losses: int | None = None) -> dict[str, Any]:
    """With checkpoints after 100, 200, ... updates, whose errors are the same at every horizon."""
    checkpoints = [[100 * (k + 1), {"image": [one] * 15}, [reward] * 15] for k, one in enumerate(errors)]
    flat = [2.0] * 15
    microscope = {"errors": {"image": {"copy": flat, "mean": flat}}, "reward": {"ahead_mean": flat}}
    logged = 2 * len(errors) if losses is None else losses
    return {
        "task": "t",
        "arm": arm,
        "seed": seed,
        "checkpoints": checkpoints,
        "microscope": microscope,
        "losses": [[50 * (k + 1), {"held_out/loss/dyn": 10.0 - k}] for k in range(logged)],
    }


PARTS = {"encoder": 1000, "decoder": 2000, "reward": 300, "cont": 300, "dynamics": 4000, "total": 9000}


def costs(**flops: float) -> list[dict[str, Any]]:
    return [{"task": "t", "arm": arm, "flops": of, "parameters": PARTS} for arm, of in flops.items()]


def both(seeds: int = 3) -> list[dict[str, Any]]:
    rows = [row("po_dreamer", s, [4.0, 2.0, 1.0 + s / 10]) for s in range(seeds)]
    return rows + [row("dreamer", s, [3.0, 2.5, 2.0 + s / 10]) for s in range(seeds)]


ASKED = {"t": {"po_dreamer": 3, "dreamer": 3}}


def test_equal_updates_and_equal_flops_are_two_readings_of_the_same_runs() -> None:
    text = "\n".join(six_table.six(both(), costs(po_dreamer=2e9, dreamer=1e9), ASKED))
    updates, flops = text.split("### Equal FLOPs: 3e+11")
    assert "### Equal updates: 300" in updates and "| po_dreamer | 1k | 2k | 1k | 4k | 9k | 2.0 |" in updates
    low, high = six_readings.bounds([1.0, 1.1, 1.2])
    assert f"| po_dreamer | 1.1 [{low:.4g}, {high:.4g}]" in updates
    # the dearer model has made 150 updates when the cheaper one has made all its 300
    assert "| po_dreamer | 3 [3, 3]" in flops and "| 150 | 100% | 3 of 3 |" in flops
    assert "| dreamer | 2.1 [" in flops and "| 300 | 100% | 3 of 3 |" in flops
    assert "| held-out loss | dyn |" in updates and "| po_dreamer | 5 [5, 5] |" in updates
    assert "| po_dreamer | 8 [8, 8] |" in flops and "| dreamer | 5 [5, 5] |" in flops  # after 150 and after 300
    assert "PO-Dreamer errs less than Dreamer" in updates and "PO-Dreamer errs more than Dreamer" in flops
    assert "Its held-out losses over Dreamer's: dyn 1.000 [1.000, 1.000]" in updates and "dyn 1.600" in flops
    assert "Equal FLOPs" not in flops and "6 of 6 runs are there." in updates


def test_at_equal_flops_nothing_is_read_before_its_first_checkpoint() -> None:
    text = "\n".join(six_table.six(both(), costs(po_dreamer=4e9, dreamer=1e9), ASKED))
    _, early, late = text.split("### Equal FLOPs: ")
    # 300 updates of the cheaper are 75 of the dearer, which keeps its first checkpoint after 100: nothing stands in for it
    assert "| po_dreamer |  |  |  |  |  |  | 75 | 100% | 3 of 3 |" in early and "| dreamer | 2.1 [" in early
    assert "po_dreamer has made 75 updates here, and its first checkpoint is after 100" in early
    assert "No verdict on PO-Dreamer against Dreamer" in early
    assert "| po_dreamer | 9.5 [9.5, 9.5] |" in early  # its held-out losses do reach: half between 10 and 9
    # so it is compared at its first checkpoint, where the other has ended with three quarters of the FLOPs
    assert late.startswith("4e+11") and "| po_dreamer | 4 [4, 4]" in late and "| 100 | 100% | 3 of 3 |" in late
    assert "| dreamer | 2.1 [" in late and "| 300 | 75% | 3 of 3 |" in late


def test_a_number_is_read_between_checkpoints_and_never_beyond() -> None:
    one = row("dreamer", 0, [3.0, 1.0])
    assert [six_readings.value(one, at, "seen", 1) for at in (100, 150, 200)] == [3.0, 2.0, 1.0]
    assert all(math.isnan(six_readings.value(one, at, "seen", 1)) for at in (99, 201))
    assert math.isnan(six_readings.logged(one, 49, "held_out/loss/dyn"))
    assert math.isnan(six_readings.logged(one, 201, "held_out/loss/dyn"))


def test_what_was_not_run_is_said_cell_by_cell() -> None:
    rows = [row("po_dreamer", 0, [4.0, 2.0])]
    text = "\n".join(six_table.six(rows, [], {"t": {"po_dreamer": 3, "dreamer": 3}, "other": {"storm": 3}}))
    assert "1 of 6 runs are there; missing: 2 of po_dreamer, 3 of dreamer." in text
    assert "| dreamer | not run | not run | not run | not run | not run | not run | 0 of 3 |" in text
    assert "| po_dreamer | 2 | 2 | 2 | 1 | 1 | 1 | 1 of 3 |" in text
    assert "FLOPs are not counted" in text and "0 of 3 runs are there; missing: 3 of storm." in text
    assert "No verdict on PO-Dreamer against Dreamer" in text
    rows.append(row("dreamer", 0, [2.0, 2.0]))
    assert "One seed, no verdict: PO-Dreamer errs 1.000 times as much" in "\n".join(six_table.six(rows, [], ASKED))


@pytest.mark.parametrize("suite", ["six", "recall"])
def test_a_suite_without_rows_has_a_page_that_says_so(suite: str, tmp_path: Path) -> None:
    text = six_table.write(suite, tmp_path).read_text()
    asked = Counter(cell.task for cell in read(ROOT / "tools" / "suites" / f"{suite}.toml").cells)
    for task, count in asked.items():
        assert f"## {task}" in text
        assert f"0 of {count} runs are there" in text


def test_an_interval_is_that_of_students_t() -> None:
    values = [1.0, 2.0, 4.0]
    mean, error = np.mean(values), np.std(values, ddof=1) / math.sqrt(3)
    assert six_readings.bounds(values) == pytest.approx((mean - 4.302653 * error, mean + 4.302653 * error))


def test_seeds_that_differ_both_ways_give_no_verdict() -> None:
    rows = [row("po_dreamer", s, [one]) for s, one in enumerate((1.0, 3.0, 2.0))]
    rows += [row("dreamer", s, [2.0]) for s in range(3)]
    assert "neither less nor more" in six_table.verdict(rows, lambda row: 100)


def test_seeds_are_paired() -> None:
    """Seeds that differ among themselves by ten times, and the arms by a tenth in each."""
    rows = [row("po_dreamer", s, [0.9 * one]) for s, one in enumerate((1.0, 10.0))]
    rows += [row("dreamer", s, [one]) for s, one in reversed([*enumerate((1.0, 10.0))])]
    assert "less than Dreamer: 0.900 times as much [0.900, 0.900], n=2" in six_table.verdict(rows, lambda row: 100)


def test_the_picture_has_a_panel_for_each_loss_and_for_both_errors(tmp_path: Path) -> None:
    rows = both()
    for one in rows:
        for _, of in one["losses"]:
            of["held_out/loss/image"] = of["held_out/loss/dyn"] * 2
    titles = [title for title, *_ in (*six_picture.loss_panels(rows), *six_picture.error_panels(rows))]
    assert titles == [
        "held-out loss: dyn", "held-out loss: image",
        "open-loop error, 300 updates", "error of the imagined reward, 300 updates",
    ]  # fmt: skip
    path = six_picture.draw(rows, ["po_dreamer", "dreamer", "storm"], tmp_path / "six.png")
    assert path.read_bytes().startswith(b"\x89PNG")


def found(arm: str, seed: int, share: float) -> dict[str, Any]:
    fact = {"dream": [share, share / 2, None], "posterior": [share, 0.75, None], "baseline": [0.25, 0.25, None]}
    past = {"lengths": [1, 2], "probes": {"fact": [0.25, share]}}
    recalled = {"median_age": 12.0, "earlier": 0.5} if arm == "po_dreamer" else None
    microscope = {
        "probes": {"fact": fact},
        "past": past,
        "recalled": recalled,
        "reward": {"ahead_mean": [0.1875, None]},
    }
    checkpoints = [[at, {"vector": [0.0, None]}, [1 - share * at / 200, None]] for at in (100, 150 + seed, 200)]
    return {"task": "t", "arm": arm, "seed": seed, "microscope": microscope, "checkpoints": checkpoints}


def test_recall_is_told_by_horizon_and_by_what_was_recalled() -> None:
    rows = [found("po_dreamer", 0, 0.9), found("po_dreamer", 1, 0.9), found("dreamer", 0, 0.3)]
    checks = [{"task": "t", "name": "fact", "scores": {"fact": [1.0, 1.0, None], "record": [0.25, 0.25, None]}}]
    asked = {"t": {"po_dreamer": 2, "dreamer": 2, "r2i": 2}}
    text = "\n".join(six_recall.page(rows, costs(po_dreamer=5e8, dreamer=5e8), checks, asked))
    assert "| arm | +0 | +1 | seen +1 | last 1 | last 2 | age | earlier episodes | GFLOP | seeds |" in text
    full = "| po_dreamer | 0.9 [0.9, 0.9] | 0.45 [0.45, 0.45] | 0.75 [0.75, 0.75] | 0.25 [0.25, 0.25] | 0.9 [0.9, 0.9] | 12 [12, 12] | 0.5 [0.5, 0.5] |"
    assert (
        f"{full} 0.50 | 2 of 2 |" in text
        and "| dreamer | 0.3 | 0.15 | 0.75 | 0.25 | 0.3 |  |  | 0.50 | 1 of 2 |" in text
    )
    assert "| r2i | not run | not run |" in text and "3 of 6 runs are there" in text
    assert "| the most frequent | 0.25 | 0.25 |" in text and "| the fact itself | 1 | 1 |" in text
    assert "| dreamer | 0.6 | 0.3 | one seed, no verdict | -0.6 | one seed, no verdict |" in text
    assert "| the newest record alone | 0.65 [0.65, 0.65] | 0.2 [0.2, 0.2] | more |  |  |" in text
    # the reward that the fact decides, at the checkpoints that all have
    assert "| reward at +1 after updates | 100 | 200 | at the end |" in text
    assert "| po_dreamer | 0.55 [0.55, 0.55] | 0.1 [0.1, 0.1] | 0.1 [0.1, 0.1] |" in text
    assert "| dreamer | 0.85 | 0.7 | 0.7 |" in text and "| the mean reward | 0.1875 | 0.1875 | 0.1875 |" in text
    assert "| one of four |  |  |  | -0.0875 [-0.0875, -0.0875] | less |" in text


def test_recall_helps_where_all_seeds_say_so_and_is_not_decided_where_they_differ() -> None:
    rows = [found("po_dreamer", s, one) for s, one in enumerate((0.9, 0.8, 0.85))]
    rows += [found("dreamer", s, 0.3 + s / 100) for s in range(3)] + [
        found("r2i", s, one) for s, one in enumerate((0.95, 0.3, 0.8))
    ]
    lines = six_recall.verdict(rows, {"po_dreamer": 3, "r2i": 3, "dreamer": 3}, "fact", {})
    assert lines[2].startswith("| r2i |") and "| not decided |" in lines[2] and lines[2].endswith("| not decided |")
    assert lines[3].startswith("| dreamer |") and "| more |" in lines[3] and lines[3].endswith("| less |")
    assert six_recall.verdict(rows[3:], {"dreamer": 3}, "fact", {}) == ["No verdict: PO-Dreamer has not been run."]


# ---- the probe of recall succeeds where the fact is there, and fails where it is not

SMALL = {"toy:doors": {"cues": 8, "redraw": 0}, "toy:cue_maze": {}}


@pytest.fixture(scope="module", params=SMALL)
def watched(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A task and a recording of random play in it: 16 instances, 300 records of each held out."""
    task, folder = request.param, tmp_path_factory.mktemp("watched") / "recording"
    with make_vec(task, 16, **SMALL[task]) as envs:
        writer = Writer(folder, About.of(envs, task), streams={"train": 16, "held_out": 16})
        rng = np.random.default_rng(0)
        for part, count in (("train", 4), ("held_out", 300)):
            step = envs.reset(seed=len(part))
            for _ in range(count):
                writer.add(part, step | envs.told())
                step = envs.step(np.eye(4, dtype=np.float32)[rng.integers(4, size=16)])
        writer.finish([{"who": "random", "share": 1.0, "steps": 64, "seed": 0}])
    return task, folder


def test_a_memory_of_the_context_knows_what_the_environment_tells(watched: tuple[str, Path]) -> None:
    """What was shown in the same row under the same cue is the fact, wherever something was."""
    task, folder = watched
    rows = recorded(folder, "held_out", 64, six_models.CONTEXT, six_models.IMAGINED, 0)
    told = next(iter(rows.told.values()))
    held = six_controls.known(task, rows.steps, told)
    knows = held["context"].sum(-1) > 0
    assert 0.6 < knows.float().mean() < 1
    if task == "toy:doors":  # whose rule is never redrawn here
        assert torch.equal(held["context"][knows], told[knows])
    else:  # whose fact is shown anew in every cycle
        new = rows.steps["vector"][..., 5:9].sum(-1) > 0
        seen = knows & (told == held["context"]).all(-1)
        assert bool(seen[new].all()) and seen.float().sum() > 0.7 * knows.float().sum()
    assert bool((held["episode"].sum(-1) <= held["context"].sum(-1)).all())


def test_the_probe_finds_the_fact_where_it_is_and_nowhere_else(watched: tuple[str, Path]) -> None:
    task, folder = watched
    rows = six_models.looked_at(folder, task)
    told = next(iter(rows.told.values()))
    states = six_controls.known(task, rows.steps, told)
    scores = {name: six_controls.probed(rows, told, of) for name, of in states.items()}
    reached = [h for h, one in enumerate(scores["fact"]) if one is not None]
    assert len(reached) > 1
    assert all(scores["fact"][h] == 1.0 for h in reached)
    assert (scores["context"][0] or 0) > 0.85
    for name in ("episode", "record"):
        assert (scores[name][0] or 0) < 0.5, name


@pytest.mark.parametrize("app", ["dreamer", "po_dreamer"])
def test_an_untrained_world_model_does_not_know_the_fact(app: str, watched: tuple[str, Path]) -> None:
    task, folder = watched
    rows = six_models.looked_at(folder, task)
    options = {"data": str(folder), "behaviour": False}
    score = six_controls.untrained(Cell(task, app, 0, app, "tiny", options), rows, next(iter(rows.told)))
    assert (score[0] or 0) < 0.5


@pytest.mark.parametrize("name", ["six", "recall"])
def test_the_page_that_is_kept_is_that_of_its_rows(name: str, tmp_path: Path) -> None:
    kept = ROOT / "docs" / "results"
    for path in kept.glob(f"{name}*"):
        shutil.copy(path, tmp_path)
    page = six_table.write(name, tmp_path)
    assert page.read_text() == (kept / page.name).read_text()
