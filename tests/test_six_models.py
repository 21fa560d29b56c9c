"""tools/six_models.py and its tables: players, the plan, and arithmetic on rows made by hand."""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from wm_suite.suites import read

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import six_models
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
        shared = ("data", "steps", "batch", "length", "train_ratio", "lr", "milestone_every", "behaviour")
        assert {cell.app for cell in here} == APPS
        for name in shared:
            assert len({str(cell.options[name]) for cell in here}) == 1, name
        words = six_models.COLLECT["six"][Path(str(here[0].options["data"])).name]
        assert words[0] == task  # the recording that the runs name is of their task


def test_every_recording_that_a_suite_names_is_made() -> None:
    for suite, made in six_models.COLLECT.items():
        cells = read(ROOT / "tools" / "suites" / f"{suite}.toml").cells
        assert {(cell.task, str(cell.options["data"])) for cell in cells} == {
            (words[0], str(six_models.RECORDINGS / name)) for name, words in made.items()
        }


def row(arm: str, seed: int, errors: list[float], reward: float = 1.0) -> dict[str, Any]:
    """With checkpoints after 100, 200, ... updates, whose errors are the same at every horizon."""
    checkpoints = [[100 * (k + 1), {"image": [one] * 15}, [reward] * 15] for k, one in enumerate(errors)]
    flat = [2.0] * 15
    microscope = {"errors": {"image": {"copy": flat, "mean": flat}}, "reward": {"ahead_mean": flat}}
    losses = [[50 * (k + 1), {"held_out/loss/dyn": 10.0 - k}] for k in range(2 * len(errors))]
    return {
        "task": "t",
        "arm": arm,
        "seed": seed,
        "checkpoints": checkpoints,
        "microscope": microscope,
        "losses": losses,
    }


PARTS = {"encoder": 1000, "decoder": 2000, "reward": 300, "cont": 300, "dynamics": 4000, "total": 9000}


def test_equal_updates_and_equal_flops_are_two_readings_of_the_same_runs(tmp_path: Path) -> None:
    rows = [row("po_dreamer", s, [4.0, 2.0, 1.0 + s / 10]) for s in range(3)]
    rows += [row("dreamer", s, [3.0, 2.5, 2.0 + s / 10]) for s in range(3)]
    costs = [
        {"task": "t", "arm": arm, "flops": flops, "parameters": PARTS}
        for arm, flops in (("po_dreamer", 2e9), ("dreamer", 1e9))
    ]
    (tmp_path / "six.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    (tmp_path / "six-cost.json").write_text(json.dumps(costs))
    text = six_table.write("six", tmp_path).read_text()
    updates, flops = text.split("### Equal FLOPs: 3e+11")
    assert "### Equal updates: 300" in updates and "| po_dreamer | 1k | 2k | 1k | 4k | 9k | 2.0 |" in updates
    low, high = six_table.bounds([1.0, 1.1, 1.2])
    assert f"| po_dreamer | 1.1 [{low:.4g}, {high:.4g}]" in updates
    # the dearer model has made 150 updates when the cheaper one has made all its 300
    assert "| po_dreamer | 3 [3, 3]" in flops and "| dreamer | 2.1 [" in flops
    assert "| held-out loss | dyn |" in updates and "| po_dreamer | 5 [5, 5] |" in updates
    assert "| po_dreamer | 8 [8, 8] |" in flops and "| dreamer | 5 [5, 5] |" in flops  # after 150 and after 300
    assert "PO-Dreamer errs less than Dreamer" in updates and "PO-Dreamer errs more than Dreamer" in flops


def test_an_interval_is_that_of_students_t() -> None:
    values = [1.0, 2.0, 4.0]
    mean, error = np.mean(values), np.std(values, ddof=1) / math.sqrt(3)
    assert six_table.bounds(values) == pytest.approx((mean - 4.302653 * error, mean + 4.302653 * error))


def test_seeds_that_differ_both_ways_give_no_verdict() -> None:
    rows = [row("po_dreamer", s, [one]) for s, one in enumerate((1.0, 3.0, 2.0))]
    rows += [row("dreamer", s, [2.0]) for s in range(3)]
    assert "neither less nor more" in six_table.verdict(rows, lambda row: math.inf)
    assert "Too few seeds" in six_table.verdict(rows[:1], lambda row: math.inf)


def test_recall_is_told_by_horizon_and_by_what_was_recalled(tmp_path: Path) -> None:
    def found(arm: str, seed: int, share: float) -> dict[str, Any]:
        fact = {"dream": [share, share / 2, None], "posterior": [share] * 3, "baseline": [0.25, 0.25, None]}
        past = {"lengths": [1, 2], "probes": {"fact": [0.25, share]}}
        recalled = {"median_age": 12.0, "earlier": 0.5} if arm == "po_dreamer" else None
        return {
            "task": "t",
            "arm": arm,
            "seed": seed,
            "microscope": {"probes": {"fact": fact}, "past": past, "recalled": recalled},
        }

    rows = [found("po_dreamer", 0, 0.9), found("po_dreamer", 1, 0.9), found("dreamer", 0, 0.3)]
    costs = [{"task": "t", "arm": arm, "flops": 5e8, "parameters": PARTS} for arm in ("po_dreamer", "dreamer")]
    (tmp_path / "recall.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    (tmp_path / "recall-cost.json").write_text(json.dumps(costs))
    text = six_table.write("recall", tmp_path).read_text()
    assert "| arm | +0 | +1 | last 1 | last 2 | age | earlier episodes | GFLOP | seeds |" in text
    assert (
        "| po_dreamer | 0.9 [0.9, 0.9] | 0.45 [0.45, 0.45] | 0.25 [0.25, 0.25] | 0.9 [0.9, 0.9] | 12 [12, 12] | 0.5 [0.5, 0.5] | 0.50 | 2 |"
        in text
    )
    assert (
        "| dreamer | 0.3 | 0.15 | 0.25 | 0.3 |  |  | 0.50 | 1 |" in text
        and "| the most frequent | 0.25 | 0.25 |" in text
    )
