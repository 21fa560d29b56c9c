"""Batched steps, automatic resets, seeds and snapshots, in this process and in workers."""

import copy
import json
import pickle

import gymnasium
import numpy as np
import pytest
from env_adapters import TaskError, VectorEnv, decode_action, make, make_vec
from env_adapters.seeds import episode_seed, instance_seed
from gymnasium import spaces


def actions(env: VectorEnv, steps: int, seed: int = 0) -> np.ndarray:
    """(steps, n, A) random action vectors."""
    rng = np.random.default_rng(seed)
    spec = env.action_spec
    parts = [np.eye(n, dtype=np.float32)[rng.integers(n, size=(steps, env.num_envs))] for n in spec.discrete]
    parts.append(rng.uniform(-1, 1, (steps, env.num_envs, spec.continuous)).astype(np.float32))
    return np.concatenate(parts, -1)


def roll(env: VectorEnv, plan: np.ndarray) -> list[dict]:
    return [env.step(action) for action in plan]


def assert_same(one: list[dict], two: list[dict]) -> None:
    for at, (a, b) in enumerate(zip(one, two, strict=True)):
        assert a.keys() == b.keys()
        for name in a:
            assert a[name].dtype == b[name].dtype, (at, name)
            assert np.array_equal(a[name], b[name]), (at, name)


def by_hand(task: str, n: int, seed: int, plan: np.ndarray, **options) -> list[dict]:
    """The step dictionaries of n separate environments, by the plainest loop."""
    envs = [make(task, **options) for _ in range(n)]
    for index, env in enumerate(envs):
        if env.has_wrapper_attr("reseed"):
            env.get_wrapper_attr("reseed")(instance_seed(seed, index))
    episode, ended, steps = [0] * n, [True] * n, []
    for given in [None, *plan]:
        rows = []
        for index, env in enumerate(envs):
            if ended[index]:
                observation, _ = env.reset(seed=episode_seed(seed, index, episode[index]))
                episode[index] += 1
                flags = {"reward": 0.0, "first": True, "last": False, "terminal": False}
                row = {"action": np.zeros(plan.shape[-1]), **flags, **observation}
            else:
                native = decode_action(env.action_space, given[index])
                observation, reward, terminated, truncated, _ = env.step(native)
                flags = {"reward": reward, "first": False, "last": terminated or truncated, "terminal": terminated}
                row = {"action": given[index], **flags, **observation}
            ended[index] = row["last"]
            rows.append(row)
        steps.append({name: np.stack([row[name] for row in rows]) for name in rows[0]})
    return steps


TASKS = [
    ("toy:catch", {"size": 16}),
    ("toy:cue_maze", {"length": 2, "gap": 2}),
    ("toy:doors", {"redraw": 3}),
    ("gym:CartPole-v1", {"max_episode_steps": 15}),
    ("gym:Pendulum-v1", {"repeat": 3, "max_episode_steps": 30}),
    ("gym:FrozenLake-v1", {}),
    ("gym:Blackjack-v1", {}),
]


@pytest.mark.parametrize(("task", "options"), TASKS, ids=[task for task, _ in TASKS])
def test_batch_equals_separate_environments(task, options) -> None:
    env = make_vec(task, 3, workers=0, **options)
    plan = actions(env, 60)
    found = [env.reset(seed=7), *roll(env, plan)]
    for one, two in zip(found, by_hand(task, 3, 7, plan, **options), strict=True):
        for name in two:
            np.testing.assert_array_equal(one[name], two[name].astype(one[name].dtype), err_msg=name)
    stacked = {name: np.stack([step[name] for step in found]) for name in found[0]}
    assert stacked["last"].any() and (stacked["last"] >= stacked["terminal"]).all()
    assert np.array_equal(stacked["first"][1:], stacked["last"][:-1])  # the record after an end is a reset
    first = stacked["first"]
    assert (stacked["reward"][first] == 0).all() and (stacked["action"][first] == 0).all()
    assert not (first & stacked["last"]).any()
    assert np.array_equal(stacked["action"][1:][~first[1:]], plan[~first[1:]])  # the action that led here


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("task", ["toy:doors", "gym:CartPole-v1"])
def test_the_two_halves_of_a_step_are_a_step(task, workers) -> None:
    with make_vec(task, 3, workers=workers) as env, make_vec(task, 3, workers=0) as control:
        plan, found = actions(env, 40), [env.reset(seed=3)]
        for action in plan:
            env.send(action)
            action[:] = np.nan  # what was sent is the environments'; the caller may use its array again
            found.append(env.receive())
    assert any(step["last"].any() for step in found)
    assert_same(found, [control.reset(seed=3), *roll(control, actions(control, 40))])


def test_between_the_halves_nothing_else_is_asked() -> None:
    with make_vec("gym:CartPole-v1", 2, workers=1) as env:
        with pytest.raises(RuntimeError, match="nothing was sent"):
            env.receive()
        with pytest.raises(RuntimeError, match="call reset"):
            env.send(np.eye(2))
        start = env.reset(seed=0)
        state = env.state()
        env.send(np.eye(2))
        for ask in (lambda: env.send(np.eye(2)), lambda: env.step(np.eye(2)), env.state, lambda: env.get("spec")):
            with pytest.raises(RuntimeError, match="call receive first"):
                ask()
        one = env.receive()
        env.load_state(state)
        env.send(np.eye(2)[::-1])
        env.load_state(state)  # what is out is dropped
        env.send(np.eye(2))
        assert_same([env.receive()], [one])
        env.send(np.eye(2))
        assert_same([env.reset(seed=0), env.step(np.eye(2))], [start, one])


def test_dtypes_and_shapes_are_those_of_the_step_dictionary() -> None:
    env = make_vec("toy:catch", 2)
    step = env.reset(seed=0)
    shapes = {name: (value.shape, str(value.dtype)) for name, value in step.items()}
    assert shapes == {
        "action": ((2, 3), "float32"),
        "reward": ((2,), "float32"),
        "first": ((2,), "bool"),
        "last": ((2,), "bool"),
        "terminal": ((2,), "bool"),
        "image": ((2, 64, 64, 3), "uint8"),
    }
    assert env.repeat == 1 and make_vec("gym:Pendulum-v1", 1, repeat=3).repeat == 3
    assert json.loads(json.dumps(env.protocol))["name"] == "catch"


def test_truncation_is_last_without_terminal() -> None:
    env = make_vec("gym:Pendulum-v1", 2, max_episode_steps=5, workers=0)
    steps = [env.reset(seed=0), *roll(env, actions(env, 12))]
    assert [bool(step["last"][0]) for step in steps] == [at in (5, 11) for at in range(13)]
    assert [bool(step["first"][0]) for step in steps] == [at in (0, 6, 12) for at in range(13)]
    assert not any(step["terminal"].any() for step in steps)


def test_seed_decides_everything_and_indices_differ() -> None:
    env = make_vec("toy:catch", 8, size=16)
    plan = actions(env, 40)
    one = [env.reset(seed=1), *roll(env, plan)]
    two = [env.reset(seed=1), *roll(env, plan)]
    other = [env.reset(seed=2), *roll(env, plan)]
    assert_same(one, two)
    assert any(not np.array_equal(a["image"], b["image"]) for a, b in zip(one, other, strict=True))
    assert len({image.tobytes() for image in one[0]["image"]}) > 3  # environments do not begin alike
    starts = {step["image"][0].tobytes() for step in one if step["first"][0]}
    assert len(starts) > 1  # nor do the episodes of one environment


def test_returned_steps_are_the_callers_to_keep_and_change() -> None:
    env = make_vec("toy:catch", 2, size=16)
    first = env.reset(seed=0)
    kept = {name: value.copy() for name, value in first.items()}
    for name, value in env.step(actions(env, 1)[0]).items():
        assert not np.shares_memory(value, first[name])
        value[:] = 1
    assert_same([first], [kept])
    assert not env.step(actions(env, 1)[0])["first"].any()  # the 1s written into `last` did not reach it


PLAIN = (np.ndarray, str, int, float, bool, type(None))


def assert_plain(value: object) -> None:
    if isinstance(value, dict):
        assert all(type(key) is str for key in value)
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            assert_plain(one)
    else:
        assert type(value) in PLAIN, type(value)
        assert not isinstance(value, int) or abs(value) < 2**63


SAVED = [
    ("toy:catch", {"size": 16}, 13, 0),
    ("toy:catch", {"size": 16}, 13, 2),
    ("toy:catch_distracted", {"size": 16}, 13, 2),
    ("toy:cue_maze", {"length": 2, "gap": 2}, 17, 2),
    ("toy:doors", {"redraw": 3}, 20, 0),
    ("toy:doors_image", {"redraw": 3}, 21, 2),
    ("gym:CartPole-v1", {}, 5, 0),
    ("gym:CartPole-v1", {}, 25, 2),
    ("gym:Pendulum-v1", {"max_episode_steps": 30}, 17, 0),
    ("atari100k_qbert", {}, 60, 0),
    ("atari100k_road_runner", {}, 90, 0),
    ("atari100k_breakout", {"protocol": "storm"}, 40, 1),
]


@pytest.mark.parametrize(("task", "options", "at", "workers"), SAVED, ids=[f"{s[0]}-{s[3]}" for s in SAVED])
def test_restored_run_equals_the_unbroken_one(tmp_path, task, options, at, workers) -> None:
    env = make_vec(task, 2, workers=workers, **options)
    plan = actions(env, at + 60)
    env.reset(seed=5)
    roll(env, plan[:at])
    state = env.state()
    assert_plain(state)
    untouched = pickle.dumps(state)
    expected = roll(env, plan[at:])
    assert pickle.dumps(state) == untouched  # a state does not move on with its environment
    env.load_state(state)  # the same one goes back
    assert_same(roll(env, plan[at:]), expected)
    env.close()
    file = tmp_path / "state"
    file.write_bytes(untouched)
    # another process goes on, where that has not been seen: the workers', or this one
    other = make_vec(task, 2, workers=int(not workers and task in ("toy:doors", "atari100k_qbert")), **options)
    other.load_state(pickle.loads(file.read_bytes()))
    assert_same(roll(other, plan[at:]), expected)
    assert other.take_faults() == []
    other.close()


def test_state_may_be_taken_right_after_reset_and_at_an_end() -> None:
    env = make_vec("toy:doors", 3, redraw=2)
    plan = actions(env, 30)
    env.reset(seed=0)
    for at in range(6):
        state = env.state()
        expected = roll(env, plan[at:])
        other = make_vec("toy:doors", 3, redraw=2)
        other.load_state(copy.deepcopy(state))
        assert_same(roll(other, plan[at:]), expected)
        env.load_state(state)
        env.step(plan[at])


def test_workers_give_the_same_records_as_this_process() -> None:
    here, there = (make_vec("toy:doors", 5, workers=workers, redraw=3) for workers in (0, 2))
    plan = actions(here, 30)
    assert_same([here.reset(seed=4), *roll(here, plan)], [there.reset(seed=4), *roll(there, plan)])
    assert all(np.array_equal(one, two) for one, two in zip(here.get("rule"), there.get("rule"), strict=True))
    assert here.pids() == [] and len(set(there.pids())) == 2
    there.close(), there.close()


def test_get_reads_attributes_and_gives_none_where_there_are_none() -> None:
    with make_vec("toy:doors", 2) as env:
        env.reset(seed=0)
        assert [rule.shape for rule in env.get("rule")] == [(32,), (32,)]
        assert env.get("no_such_thing") == [None, None]


def test_default_is_no_process_for_toys_and_single_environments() -> None:
    assert make_vec("toy:doors", 16).pids() == []
    assert make_vec("gym:CartPole-v1", 1).pids() == []


class Drifting(gymnasium.Env):
    """Every life of it goes another way: what it shows counts all resets there ever were."""

    observation_space = spaces.Box(0, 1e6, (1,), np.float32)
    action_space = spaces.Discrete(2)
    count = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        Drifting.count += 1
        return np.array([Drifting.count], np.float32), {}

    def step(self, action):
        return np.array([Drifting.count], np.float32), 1.0, False, False, {}


def test_environment_that_cannot_come_back_is_cut_short_and_said_so() -> None:
    env = make_vec(Drifting, 2, workers=0)
    plan = actions(env, 4)
    env.reset(seed=0)
    last = roll(env, plan[:2])[-1]
    env.load_state(env.state())
    faults = env.take_faults()
    assert len(faults) == 2 and "not deterministic" in faults[0] and "environment 0" in faults[0]
    cut = env.step(plan[2])
    assert cut["last"].all() and not cut["terminal"].any() and not cut["first"].any()
    assert (cut["reward"] == 0).all() and np.array_equal(cut["vector"], last["vector"])
    assert len(env.take_faults()) == 2 and env.take_faults() == []
    assert env.step(plan[3])["first"].all()


def test_wrong_calls_are_refused() -> None:
    env = make_vec("toy:doors", 2)
    with pytest.raises(RuntimeError, match="call reset"):
        env.step(np.zeros((2, 4)))
    with pytest.raises(RuntimeError, match="before reset"):
        env.state()
    with pytest.raises(TaskError, match="non-negative"):
        env.reset(seed=-1)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"shape \(2, 3\), not \(2, 4\)"):
        env.step(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="NaN"):
        env.step(np.full((2, 4), np.nan))
    with pytest.raises(TaskError, match="2 environments with"):
        make_vec("toy:doors", 3).load_state(env.state())
    with pytest.raises(TaskError, match="image"):
        make_vec("toy:doors_image", 2).load_state(env.state())
    with pytest.raises(TaskError, match="n >= 1"):
        make_vec("toy:doors", 0)


def test_episode_seeds_do_not_collide_along_any_axis() -> None:
    seeds = {episode_seed(run, env, episode) for run in range(10) for env in range(16) for episode in range(50)}
    assert len(seeds) > 8000 - 10  # 31 bits: about 0.015 collisions are expected
    assert min(seeds) >= 0 and max(seeds) < 2**31
    low = np.array(sorted(seeds)) % 64
    assert np.bincount(low, minlength=64).max() < 200  # 125 expected


class Scalar(gymnasium.Env):
    """Says three numbers and shows one."""

    observation_space, action_space = spaces.Box(-1, 1, (3,)), spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.float32(0.5), {}


def test_a_shape_that_numpy_would_stretch_is_told() -> None:
    with pytest.raises(TaskError, match=r"shows 'vector' of shape \(\), its observation space says \(3,\)"):
        make_vec(Scalar, 2, workers=0).reset(seed=0)
