"""What playing a few steps told of small observations is told once: the run keeps it, whatever another look would find."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
from dreamer.cli import APP
from env_adapters import TaskError, make_vec
from env_adapters.wrappers import PLAYED
from gymnasium import spaces
from wm_core.errors import UserError
from wm_run import bound, loading
from wm_run.app import Origin
from wm_run.cli import main
from wm_run.config import RunConfig
from wm_run.configs import write_run

LOOKED_AT = {"shows": 0, "times": 0}  # what an environment shows while it is looked at; how often one was


class Fickle(gymnasium.Env[Any, Any]):
    """Shows small values, but for a look, whose resets have small seeds: then those of `LOOKED_AT`."""

    observation_space = spaces.Box(0, 255, (7, 7, 3), np.uint8)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t, looked_at = 0, seed is not None and seed < PLAYED
        LOOKED_AT["times"] += seed == 0
        return np.full((7, 7, 3), LOOKED_AT["shows"] if looked_at else 1, np.uint8), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        return np.full((7, 7, 3), self.t % 5, np.uint8), 0.0, False, self.t == 10, {}


TINY = (
    "--preset",
    "tiny",
    "--task",
    f"{__name__}:Fickle",
    "--device",
    "cpu",
    "--workers",
    "0",
    "--final-video",
    "False",
)


@pytest.mark.parametrize("first, then, kept", [(2, 200, ["image"]), (200, 2, [])])
@pytest.mark.filterwarnings("ignore:.*is taken for")
def test_a_run_keeps_what_it_took_an_observation_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], first: int, then: int, kept: list[str]
) -> None:
    """Another verdict would make other networks, and the run could be neither gone on from nor played."""
    logdir = str(tmp_path / "run")
    LOOKED_AT["shows"] = first
    main(APP, ["train", *TINY, "--steps", "60", "--logdir", logdir])
    LOOKED_AT.update(shows=then, times=0)
    main(APP, ["eval", logdir, "--episodes", "1"])
    main(APP, ["train", "--logdir", logdir, "--steps", "90"])
    main(APP, ["dream", logdir, "--observed", "2", "--imagined", "3"])
    main(APP, ["play", logdir, "--show", "video", "--frames", "12"])
    assert loading.load(APP, logdir).observation_space["image"].shape == ((7, 7, 3) if kept else (16, 16, 3))
    assert LOOKED_AT["times"] == 0, "a run that knows looks again"
    assert tomllib.loads((tmp_path / "run" / "config.toml").read_text())["grids"] == kept
    assert "; grids" not in capsys.readouterr().err  # nobody changed anything


def test_a_run_of_before_is_bound_to_what_is_found_when_it_goes_on() -> None:
    """Killed before its next checkpoint, its config.toml knows more than the checkpoint; that is no change."""
    undecided = RunConfig(task="a")
    saved: Any = SimpleNamespace(path="D/checkpoint/1", meta=bound.described(write_run(APP, undecided, Origin()), {}))
    fields = saved.meta["config"]
    assert fields.pop("grids") is None  # it was saved before there was the field
    app: Any = SimpleNamespace(config=RunConfig)
    bound.check(app, bound.settled(undecided, SimpleNamespace(grids=("image",))), saved)  # type: ignore[arg-type]
    fields["grids"] = ["image"]
    with pytest.raises(UserError, match=r"config.toml says grids = \(\), but"):
        bound.check(app, dataclasses.replace(undecided, grids=()), saved)


@pytest.mark.filterwarnings("ignore:.*is taken for")
def test_the_first_environment_speaks_for_all() -> None:
    LOOKED_AT.update(shows=2, times=0)
    with make_vec(Fickle, 3, workers=0) as envs:
        assert envs.grids == ("image",) and LOOKED_AT["times"] == 1
        LOOKED_AT["shows"] = 200
        assert (envs.reset(seed=0)["image"] == 1).all()


@pytest.mark.filterwarnings("ignore:.*is taken for")
def test_what_is_said_needs_no_look() -> None:
    LOOKED_AT.update(shows=2, times=0)
    for grids, shape in ((["image"], (7, 7, 3)), ([], (16, 16, 3))):
        with make_vec(Fickle, 2, workers=0, grids=grids) as envs:
            assert envs.observation_space["image"].shape == shape and envs.grids == tuple(grids)
    assert LOOKED_AT["times"] == 0


@pytest.mark.parametrize(
    "name, space, told",
    [
        ("board", spaces.Box(0, 255, (7, 7, 3), np.uint8), "grids names 'board', but the observations are image"),
        ("image", spaces.Box(0, 255, (64, 64, 3), np.uint8), "grids names 'image', which is Box"),
        ("vector", spaces.Discrete(3), "grids names 'vector', which is Discrete"),
    ],
)
def test_what_cannot_be_a_grid_is_told(name: str, space: spaces.Space[Any], told: str) -> None:
    class Other(Fickle):
        observation_space = space  # type: ignore[assignment]

    with pytest.raises(TaskError, match=told):
        make_vec(Other, 1, grids=[name])
