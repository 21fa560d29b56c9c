"""How a run computes: the device, the precision and what is recorded, from what was asked and what is there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from wm_core.errors import UserError
from wm_run import launch
from wm_run.config import RunConfig
from wm_run.loading import runtime


def test_what_a_run_captures_follows_its_device() -> None:
    def resolved(**options: Any) -> str:
        return runtime(RunConfig(device="cpu", **options)).capture

    assert (resolved(), resolved(capture="compile"), resolved(capture="eager")) == ("eager", "compile", "eager")
    with pytest.raises(UserError, match="--capture graph was asked for, but a CPU has no graphs: use"):
        resolved(capture="graph")


def test_on_a_gpu_one_process_records_and_several_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    found = [runtime(RunConfig(device="auto", devices=devices)) for devices in (1, 2)]
    assert [(one.device, one.precision, one.capture) for one in found] == [
        ("cuda", "bf16", "graph"),
        ("cuda", "bf16", "eager"),
    ]
    with pytest.raises(UserError, match=r"--devices 2, but each process compares .* wait for it for ever"):
        runtime(RunConfig(device="cuda", devices=2, capture="graph"))


@pytest.mark.parametrize(("first", "left"), [(2, False), (0, True)])
def test_processes_that_were_refused_leave_nothing(tmp_path, first, left):
    """Where only another than the first one failed the user is sent to what that one said."""
    code = f"import os, sys, time; print('no'); rank = int(os.environ['RANK']); sys.exit({first} if rank == 0 else 2)"
    assert launch.launch(("-c", code), (), 2, tmp_path / "runs/a") == 2
    assert (tmp_path / "runs/a/rank-1/said.log").exists() == left == (tmp_path / "runs").exists()


def test_a_run_of_several_that_is_refused_keeps_what_it_holds(tmp_path):
    (tmp_path / "a/rank-1").mkdir(parents=True)
    (tmp_path / "a/rank-1/metrics.jsonl").write_text("{}")
    assert launch.launch(("-c", "raise SystemExit(2)"), (), 2, tmp_path / "a") == 2
    assert (tmp_path / "a/rank-1/said.log").exists() and (tmp_path / "a/rank-1/metrics.jsonl").exists()
    (tmp_path / "mine").mkdir()
    assert launch.launch(("-c", "raise SystemExit(2)"), (), 2, tmp_path / "mine") == 2
    assert list((tmp_path / "mine").iterdir()) == []
