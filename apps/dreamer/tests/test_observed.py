"""What `policy` makes of an environment's observation is what the agent was trained on: the record that the adapter gives."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from dreamer import load
from env_adapters import make_vec
from gymnasium import spaces
from wm_core.errors import UserError
from wm_run import observed

SPACES: dict[str, spaces.Space[Any]] = {
    "discrete from 5": spaces.Discrete(3, start=5),
    "discrete from -1": spaces.Discrete(3, start=-1),
    "several": spaces.MultiDiscrete([3, 2], start=[1, 10]),
    "table": spaces.MultiDiscrete([[3, 2], [4, 5]]),
    "bits": spaces.MultiBinary(4),
    "vector": spaces.Box(-1, 1, (3,)),
    "doubles": spaces.Box(-np.inf, np.inf, (2, 2), np.float64),
    "whole numbers": spaces.Box(-3, 400, (2,), np.int64),
    "image": spaces.Box(0, 255, (16, 16, 3), np.uint8),
    "nested": spaces.Dict(
        {
            "a": spaces.Tuple([spaces.Discrete(2, start=1), spaces.Box(0, 1, ())]),
            "b": spaces.Dict({"c": spaces.MultiDiscrete([2], start=[3])}),
        }
    ),
    "names of a step": spaces.Dict(
        {"reward": spaces.Discrete(2, start=1), "first": spaces.Dict({"~a/b": spaces.Box(0, 1, ())})}
    ),
    "keys that join alike": spaces.Dict(
        {"a/b": spaces.Discrete(3), "a": spaces.Dict({"b": spaces.Discrete(3, start=3)})}
    ),
    "pair": spaces.Tuple([spaces.Discrete(4, start=4), spaces.Box(0, 255, (16, 16, 1), np.uint8)]),
}


class Shows(gymnasium.Env[Any, Any]):
    """Samples of a space, and what was shown last."""

    action_space = spaces.Discrete(2)

    def __init__(self, space: spaces.Space[Any]) -> None:
        self.observation_space = space
        space.seed(0)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.shown = self.observation_space.sample()
        return self.shown, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.shown = self.observation_space.sample()
        return self.shown, 0.0, False, False, {}


@pytest.mark.parametrize("space", SPACES.values(), ids=list(SPACES))
def test_an_observation_becomes_the_record_of_its_adapter(space: spaces.Space[Any]) -> None:
    env = Shows(space)
    with make_vec(lambda: env, 1) as envs:
        step = envs.reset(0)
        for _ in range(20):
            found = observed.entries(env.shown, envs.observation_space.spaces, envs.sources)
            assert found.keys() == envs.observation_space.spaces.keys()
            for key, value in found.items():
                assert value.dtype == step[key].dtype and np.array_equal(value, step[key][0]), key
            step = envs.step(np.eye(2, dtype=np.float32)[:1])


@pytest.mark.parametrize(
    ("space", "value", "words"),
    [
        (spaces.Discrete(3, start=5), 2, "'vector' holds 2, which is not between 5 and 7"),
        (spaces.Discrete(3), 3, "'vector' holds 3, which is not between 0 and 2"),
        (spaces.Discrete(3), 1.0, "'vector' is float64, not int64"),
        (spaces.MultiDiscrete([3, 2], start=[1, 10]), [1, 1], "'vector' holds 1, which is not between 10 and 11"),
        (spaces.MultiBinary(2), [0, 2], "'vector' holds 2, which is not between 0 and 1"),
        (spaces.Dict({"a": spaces.Discrete(2, start=1)}), {"a": 0}, "'a' holds 0, which is not between 1 and 2"),
    ],
)
def test_a_value_that_the_space_does_not_have_is_named(space: spaces.Space[Any], value: Any, words: str) -> None:
    with make_vec(lambda: Shows(space), 1) as envs, pytest.raises(UserError, match=words):
        observed.entries(value, envs.observation_space.spaces, envs.sources)


def test_a_loaded_policy_knows_where_discrete_values_begin(catch: Path) -> None:
    loaded = load(catch)
    assert loaded.sources == {
        "image": (("image",), loaded.observation_space["image"])
    }  # a toy has nothing to translate
    own = spaces.Dict({"vector": spaces.Discrete(3)})
    translated = dataclasses.replace(
        loaded, observation_space=own, sources={"vector": ((), spaces.Discrete(3, start=5))}
    )
    assert translated.entries(6)["vector"] == 1
