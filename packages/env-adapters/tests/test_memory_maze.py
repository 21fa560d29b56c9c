"""Memory Maze against the package's own environment, and its snapshots. A maze takes seconds and 0.9 GB: one test each."""

import importlib
import sys

import numpy as np
import pytest
from env_adapters import TaskError, make, memory_maze
from gymnasium.utils import seeding


def same(one: tuple, two: tuple) -> bool:
    return one[1:4] == two[1:4] and np.array_equal(one[0]["image"], two[0]["image"])


@pytest.mark.usefixtures("drawing")
def test_an_episode_equals_the_packages_first_and_comes_back_exactly() -> None:
    env = make("memory_maze_9x9", limit=40)
    assert "memory_maze" not in sys.modules and "gym" not in sys.modules
    assert env.action_space.n == 6 and env.unwrapped.protocol["name"] == "memory_maze, changed: limit"
    env.reset(seed=1)
    env.step(1)  # an episode depends on none before it
    image = env.reset(seed=7)[0]["image"]
    theirs = importlib.import_module("memory_maze.tasks").memory_maze_9x9(
        image_only_obs=True, seed=int(seeding.np_random(7)[0].integers(2**32))
    )
    assert np.array_equal(theirs.reset().observation, image)
    actions = np.random.default_rng(0).choice(6, 40, p=[0.05, 0.45, 0.1, 0.1, 0.15, 0.15]).tolist()
    records, states = [], {}
    for at, action in enumerate(actions):
        if at in (0, 20):
            states[at] = env.snapshot()
        if at == 25:  # set the ball down where it is sent: a reward, and the next target
            wanted = vars(env.unwrapped)["_task"]
            for physics, task in ((vars(env.unwrapped)["_env"].physics, wanted), (theirs.physics, theirs.task)):
                target = vars(task)["_targets"][vars(task)["_current_target_ix"]]
                walker = vars(task)["_walker"]
                ball = physics.bind(walker.root_body).xpos
                walker.shift_pose(physics, physics.bind(target.geom).xpos - ball)
            states[at] = env.snapshot()
        records.append(env.step(action))
        mine = theirs.step(action)
        assert np.array_equal(mine.observation, records[-1][0]["image"]) and mine.reward == records[-1][1], at
    assert sum(record[1] for record in records) >= 1
    assert [record[3] for record in records] == [False] * 39 + [True]
    theirs.close()
    states[30] = None
    for at, state in states.items():
        if state is None:
            continue
        env.restore(state)
        stop = {0: 5, 20: 25, 25: 40}[at]
        for action, record in zip(actions[at:stop], records[at:stop], strict=True):
            assert same(env.step(action), record), at
    env.close()


def test_sizes_and_limits_are_checked_before_anything_is_built() -> None:
    with pytest.raises(TaskError, match="no size '10x10'; it has 9x9, 11x11, 13x13, 15x15"):
        make("memory_maze_10x10")
    with pytest.raises(TaskError, match="limit is 1001; it is 1 to 1000"):
        make("memory_maze_9x9", limit=1001)


@pytest.mark.usefixtures("drawing")
def test_missing_extra_is_named(monkeypatch) -> None:
    monkeypatch.setattr(memory_maze.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(TaskError, match=r"env-adapters\[memory-maze\]"):
        make("memory_maze_9x9")
