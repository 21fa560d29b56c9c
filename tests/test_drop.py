"""What an agent does not look at is chosen once: the run keeps it, and whatever is done with the run keeps to it."""

from __future__ import annotations

import json
import tomllib
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from dreamer.cli import APP
from gymnasium import spaces
from wm_run import loading
from wm_run.cli import main


class Mission(gymnasium.Env[Any, Any]):
    """Shows a vector, a number and a text, as MiniGrid does."""

    observation_space = spaces.Dict(
        eye=spaces.Box(-1, 1, (3,), np.float32), mission=spaces.Text(20), direction=spaces.Discrete(4)
    )
    action_space = spaces.Discrete(2)

    def seen(self) -> dict[str, Any]:
        return {"eye": np.full(3, self.t / 10, np.float32), "mission": "go", "direction": self.t % 4}

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        return self.seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        return self.seen(), 0.0, False, self.t == 10, {}


TINY = (
    "--preset",
    "tiny",
    "--task",
    f"{__name__}:Mission",
    "--device",
    "cpu",
    "--workers",
    "0",
    "--final-video",
    "False",
)


@pytest.mark.parametrize(
    "asked, kept, seen",
    [((), ["mission"], {"eye", "direction"}), (("--drop", "mission", "direction"), ["mission", "direction"], {"eye"})],
)
def test_a_run_keeps_what_it_does_not_look_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], asked: tuple[str, ...], kept: list[str], seen: set[str]
) -> None:
    logdir = tmp_path / "run"
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        main(APP, ["train", *TINY, *asked, "--steps", "20", "--logdir", str(logdir)])
        main(APP, ["train", *TINY, *asked, "--steps", "30", "--logdir", str(logdir)])  # as it was typed
        capsys.readouterr()
        main(APP, ["eval", str(logdir), "--episodes", "1"])
        result = json.loads(capsys.readouterr().out)
        main(APP, ["play", str(logdir), "--show", "video", "--frames", "12"])
    told = [str(one.message) for one in heard if "left out" in str(one.message)]
    assert len(told) == (0 if asked else 1), told  # by the environments that the run began with, and by none after
    assert tomllib.loads((logdir / "config.toml").read_text())["drop"] == kept
    dropped = sorted(kept)
    assert json.loads((logdir / "protocol.json").read_text())["dropped"] == dropped
    assert result["protocol"]["dropped"] == dropped and result["changed"] == {}
    loaded = loading.load(APP, logdir)
    assert set(loaded.observation_space.spaces) == seen
    whole = Mission().reset(seed=0)[0]
    action, carry = loaded.policy(whole)  # as the environment shows it
    assert action in (0, 1)
    loaded.policy({key: whole[key] for key in seen}, carry)  # and without what is not looked at
    with pytest.raises(SystemExit):
        main(APP, ["train", "--logdir", str(logdir), "--drop", "mission", "eye"])
    assert "a run keeps what it was started with, but drop:" in capsys.readouterr().err
