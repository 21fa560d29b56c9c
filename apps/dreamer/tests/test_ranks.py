"""Two ranks, each with its half of the rows, learn what one process learns from all of them."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dreamer.agent import Dreamer, build
from dreamer.cli import APP
from env_adapters import ActionSpec
from gymnasium import spaces
from torch import distributed
from wm_core import draws
from wm_core.ranks import Group, learning_with
from wm_core.testing import assert_same
from wm_core.types import Batch, Index
from wm_run import checkpoint
from wm_run.commands import STRIDE, draw_apart
from wm_run.configs import resolve

ROWS, STEPS, UPDATES = 4, 6, 3
TWO = ("train", "--preset", "tiny", "--device", "cpu", "--task", "toy:doors", "--devices", "2", "--train-ratio", "16")
SPACE = spaces.Dict({"image": spaces.Box(0, 255, (16, 16, 3), np.uint8), "vector": spaces.Box(-9, 9, (4,))})


def agent() -> Dreamer:
    """In float64 and with fixed draws; every learning rate and scale large enough to move."""
    config = dataclasses.replace(resolve(APP, "tiny"), device="cpu", precision="fp32", lr=1e-2, warmup=0, seed=3)
    torch.set_default_dtype(torch.float64)
    try:
        made = build(config, SPACE, ActionSpec((3,), 0))
    finally:
        torch.set_default_dtype(torch.float32)
    made.source = draws.Fixed()  # type: ignore[assignment]
    made.behaviour.scale.rate, made.behaviour.scale.least = 1.0, 1e-3  # so that this batch's percentiles count
    return made


def batch(part: slice) -> Batch:
    """The rows of this part, from the first step of an episode on."""
    source = torch.Generator().manual_seed(0)
    first = torch.zeros(ROWS, STEPS, dtype=torch.bool)
    first[:, 0], first[1, 3] = True, True
    steps: dict[str, torch.Tensor] = {
        "image": torch.randint(0, 256, (ROWS, STEPS, 16, 16, 3), generator=source, dtype=torch.uint8),
        "vector": torch.randn(ROWS, STEPS, 4, generator=source),
        "action": torch.eye(3)[torch.randint(0, 3, (ROWS, STEPS), generator=source)] * ~first[..., None],
        "reward": 100 * torch.randn(ROWS, STEPS, generator=source),
        "first": first,
        "last": first.roll(-1, 1) & (torch.arange(STEPS) < STEPS - 1),
        "terminal": torch.zeros(ROWS, STEPS, dtype=torch.bool),
        "weight": torch.ones(ROWS, STEPS),
        "reset": first,
    }
    steps = {name: (value.double() if value.is_floating_point() else value)[part] for name, value in steps.items()}
    nothing = torch.zeros(steps["first"].shape[0], dtype=torch.int64)
    return Batch(steps, None, Index(nothing, nothing))


def learn(part: slice) -> tuple[list[float], dict[str, torch.Tensor]]:
    """The total world loss of each update, and the weights after all of them."""
    torch.set_num_threads(1)
    one, rows = agent(), batch(part)
    torch.set_default_dtype(torch.float64)
    try:
        losses = [
            sum(v.item() for k, v in one.update(rows)[0].items() if k.startswith("loss/")) for _ in range(UPDATES)
        ]
    finally:
        torch.set_default_dtype(torch.float32)
    return losses, {name: value.clone() for name, value in one.state_dict().items()}


def rank(index: int, folder: str) -> None:
    """One of two processes."""
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=index, world_size=2)
    half = ROWS // 2
    with learning_with(Group()):
        losses, weights = learn(slice(index * half, (index + 1) * half))
    torch.save({"losses": losses, "weights": weights}, Path(folder) / f"{index}.pt")
    distributed.destroy_process_group()


def test_two_ranks_learn_what_one_learns_from_all_rows(tmp_path: Path) -> None:
    others = [subprocess.Popen([sys.executable, __file__, str(i), str(tmp_path)]) for i in range(2)]
    assert [other.wait(timeout=120) for other in others] == [0, 0]
    found: list[dict[str, Any]] = [torch.load(tmp_path / f"{i}.pt", weights_only=True) for i in range(2)]
    losses, weights = learn(slice(0, ROWS))
    start = agent().state_dict()
    assert any((weights[name] - start[name]).abs().max() > 1e-3 for name in weights)  # they moved
    for one, two, whole in zip(found[0]["losses"], found[1]["losses"], losses, strict=True):
        assert abs((one + two) / 2 - whole) < 1e-6
    for name, whole in weights.items():
        torch.testing.assert_close(found[0]["weights"][name], whole, rtol=0, atol=1e-6, msg=name)
        torch.testing.assert_close(found[1]["weights"][name], found[0]["weights"][name], rtol=0, atol=0, msg=name)
    alone = learn(slice(0, ROWS // 2))[1]
    assert any((alone[name] - weights[name]).abs().max() > 1e-3 for name in weights)  # half the rows teach otherwise


KILL = """
import os, signal
from wm_run import checkpoint
real = checkpoint.save
def save(logdir, step, **parts):
    if os.environ.get("RANK") == "1" and step >= 60:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(logdir, step, **parts)
checkpoint.save = save
"""


def test_two_devices_keep_one_agent_and_two_experiences(tmp_path: Path) -> None:
    """Also when one is killed while the other has saved already: both go on from where both have been."""

    def train(name: str, **env: str) -> int:
        words = [*TWO, "--save-every", "40", "--steps", "100", "--logdir", str(tmp_path / name)]
        command = [sys.executable, "-m", "dreamer", *words]
        return subprocess.run(command, check=False, timeout=240, env=os.environ | env).returncode

    (tmp_path / "sitecustomize.py").write_text(KILL)
    assert train("run", PYTHONPATH=str(tmp_path)) != 0
    left = [checkpoint.load(checkpoint.latest(tmp_path / "run" / at)).step for at in (".", "rank-1")]  # type: ignore[arg-type]
    assert left[0] > left[1] > 0
    assert train("run") == train("whole") == 0
    for at in (".", "rank-1"):
        one, two = (checkpoint.load(checkpoint.latest(tmp_path / name / at)) for name in ("run", "whole"))  # type: ignore[arg-type]
        del one.state["run"], two.state["run"]  # offsets in bytes: the digits of fps differ
        assert_same([one.step, one.weights, one.state], [two.step, two.weights, two.state])
        assert len({(tmp_path / name / at / "scores.jsonl").read_text() for name in ("run", "whole")}) == 1
    folders = [tmp_path / "run", tmp_path / "run" / "rank-1"]
    one, two = (checkpoint.load(checkpoint.latest(folder)) for folder in folders)  # type: ignore[arg-type]
    assert one.step == two.step >= 100
    for name, weight in one.weights.items():
        assert torch.equal(weight, two.weights[name]), name
    tiny = resolve(APP, "tiny")
    most = one.step * 16 / (2 * tiny.batch * tiny.length) + 1  # both replay their rows for the steps of both
    assert most / 2 < int(one.state["agent"]["clock"]["updates"]) <= most
    assert (folders[0] / "scores.jsonl").read_text() != (folders[1] / "scores.jsonl").read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_stops_and_saves_them_all(tmp_path: Path, number: int) -> None:
    """Also the one that ends whoever started them at once: nobody is left to tell them."""
    words = [*TWO, "--steps", "100000", "--save-every", "100000", "--logdir", str(tmp_path)]
    whole = subprocess.Popen([sys.executable, "-m", "dreamer", *words], stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "metrics.jsonl"
    while whole.poll() is None and not (metrics.exists() and metrics.stat().st_size):
        time.sleep(0.2)
    whole.send_signal(number)
    said = whole.communicate(timeout=60)[1]  # as long as one of them holds the pipe
    assert whole.returncode == (-number if number == signal.SIGKILL else 128 + number) and "to go on" in said, said
    steps = {checkpoint.load(checkpoint.latest(at)).step for at in (tmp_path, tmp_path / "rank-1")}  # type: ignore[arg-type]
    assert len(steps) == 1 and min(steps) > 0
    assert f"train --logdir {tmp_path} " in (tmp_path / "rank-1/said.log").read_text()  # the run's, and not its own


if __name__ == "__main__":
    rank(int(sys.argv[1]), sys.argv[2])


def test_every_process_draws_noise_of_its_own_from_the_same_weights() -> None:
    """Dropout draws from torch's own generator, value alignment from one of its own."""
    config = dataclasses.replace(resolve(APP, "tiny"), device="cpu", precision="fp32", var=True)
    drawn, weights = [], []
    for seed in (config.seed, config.seed + STRIDE):
        made = build(config, SPACE, ActionSpec((3,), 0))
        draw_apart(made, seed)
        drawn.append([torch.rand(8, generator=one) for one in made.generators])
        weights.append(list(made.parameters()))
    assert len(drawn[0]) == 3
    assert not any(torch.equal(one, other) for one, other in zip(*drawn, strict=True))
    assert all(torch.equal(one, other) for one, other in zip(*weights, strict=True))
