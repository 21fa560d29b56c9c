"""The app as its users call it, one small run, and one agent with the numbers of STORM's public code."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from env_adapters import ActionSpec, make
from storm.agent import Storm, build
from storm.cli import APP
from wm_run import dreams
from wm_run.cli import main
from wm_run.configs import resolve

Run = Callable[..., None]


@pytest.fixture(scope="session")
def run() -> Run:
    """run("train", "--steps", 10): a command line, in this process."""
    return lambda *words: main(APP, [str(word) for word in words])


@pytest.fixture(scope="module")
def short_films() -> Iterator[None]:
    """Enough frames to see that there are some."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dreams, "VIDEO_STEPS", 12)
        patch.setattr(dreams, "DREAM_STEPS", 20)
        yield


@pytest.fixture(scope="module")
def catch(run: Run, short_films: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of the preset tiny on toy:catch, with value alignment in its second half."""
    logdir = tmp_path_factory.mktemp("runs") / "catch"
    run("train", "--preset", "tiny", "--device", "cpu", "--train_ratio", 16, "--var", True, "--logdir", logdir)
    return logdir


@pytest.fixture
def tiny() -> Callable[..., Storm]:
    """tiny(act_on="posterior"): a new agent of the preset on its task, with other numbers, in float64 draws and all."""

    def make_one(**numbers: Any) -> Storm:
        torch.manual_seed(0)
        config = dataclasses.replace(resolve(APP, "tiny"), device="cpu", precision="fp32", **numbers)
        return build(config, make("toy:catch").observation_space, ActionSpec((3,), 0))

    return make_one


@pytest.fixture
def steps() -> Callable[..., dict[str, torch.Tensor]]:
    """steps(rows, length): random records of catch, with an episode's end in them, as replay gives them."""

    def make_steps(rows: int, length: int, seed: int = 0, actions: int = 3) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        shape = make("toy:catch").observation_space["image"].shape
        first = torch.zeros(rows, length, dtype=torch.bool)
        first[0, length // 2] = True
        last = torch.zeros_like(first)
        last[0, length // 2 - 1] = True
        action = torch.nn.functional.one_hot(torch.randint(actions, (rows, length), generator=generator), actions)
        reset = first.clone()
        reset[:, 0] = True
        return {
            "image": torch.randint(256, (rows, length, *shape), generator=generator, dtype=torch.uint8),
            "action": action.float() * ~first[..., None],
            "reward": torch.randn(rows, length, generator=generator) * ~first,
            "first": first,
            "last": last,
            "terminal": last,
            "weight": torch.ones(rows, length),
            "reset": reset,
        }

    return make_steps
