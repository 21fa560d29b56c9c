"""Names of tasks, factories, options, and what is said when they are wrong."""

import sys
import textwrap
import warnings
from typing import get_args, get_type_hints

import gymnasium
import numpy as np
import pytest
from env_adapters import TaskError, make, make_vec, tasks
from env_adapters.wrappers import ActionRepeat, Resize
from gymnasium import spaces
from gymnasium.utils import env_checker

EVERY = [
    ("toy:catch", {}),
    ("toy:catch_distracted", {}),
    ("toy:cue_maze", {}),
    ("toy:cue_maze", {"image": True}),
    ("toy:doors", {}),
    ("toy:doors_image", {}),
    ("atari100k_pong", {}),
    ("atari100k_breakout", {"protocol": "storm"}),
    ("gym:CartPole-v1", {}),
    ("gym:Pendulum-v1", {"repeat": 2}),
    ("gym:Blackjack-v1", {}),
]
# said of every wrapped environment, of every one outside gymnasium's registry, and of CartPole's and Pendulum's bounds
EXPECTED = (
    "different from the unwrapped version",
    "alternative render modes",
    "is -infinity",
    "is infinity",
    "recommend",
)


@pytest.mark.parametrize(("task", "options"), EVERY, ids=[f"{task} {options}" for task, options in EVERY])
def test_gymnasiums_own_checker_passes(task, options) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        env_checker.check_env(make(task, **options), skip_close_check=True, skip_render_check="gym:" in task)
        if "gym:" not in task:
            env_checker.check_env(make(task, render_mode="rgb_array", **options).unwrapped)
    assert [str(one.message) for one in caught if not any(known in str(one.message) for known in EXPECTED)] == []


@pytest.mark.parametrize(("task", "options"), EVERY, ids=[f"{task} {options}" for task, options in EVERY])
def test_observations_are_dicts_with_a_protocol(task, options) -> None:
    env = make(task, **options)
    assert isinstance(env.observation_space, spaces.Dict)
    assert env.observation_space.contains(env.reset(seed=0)[0])
    assert env.get_wrapper_attr("protocol")["name"]
    one, two = (make(task, seed=3, **options).reset()[0] for _ in range(2))
    assert all(np.array_equal(one[key], two[key]) for key in one)  # make's seed decides an unseeded reset


def test_tasks_are_listed() -> None:
    assert {"atari100k_boxing", "atari100k_james_bond", "toy:catch", "toy:doors", "toy:doors_image"} <= set(tasks())
    assert len([one for one in tasks() if one.startswith("atari100k_")]) == 26


SUITE = """
    import gymnasium
    import numpy as np

    class Level(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(0, 255, (8, 8, 3), np.uint8)
        action_space = gymnasium.spaces.Discrete(2)

        def __init__(self, level: str = "first", bright: int = 1):
            self.level, self.bright = level, bright

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return np.full((8, 8, 3), self.bright, np.uint8), {}

        def step(self, action):
            return np.full((8, 8, 3), self.bright, np.uint8), 0.0, False, False, {}

    def not_an_env():
        return 3

    number = 3
"""


@pytest.fixture
def suite(tmp_path, monkeypatch):
    """An installed package `my_suite` that publishes the suites `levels` and `broken`."""
    (tmp_path / "my_suite.py").write_text(textwrap.dedent(SUITE))
    info = tmp_path / "my_suite-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-suite\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[env_adapters]\nlevels = my_suite:Level\nbroken = my_suite:gone\n")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("suite")
def test_three_ways_to_bring_an_environment() -> None:
    from my_suite import Level

    assert make(Level, bright=4).reset()[0]["image"].max() == 4
    assert make("my_suite:Level", level="last").unwrapped.level == "last"
    assert "levels" in tasks()
    levels = {task: make(task).unwrapped.level for task in ("levels", "levels:second", "levels_third")}
    assert levels == {"levels": "first", "levels:second": "second", "levels_third": "third"}
    assert make_vec("levels:second", 2, workers=1, bright=7).reset(seed=0)["image"].max() == 7
    assert make_vec(lambda: Level("mine", 9), 2, workers=1).reset(seed=0)["image"].max() == 9


MINE = """
    import gymnasium
    import beside

    class Mine(gymnasium.Env):
        observation_space, action_space = gymnasium.spaces.Box(0, 1, (1,)), gymnasium.spaces.Discrete(2)
        def reset(self, *, seed=None, options=None): return self.observation_space.low, {}
        def step(self, action): return self.observation_space.low, 0.0, False, False, {}

    if "Mine-v0" not in gymnasium.registry:
        gymnasium.register("Mine-v0", Mine)
"""


@pytest.mark.parametrize("task", ["{}:Mine", "gym:{}:Mine-v0"])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_in_the_working_folder_is_found(tmp_path, monkeypatch, task, workers) -> None:
    """A console script has that folder nowhere on its path; workers look for themselves."""
    name = f"mine_{task.count(':')}_{workers}"
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(MINE))
    (tmp_path / "beside.py").touch()
    monkeypatch.setattr(sys, "path", [one for one in sys.path if one])
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    with make_vec(task.format(name), 2, workers=workers) as envs:
        assert envs.reset(0)["vector"].shape == (2, 1)
    assert sys.path == [*before, str(tmp_path)]  # behind everything that was there
    del sys.modules["beside"]


@pytest.mark.usefixtures("suite")
@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("pong", {}, r"no task 'pong'; close: atari100k_pong"),
        ("toy:cach", {}, r"no task 'toy:cach'; close: toy:catch"),
        ("atari100k_pongg", {}, r"no game 'pongg'; close: atari100k_pong"),
        ("atari100k_zzz", {}, r"no game 'zzz'; known: alien, "),
        ("gym:CartPol-v1", {}, r"no environment 'CartPol-v1'; close: gym:CartPole-v1"),
        ("gym:CartPole-v99", {}, r"no environment 'CartPole-v99'; close: gym:CartPole-v1"),
        ("gym:Other/Pong-v5", {}, "gym:<module>:Other/Pong-v5"),
        ("gym:no_module:X-v0", {}, "needs a module that is missing"),
        ("", {}, "tasks are atari100k_<game>"),
        ("zzzzzz", {}, "tasks are atari100k_<game>"),
        ("no_module:make", {}, r"no task 'no_module:make' and no module 'no_module'"),
        ("my_suite:gone", {}, "my_suite has no callable 'gone'"),
        ("my_suite:number", {}, "my_suite has no callable 'number'"),
        ("my_suite:not_an_env", {}, "returned a int, not a gymnasium.Env"),
        ("my_suite:Level", {"dark": 1}, "no option 'dark'; it has level, bright"),
        ("levels:second", {"level": "x"}, "no option 'level'; it has bright"),
        ("broken", {}, "entry point broken = my_suite:gone does not load"),
        ("toy:catch", {"size": "64"}, "option size is '64', a str; it is int"),
        ("toy:doors", {"image": 1, "redraw": 0.5}, "a int; it is bool|a float; it is int"),
        ("gym:CartPole-v1", {"colour": 1}, "does not take the options colour"),
        ("gym:CartPole-v1", {"size": 64}, "has none; leave it out"),
        ("gym:CartPole-v1", {"repeat": 0}, "repeat is 0"),
        (3, {}, "not 3"),
    ],
)
def test_mistakes_are_one_sentence(task, options, message) -> None:
    with pytest.raises(TaskError, match=message) as caught:
        make(task, **options)
    assert "\n" not in str(caught.value)


def test_mistakes_are_the_same_through_the_vector_form() -> None:
    with pytest.raises(TaskError, match="no option 'foo'"):
        make_vec("toy:catch", 2, workers=1, foo=1)


def test_repeat_sums_rewards_and_stops_at_the_end() -> None:
    one, four = make("gym:CartPole-v1"), make("gym:CartPole-v1", repeat=4)
    one.reset(seed=1), four.reset(seed=1)
    total = ended = 0
    while not ended:
        expected, reward = 0.0, 0.0
        for _ in range(4):
            if not ended:
                observation, reward, ended, _, _ = one.step(1)
                expected += reward
        found = four.step(1)
        assert found[1:3] == (expected, ended) and np.array_equal(found[0]["vector"], observation["vector"])
        total += expected
    assert total % 4  # the last one was cut short
    assert ActionRepeat(four, 2).repeat == 8


def test_resize_changes_images_only() -> None:
    class Mixed(gymnasium.Env):
        observation_space = spaces.Dict(
            eye=spaces.Box(0, 255, (32, 48, 3), np.uint8), grey=spaces.Box(0, 255, (32, 48, 1), np.uint8), arm=HAND
        )
        action_space = spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            left = np.zeros((32, 48, 3), np.uint8)
            left[:, :24] = 200
            return {"eye": left, "grey": left[:, :, :1], "arm": np.ones(2, np.float32)}, {}

    env = Resize(Mixed(), 16)
    observation, _ = env.reset()
    assert env.observation_space.contains(observation)
    for image in (observation["eye"], observation["grey"]):
        assert (image[:, :7] == 200).all() and (image[:, 9:] == 0).all()
    assert (observation["arm"] == 1).all()


HAND = spaces.Box(0, 1, (2,), np.float32)


def test_a_wish_is_left_out_where_a_suite_has_no_such_option() -> None:
    """The protocol of Atari is none of a toy's; an option that must be taken is refused there."""
    with make_vec("toy:catch", 1, wishes={"protocol": "storm"}) as envs:
        assert envs.protocol["name"] == "catch"
    with make_vec("atari100k_pong", 1, workers=0, wishes={"protocol": "storm", "unheard": 3}) as envs:
        assert envs.protocol["name"] == "storm"
    with pytest.raises(TaskError, match="has no option 'protocol'"):
        make_vec("toy:catch", 1, workers=0, protocol="storm")


def test_a_strangers_option_is_not_wished_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another's `protocol` may mean another thing."""
    seen: list[object] = []

    def stranger(protocol: object = None) -> object:
        seen.append(protocol)
        return gymnasium.make("CartPole-v1")

    with make_vec(stranger, 1, workers=0, wishes={"protocol": "storm"}):
        assert seen == [None]


def test_what_make_vec_says_it_makes_is_what_it_makes() -> None:
    said = get_args(get_type_hints(make_vec)["return"])
    for task in ("toy:catch", "smax:3m"):
        with make_vec(task, 1) as envs:
            assert isinstance(envs, said) and type(envs) in said
