"""check_env passes on every task and names what is wrong with a broken environment."""

import gymnasium
import numpy as np
import pytest
from env_adapters import CheckError, check_env
from gymnasium import spaces


@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("toy:catch", {}),
        ("toy:catch", {"size": 16, "grid": 4}),
        ("toy:catch_distracted", {}),
        ("toy:cue_maze", {"length": 2, "gap": 1}),
        ("toy:cue_maze", {"image": True}),
        ("toy:doors", {"redraw": 2}),
        ("toy:doors_image", {}),
        ("gym:CartPole-v1", {}),
        ("gym:Pendulum-v1", {"max_episode_steps": 20}),
        ("gym:Blackjack-v1", {}),
        ("gym:FrozenLake-v1", {}),
        ("atari100k_pong", {"limit": 80}),
        ("atari100k_breakout", {"limit": 80, "protocol": "storm"}),
    ],
)
def test_every_task_passes(task, options) -> None:
    assert check_env(task, steps=60, **options) == []


def test_what_was_not_exercised_is_said() -> None:
    assert check_env("gym:Pendulum-v1", steps=30) == [
        "no episode ended within 30 steps: ends and the next reset were not exercised"
    ]


class Good(gymnasium.Env):
    """A walk on seven places; the broken ones below change one thing."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(0, 6, (1,), np.float32)
        self.action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = int(self.np_random.integers(2, 5))
        return self.show(), {}

    def step(self, action):
        self.place += 2 * int(action) - 1
        done = self.place in (0, 6)
        return self.show(), float(self.place == 6), done, False, {}

    def show(self):
        return np.array([self.place], np.float32)


class OutOfSpace(Good):
    def show(self):
        return np.array([self.place - 4], np.float32)


class WrongShape(Good):
    def show(self):
        return np.array([self.place, 0], np.float32)


class WrongReward(Good):
    def step(self, action):
        return *super().step(action)[:1], float("nan"), False, False, {}


class WrongFlag(Good):
    def step(self, action):
        observation, reward, done, _, info = super().step(action)
        return observation, reward, int(done), False, info


class Unseeded(Good):
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = int(np.random.default_rng().integers(1, 6))
        return self.show(), {}


class ForgetsInSnapshots(Good):
    env_adapters = True

    def snapshot(self):
        return {"place": 3}

    def restore(self, state):
        self.place = state["place"]


class UnplainSnapshot(ForgetsInSnapshots):
    def snapshot(self):
        return {"place": self.place, "walk": [(1, 2)]}


class WrongProtocol(Good):
    env_adapters = True
    protocol = {"name": "walk", "numbers": (1, 2)}  # noqa: RUF012


class NamelessProtocol(Good):
    env_adapters = True
    protocol = {"numbers": [1, 2]}  # noqa: RUF012


class FourValues(Good):
    def step(self, action):
        return super().step(action)[:4]


class NoInfo(Good):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)[0]


class UnreadableSpace(Good):
    def __init__(self) -> None:
        super().__init__()
        self.observation_space = spaces.Text(4)


class MissingSignal(Good):
    env_adapters = True
    signals = ("life_loss",)


class UnseenLevel(Good):
    """Its episodes depend on how many there were."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def step(self, action):
        self.count += 1
        observation, _, done, _, info = super().step(action)
        return observation, float(self.count), done, False, info


def build() -> gymnasium.Env:
    return Good()


def test_a_good_environment_passes_as_an_instance_a_class_and_a_factory() -> None:
    for env in (Good(), Good, build):
        assert check_env(env, steps=60) == []


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (WrongShape, r"shows 'vector' of shape \(2,\), its observation space says \(1,\)"),
        (WrongReward, "the reward nan is no finite number"),
        (WrongFlag, "terminated is [01], no bool"),
        (Unseeded, "two passes .* differ at step"),
        (UnseenLevel, "two passes .* differ at step"),
        (ForgetsInSnapshots, "after a snapshot is restored, record [0-9]+ differs"),
        (UnplainSnapshot, r"snapshot\['walk'\]\[0\] is a tuple"),
        (WrongProtocol, "changes when it is written as JSON"),
        (NamelessProtocol, "a dict with a name"),
        (FourValues, "step does not return"),
        (NoInfo, "reset does not return"),
        (UnreadableSpace, "no array of fixed shape"),
        (MissingSignal, "the signal 'life_loss' is None"),
    ],
)
def test_broken_environments_are_told_what_is_wrong(broken, message) -> None:
    with pytest.raises(CheckError, match=message):
        check_env(broken(), steps=60)


def test_a_finite_value_outside_its_bounds_is_a_remark() -> None:
    (remark,) = check_env(OutOfSpace(), steps=60)
    assert "shows 'vector' with the value -" in remark and "outside its bounds" in remark and "Box(0.0, 6.0" in remark


def test_double_precision_is_brought_to_single() -> None:
    class Double(Good):
        def __init__(self) -> None:
            super().__init__()
            self.observation_space = spaces.Box(0, 6, (1,), np.float64)

        def show(self):
            return np.array([self.place], np.float64)

    assert check_env(Double(), steps=60) == []
