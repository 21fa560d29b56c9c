"""tools/gpu.py without a card: every part runs with stand-ins, what is done stays done, a rehearsal is never taken for more."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
import torch

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import gpu


def tool(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "tools/gpu.py", *options], cwd=ROOT, check=False, capture_output=True, text=True
    )


def rows(path: pathlib.Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_part_runs_on_a_cpu_and_says_that_it_is_a_rehearsal(tmp_path: pathlib.Path) -> None:
    out = tmp_path / "rows.jsonl"
    before = gpu.ROWS.read_bytes() if gpu.ROWS.exists() else None
    done = tool("--rehearse", "--out", str(out), "--minutes", "60")
    assert done.returncode == 0, done.stdout + done.stderr
    found = {row["part"]: row for row in rows(out)}
    assert list(found) == list(gpu.NAMES)
    assert not [row for row in found.values() if row.get("passed") is False or "left" in row]
    for row in found.values():
        assert row["rehearsal"] is True and row["torch"] == torch.__version__ and row["commit"] and row["hardware"]
    for name, row in found.items():
        if name.startswith(("update", "act")):
            assert min(row["eager_ms"], row["graph_ms"], row["floor_ms"]) > 0
    assert "A rehearsal on a CPU" in done.stdout and "| update dreamer 1m, vectors |" in done.stdout
    assert (gpu.ROWS.read_bytes() if gpu.ROWS.exists() else None) == before


def test_a_rehearsal_never_joins_the_real_rows() -> None:
    done = tool("--rehearse", "--out", "docs/results/gpu.jsonl", "--only", "environment")
    assert done.returncode == 2 and "never go to docs/results/gpu.jsonl" in done.stderr
    row = {"part": "triton", "rehearsal": True}
    with pytest.raises(SystemExit, match="never go to"):
        gpu.keep(gpu.ROWS, row)
    assert all(row["rehearsal"] is False for row in gpu.read(gpu.ROWS))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_without_a_card_it_says_so_in_a_sentence(tmp_path: pathlib.Path) -> None:
    done = tool("--only", "environment", "--out", str(tmp_path / "rows.jsonl"))
    assert done.returncode == 1 and not (tmp_path / "rows.jsonl").exists()
    assert done.stderr.strip().endswith("torch sees no GPU here: --rehearse runs every part on a CPU with stand-ins")


WORKER = """
import json, os, sys, time
def tell(**row): print(json.dumps(row), flush=True)
tell(host={"commit": "c", "hardware": "h", "torch": "t", "rehearsal": True})
for name in json.loads(sys.stdin.readline()):
    tell(begin=name)
    if name == "dies": os._exit(3)
    if name == "hangs": time.sleep(1000)
    print("a library's own words", flush=True)
    tell(part=name, passed=True, seen="well", seconds=0.1)
"""


def test_a_part_that_dies_or_hangs_takes_no_other_with_it(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    @contextmanager
    def worker(options: Any) -> Iterator[subprocess.Popen[str]]:
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        process = subprocess.Popen([sys.executable, "-c", WORKER], **pipes)
        yield process
        process.kill()
        process.wait()

    monkeypatch.setattr(gpu, "worker", worker)
    monkeypatch.setattr(gpu, "LIMIT", 5.0)
    out = tmp_path / "rows.jsonl"
    names = ["a", "dies", "b", "hangs", "c"]
    assert gpu.run(names, [], out, time.monotonic() + 1000, again=False)[0] == 2
    found = {row["part"]: row.get("seen") for row in rows(out)}
    assert found == {"a": "well", "dies": "ended its process with code 3", "b": "well"} | {
        "hangs": "took longer than 5 s",
        "c": "well",
    }

    lines = out.read_text()
    assert gpu.run(["a", "b", "c"], [], out, time.monotonic() + 1000, again=False)[0] == 0
    assert out.read_text() == lines  # what is done stays done
    assert gpu.run(["a", "b"], [], out, time.monotonic() - 1, again=True)[0] == 0
    assert "left for the next run: a, b" in capsys.readouterr().err


def test_the_parts_are_those_that_there_are() -> None:
    import gpu_figures

    assert list(gpu_figures.CASES) == list(gpu.FIGURES)
    assert all(callable(gpu.part(name)) for name in gpu.NAMES)


def test_every_figure_is_of_a_setting_that_there_is() -> None:
    import gpu_figures
    from bench import cases
    from gpu_place import Place

    for app, options in gpu_figures.CASES.values():
        config = cases.configured(app, options)[1]
        assert config.precision == "bf16" and config.task in options
    for team in ("dmawm, 25 marines", "dmawm, coop_mining", "po_dreamer, 5 units"):  # a rehearsal of a team is one, too
        assert "toy:leavers" in Place(True).options(gpu_figures.CASES[team][1])


def test_a_team_of_shapes_has_those_of_the_team_it_stands_for() -> None:
    import gpu_teams
    from env_adapters import make_vec

    for like in ("smax:25m", "smax:smacv2_5_units"):
        with closing(make_vec(like, 1)) as real, closing(make_vec("zoo:gpu_teams", 1, like=like)) as stand_in:
            assert real.agents == stand_in.agents == gpu_teams.SHAPES[like][0]
            assert real.observation_space == stand_in.observation_space
            assert real.action_spec == stand_in.action_spec


def test_a_zero_gradient_fails_the_check() -> None:
    from gpu_checks import judged
    from gpu_place import Failed

    errors = {f"world.{i}": 0.01 for i in range(20)}
    assert "20 tensors" in judged(errors)
    with pytest.raises(Failed, match=r"behaviour\.actor"):
        judged(errors | {"behaviour.actor.out.weight": 1.0})
