"""tools/presets.py: what presets have otherwise than at a commit, on hand tables and on this checkout itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import presets


def test_a_table_names_every_number_that_is_another_and_no_other() -> None:
    before = {
        "a": {"one": {"lr": 0.1, "steps": 20_000}, "two": {"lr": 0.1, "steps": 20_000}, "old": {}},
        "b": {"c": {"x": 1}},
    }
    after = {
        "a": {
            "one": {"lr": 0.2, "steps": 30_000, "new": 1},
            "two": {"lr": 0.2, "steps": 20_000, "new": 2},
            "fresh": {},
        },
        "b": {"c": {"x": 1}},
    }
    found = [*presets.differences(before, after, {"a": {"new": 1}})]
    assert presets.table(found, "abc", {"a": 2, "b": 1}).splitlines()[2:] == [
        "| a | fresh | the preset | none | new |",
        "| a | old | the preset | there | none |",
        "| a | all | `lr` | 0.1 | 0.2 |",
        "| a | one | `steps` | 20,000 | 30,000 |",
        "| a | two | `new` | 1 | 2 |",
    ]
    assert "No preset" in presets.table([], "abc", {})


def test_a_checkout_shows_its_own_presets_and_not_the_installed_ones(tmp_path: Path) -> None:
    """As an unpacked commit: a number changed there is shown, and differs from this one's."""
    for part in ("apps/storm/src", "packages/wm-core/src"):
        target = tmp_path / part
        target.parent.mkdir(parents=True)
        subprocess.run(["cp", "-r", str(ROOT / part), str(target)], check=True)
    tiny = tmp_path / "apps/storm/src/storm/presets/tiny.toml"
    tiny.write_text(tiny.read_text() + "free_nats = 0.125\n")
    here, there = presets.shown(ROOT, ["storm"]), presets.shown(tmp_path, ["storm"])
    found = [*presets.differences(there, here, {"storm": presets.meanings("storm")})]
    assert found == [("storm", "tiny", "free_nats", 0.125, 1.0)]


def test_a_commit_that_git_does_not_know_is_told() -> None:
    told = subprocess.run(
        [sys.executable, "tools/presets.py", "diff", "no-such"], check=False, cwd=ROOT, capture_output=True, text=True
    )
    assert told.returncode == 1 and "no commit 'no-such'" in told.stderr and "Traceback" not in told.stderr
