"""An observation may be called anything: it arrives as itself, beside whatever else is called so."""

import itertools
import sys
from typing import Any

import cloudpickle
import gymnasium
import numpy as np
import pytest
from env_adapters import TaskError, check_env, make_vec
from env_adapters.names import RESERVED, spelled
from env_adapters.wrappers import Adapted, adapt
from gymnasium import spaces

NAMES = [*RESERVED, "life_loss", "~reward", "/command", "in/action", "items", "a.b", ""]


class Named(gymnasium.Env[Any, Any]):
    """Every observation says which it is: the k-th shows k + 1."""

    env_adapters = True
    signals = ("life_loss",)
    action_space = spaces.Discrete(2)

    def __init__(self) -> None:
        one = spaces.Box(-np.inf, np.inf, (1,))
        nested = spaces.Dict({"action": one, "command": one})
        self.observation_space = spaces.Dict({**dict.fromkeys(NAMES, one), "in": nested})

    def _shown(self) -> dict[str, Any]:
        each = {name: np.full(1, k + 1, np.float32) for k, name in enumerate(NAMES)}
        nested = {"action": np.full(1, 100, np.float32), "command": np.full(1, 101, np.float32)}
        return {**each, "in": nested}

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        return self._shown(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        return self._shown(), 0.5, self.t == 3, False, {"life_loss": self.t == 2}


@pytest.mark.parametrize("workers", [0, 1])
def test_observations_called_like_entries_of_a_step_arrive_beside_them(workers: int) -> None:
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # a worker does not find this file
    with make_vec(Named, 2, workers=workers) as env:
        env.reset(seed=0)
        steps = [env.step(np.eye(2, dtype=np.float32)[[0, 1]]) for _ in range(4)]
    seen = sorted(float(steps[0][key][0, 0]) for key in env.observation_space.spaces)
    assert seen == [*(float(k + 1) for k in range(len(NAMES))), 100.0, 101.0]
    assert [step["reward"].tolist() for step in steps] == [[0.5, 0.5]] * 3 + [[0.0, 0.0]]
    assert [step["last"][0] for step in steps] == [False, False, True, False]
    assert [step["life_loss"][0] for step in steps] == [False, True, False, False]
    assert steps[0]["action"].tolist() == [[1, 0], [0, 1]]
    assert steps[1]["~life_loss"][0, 0] == 1 + NAMES.index("life_loss")


def test_such_an_environment_keeps_the_specification() -> None:
    assert check_env(Named(), steps=12) == []


def test_names_are_one_to_one() -> None:
    keys = ["a", "b", "/", "~", "a/b", "~1", "", "reward", "~reward", "0"]
    paths = [list(path) for n in (1, 2, 3) for path in itertools.product(keys, repeat=n)]
    for signals in ((), ("a", "life_loss")):
        names = spelled(paths, signals)
        assert len(set(names)) == len(paths)
        assert not set(names) & {*RESERVED, *signals, ""} and not any(name.startswith("/") for name in names)


def test_ordinary_names_stay() -> None:
    paths = [["image"], ["arm", "speed"], ["obs", "image"], ["two words"], ["0"], ["in", "action"]]
    assert spelled(paths) == ["image", "arm/speed", "obs/image", "two words", "0", "in/action"]


def test_a_signal_called_like_an_entry_of_a_step_is_refused() -> None:
    env = Named()
    env.signals = ("reward",)  # type: ignore[assignment]
    with pytest.raises(TaskError, match="signal 'reward'"):
        adapt(env, "named")


def test_an_adapted_environment_shows_its_space() -> None:
    env = adapt(Named(), "named")
    assert isinstance(env, Adapted) and env.observation_space.contains(env.reset(seed=0)[0])
