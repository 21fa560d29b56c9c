"""What an environment shows is taken as it is, or refused with the key, the value and the space."""

import itertools
import re
import sys
import warnings
from fractions import Fraction

import cloudpickle
import gymnasium
import numpy as np
import pytest
from env_adapters import CheckError, TaskError, check_env, make_vec
from env_adapters.errors import brief
from env_adapters.step import Reader
from env_adapters.values import number
from env_adapters.wrappers import ActionRepeat
from gymnasium import spaces

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the workers cannot import this file


class Shows(gymnasium.Env):
    """Shows a sample of its space, and from step `at` on (0: the reset) something else; likewise the reward."""

    def __init__(self, space=spaces.Box(-1, 1, (2,)), at=10**9, value=None, reward=0.5, key="sight"):  # noqa: B008
        self.observation_space, self.action_space = spaces.Dict({key: space}), spaces.Discrete(2)
        space.seed(0)
        self.good, self.at, self.value, self.reward, self.key = space.sample(), at, value, reward, key

    def show(self):
        return {self.key: self.good if self.count < self.at else self.value}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return self.show(), {}

    def step(self, action):
        self.count += 1
        return self.show(), self.reward if self.count >= self.at else 0.5, False, False, {}


def play(steps: int, *arguments, workers: int = 0, **options) -> dict[str, np.ndarray]:
    with make_vec(Shows, 2, workers=workers, space=arguments[0], **options) as env:
        step = env.reset(seed=0)
        for _ in range(steps):
            step = env.step(np.eye(2, dtype=np.float32))
        if env.failure:
            raise TaskError(env.failure)
    return step


IMAGE = spaces.Box(0, 255, (4, 4, 3), np.uint8)
F32 = spaces.Box(-np.inf, np.inf, (2,), np.float32)
F64 = spaces.Box(-np.inf, np.inf, (2,), np.float64)
I64 = spaces.Box(-(2**62), 2**62, (2,), np.int64)
# space, value, how the message names the value
REFUSED = {
    "a float image": (IMAGE, np.linspace(0, 1, 48).reshape(4, 4, 3), "0.0212"),
    "300 in bytes": (IMAGE, np.full((4, 4, 3), 300), "300"),
    "a negative byte": (IMAGE, np.full((4, 4, 3), -1), "-1"),
    "NaN": (F32, np.array([0, np.nan], np.float32), "nan"),
    "NaN of doubles": (F64, np.array([0, np.nan]), "nan"),
    "NaN among integers": (I64, np.array([0, np.nan]), "nan"),
    "infinity": (F32, np.array([-np.inf, 0], np.float32), "-inf"),
    "more than float32 holds": (F64, np.array([0, 1e300]), "1e+300"),
    "more than float16 holds": (spaces.Box(-9, 9, (2,), np.float16), np.array([0, 70000.0]), "70000.0"),
    "more than int64 holds": (I64, np.array([0, 2.0**63]), str(2**63)),
    "too large an unsigned": (I64, np.array([0, 2**63], np.uint64), str(2**63)),
    "None": (F32, None, "None"),
    "None in a list": (F32, [0.5, None], "None"),
    "text": (F32, ["a", "b"], "'a'"),
    "complex": (F32, np.array([1j, 0]), "1j"),
    "ragged": (F32, [[1], [2, 3]], "list"),
    "a dict": (F32, {"a": 1}, "{'a': 1}"),
    "Discrete, above": (spaces.Discrete(4), 4, "4"),
    "Discrete, below its start": (spaces.Discrete(4, start=2), np.int64(1), "1"),
    "Discrete, a fraction": (spaces.Discrete(4), 0.5, "0.5"),
    "Discrete, None": (spaces.Discrete(4), None, "None"),
    "MultiDiscrete": (spaces.MultiDiscrete([3, 5]), np.array([3, 4]), "3"),
    "MultiDiscrete, below": (spaces.MultiDiscrete([3, 5], start=[1, 1]), np.array([1, 0]), "0"),
    "MultiBinary": (spaces.MultiBinary(2), np.array([0, 2], np.int8), "2"),
}


@pytest.mark.parametrize("at", [0, 3])
@pytest.mark.parametrize("name", REFUSED)
def test_what_a_space_cannot_hold_stops_with_key_value_and_space(name: str, at: int) -> None:
    space, value, told = REFUSED[name]
    with pytest.raises(TaskError) as caught:
        play(3, space, at=at, value=value)
    sentence = str(caught.value)
    assert "'sight'" in sentence and f" {told}" in sentence.replace("(", " ") and brief(space) in sentence
    assert "\n" not in sentence


def test_a_worker_says_the_same() -> None:
    space, value, _ = REFUSED["a float image"]
    sentences = []
    for workers in (0, 1):
        with pytest.raises(TaskError) as caught:
            play(3, space, at=2, value=value, workers=workers)
        sentences.append(str(caught.value))
    assert sentences[0] == sentences[1]


@pytest.mark.parametrize("name", REFUSED)
def test_the_check_fails_with_the_same_sentence(name: str) -> None:
    space, value, _ = REFUSED[name]
    with pytest.raises(CheckError, match="'sight'"):
        check_env(lambda: Shows(space, 3, value), steps=20)


NUMBERS = [
    0,
    1,
    -1,
    127,
    128,
    255,
    256,
    300,
    -128,
    -129,
    2**31,
    2**53 + 1,
    2**63 - 1,
    0.25,
    1.5,
    -2.0,
    3e38,
    1e39,
    1e300,
]
DTYPES = (np.uint8, np.int8, np.int16, np.int64, np.uint64, np.float16, np.float32, np.float64)


@pytest.mark.filterwarnings("ignore:.*(cast|overflow|invalid)")
def test_a_value_is_read_exactly_or_refused_whatever_the_types() -> None:
    """Integers exactly, floats to the last bit that their dtype has; brute force over types and values."""
    read = refused = 0
    for given, declared, value in itertools.product(DTYPES, DTYPES, NUMBERS):
        try:
            shown = np.array([value], given)
        except OverflowError:
            continue
        if not np.isfinite(shown).all():
            continue
        exact, travels = Fraction(shown[0].item()), np.float32 if declared is np.float64 else declared
        if np.issubdtype(travels, np.floating):
            space = spaces.Box(-np.inf, np.inf, (1,), declared)
            fits = abs(exact) <= Fraction(float(np.finfo(travels).max))
            most = Fraction(float(np.finfo(travels).eps)) * abs(exact)
        else:
            most, info = Fraction(0), np.iinfo(travels)
            space = spaces.Box(info.min, info.max, (1,), declared)
            fits = exact.denominator == 1 and info.min <= exact <= info.max
        try:
            (array,) = Reader(space)(shown).values()
        except TaskError:
            assert not fits, (given, declared, value)
            refused += 1
        else:
            assert fits and array.dtype == travels, (given, declared, value)
            assert abs(Fraction(array[0].item()) - exact) <= most, (given, declared, value)
            read += 1
    assert read > 500 and refused > 150


def test_missing_entries_are_told_and_others_left_out_with_a_notice() -> None:
    reader = Reader(spaces.Dict(eye=spaces.Discrete(3), body=spaces.Dict(arm=spaces.Box(-1, 1, (2,)))))
    arm = np.zeros(2, np.float32)
    shown = reader({"eye": 1, "body": {"arm": arm}, "hat": 3})
    assert set(shown) == {"eye", "body/arm"} and "'hat'" in reader.notices["more"]
    with pytest.raises(TaskError, match="a dict of 'eye', its observation space"):
        reader({"eye": 1})
    with pytest.raises(TaskError, match="a ndarray, its observation space"):
        reader(arm)
    with pytest.raises(TaskError, match="'body/arm' with the value nan"):
        reader({"eye": 1, "body": {"arm": arm * np.nan}})


@pytest.mark.parametrize(("at", "steps", "workers"), [(0, 0, 0), (5, 70, 0), (5, 70, 2)])
def test_a_finite_value_outside_its_bounds_is_one_notice(at: int, steps: int, workers: int) -> None:
    """At a reset at once; in an episode within 64 steps."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        step = play(steps, spaces.Box(-1, 1, (2,)), at=at, value=np.array([0, 7.5], np.float32), workers=workers)
    (notice,) = [str(one.message) for one in caught if "'sight'" in str(one.message)]
    assert "7.5" in notice and "Box(-1.0, 1.0, (2,), float32)" in notice and "\n" not in notice
    assert step["sight"].tolist() == [[0, 7.5]] * 2  # as it is


def test_whole_floats_are_taken_as_integers_with_a_notice() -> None:
    with pytest.warns(UserWarning, match="'sight' as float64; whole numbers are taken as they are"):
        step = play(0, IMAGE, at=0, value=np.ones((4, 4, 3)))
    assert (step["sight"] == 1).all() and step["sight"].dtype == np.uint8


def test_rounding_at_a_bound_is_no_notice() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        play(2, spaces.Box(-1, 1, (2,)), at=1, value=np.array([1 + 1e-6, -1 - 1e-6]))


@pytest.mark.parametrize("reward", [1e39, -1e39, None, np.nan, np.inf, "1", [1, 2], 10**400, 1j, {}, np.float64(1e300)])
def test_a_reward_that_is_no_number_of_float32_is_told(reward) -> None:
    for workers in (0, 1) if reward is None else (0,):
        with pytest.raises(
            TaskError, match=r"the reward .* is (no finite number|more than float32 can hold)"
        ) as caught:
            play(3, spaces.Discrete(2), at=2, value=0, reward=reward, workers=workers)
        assert repr(reward)[:50] in str(caught.value)
    with pytest.raises(CheckError, match="the reward"):
        check_env(lambda: Shows(spaces.Discrete(2), 2, 0, reward), steps=10)
    repeated = ActionRepeat(Shows(spaces.Discrete(2), 0, 0, reward), 2)
    repeated.reset()
    with pytest.raises(TaskError, match="the reward"):
        repeated.step(0)


@pytest.mark.parametrize("reward", [np.array([1.5]), [1.5], np.float32(1.5), np.array(1.5), np.array([[1.5]])])
def test_a_reward_of_one_element_is_that_element(reward) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert play(3, spaces.Discrete(2), at=2, value=0, reward=reward)["reward"].tolist() == [1.5, 1.5]
        repeated = ActionRepeat(Shows(spaces.Discrete(2), 0, 0, reward), 2)
        repeated.reset()
        assert repeated.step(0)[1] == 3.0
    assert number(reward) == 1.5
    assert check_env(lambda: Shows(spaces.Discrete(2), 2, 0, reward), steps=10)  # remarks alone


class Flags(Shows):
    def __init__(self, ended) -> None:
        super().__init__(spaces.Discrete(2))
        self.ended = ended

    def step(self, action):
        return *super().step(action)[:2], *self.ended, {}


@pytest.mark.parametrize("ended", [(np.True_, False), (1, 0), (np.array([True]), np.array(False))])
def test_flags_of_one_element_are_taken(ended) -> None:
    with make_vec(lambda: Flags(ended), 1) as env:
        env.reset(seed=0)
        assert env.step(np.eye(2)[:1])["terminal"].tolist() == [True]


@pytest.mark.parametrize(
    ("ended", "name"), [((None, False), "terminated"), ((False, "no"), "truncated"), ((2, 0), "term")]
)
def test_flags_that_are_none_are_told(ended, name: str) -> None:
    with make_vec(lambda: Flags(ended), 1) as env:
        env.reset(seed=0)
        env.step(np.eye(2)[:1])
        assert re.search(f"as {name}.*a bool", env.failure)
