"""What is not ours: the old interface in one sentence, attributes that are the environment's own."""

import re
import warnings

import gymnasium
import numpy as np
import pytest
from env_adapters import CheckError, TaskError, check_env, make_vec
from env_adapters.make import make
from env_adapters.wrappers import ActionRepeat
from gymnasium import spaces


class Plain(gymnasium.Env):
    observation_space, action_space = spaces.Box(-1, 1, (2,)), spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        return np.full(2, 0.5, np.float32), 1.0, False, False, {}


class FourValues(Plain):
    def step(self, action):
        return np.zeros(2, np.float32), 1.0, False, {}


class ObservationAlone(Plain):
    """Of length 2: it can be unpacked as if it were (observation, info)."""

    def reset(self, *, seed=None, options=None):
        return np.zeros(2, np.float32)


class NoSeed(Plain):
    def reset(self):
        return np.zeros(2, np.float32), {}


class NoOptions(Plain):
    def reset(self, seed=None):
        return np.zeros(2, np.float32), {}


class Keywords(Plain):
    def reset(self, **keywords):
        return super().reset(**keywords)


class Miscounts(Plain):
    def step(self, action):
        one, two, three, four, five = parts()
        return one, two, three, four, five


def parts() -> tuple[int, ...]:
    one, two, three, four, five = (1, 2, 3, 4)  # as a fault of the environment's own: no step of a wrapper
    return one, two, three, four, five


def limited(kind):
    gymnasium.register("Guest-v0", kind, max_episode_steps=50)
    try:
        return gymnasium.make("Guest-v0", disable_env_checker=True)
    finally:
        del gymnasium.registry["Guest-v0"]


OLD = r"step does not return \(observation, reward, terminated, truncated, info\) but 4 values: say terminated where"


@pytest.mark.parametrize("inside", [lambda one: one(), limited, lambda one: ActionRepeat(one(), 2)])
def test_the_old_interface_is_one_sentence_with_the_way_out(inside) -> None:
    with make_vec(lambda: inside(FourValues), 1) as env:
        env.reset(seed=0)
        env.step(np.eye(2)[:1])
        assert re.match(OLD, env.failure) and "\n" not in env.failure
    with (
        make_vec(lambda: inside(ObservationAlone), 1) as env,
        pytest.raises(TaskError, match="but a ndarray: return a dict"),
    ):
        env.reset(seed=0)
    with pytest.raises(CheckError, match="step does not return"):
        check_env(lambda: inside(FourValues), steps=5)


@pytest.mark.parametrize(("kind", "lacks"), [(NoSeed, "seed and options"), (NoOptions, "options")])
def test_a_reset_without_seed_is_told_when_it_is_made(kind, lacks: str) -> None:
    with pytest.raises(TaskError, match=f"reset of {kind.__name__} does not take {lacks}: begin it with `def reset"):
        make_vec(kind, 2)
    assert make_vec(Keywords, 1).reset(seed=0)["first"].all()


def test_a_fault_of_the_environment_keeps_its_own_words() -> None:
    with pytest.raises(ValueError, match="expected 5, got 4"):
        make(Miscounts).step(0)


class Named(Plain):
    """Its attributes have to do with telescopes."""

    signals = np.zeros((3, 4))
    protocol = "http"
    repeat = 7
    cheap = True

    def snapshot(self, camera):
        raise AssertionError

    def restore(self, path, year):
        raise AssertionError

    def reseed(self):
        raise AssertionError


class Offered(Plain):
    env_adapters = True
    signals = ("odd",)
    protocol = {"name": "walk"}  # noqa: RUF012
    repeat = 7
    cheap = True
    born = count = 0

    def step(self, action):
        self.count += 1
        return *super().step(action)[:4], {"odd": self.count % 2 == 1}

    def snapshot(self):
        return {"count": self.count}

    def restore(self, state):
        self.count = state["count"]

    def reseed(self, seed):
        self.born = seed


def test_attributes_are_read_only_where_they_are_offered() -> None:
    with pytest.warns(
        UserWarning, match="Named: protocol, repeat, signals, cheap, reseed, snapshot, restore are taken for"
    ):
        env = make_vec(Named, 2, workers=0)
    env.reset(seed=0)
    env.step(np.eye(2))
    env.load_state(env.state())
    assert env.repeat == 1 and env.signals == () and env.protocol["environment"] == "Named" and env.take_faults() == []
    (remark, _) = check_env(Named, steps=5)
    assert "`env_adapters = True`" in remark and "\n" not in remark


def test_attributes_that_are_offered_are_read() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = make_vec(Offered, 2, workers=0)
    assert env.repeat == 7 and env.signals == ("odd",) and env.protocol == {"name": "walk"}
    env.reset(seed=0)
    state = [env.step(np.eye(2)), env.state()][1]
    assert state["envs"][0]["count"] == 1 and env.get("born")[0] > 0
    assert env.step(np.eye(2))["odd"].tolist() == [False, False]
    env.load_state(state)
    assert env.get("count") == [1, 1] and env.step(np.eye(2))["odd"].tolist() == [False, False]


def test_nothing_that_comes_with_gymnasium_is_taken_for_a_fact() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for task in ("gym:CartPole-v1", "gym:Blackjack-v1", "gym:FrozenLake-v1", "popgym_RepeatFirstEasy", "toy:doors"):
            make_vec(task, 1)
