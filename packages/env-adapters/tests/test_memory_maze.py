"""Memory Maze against the package's own environment, and its snapshots. A maze takes seconds and 0.9 GB: one test each."""

import importlib
import sys

import numpy as np
import pytest
from env_adapters import TaskError, make, memory_maze
from gymnasium.utils import seeding

TOUCHES = tuple(range(12, 39, 2))


def touch(physics, task) -> None:
    """Set the ball down on the target it is sent to: the next step earns a reward and draws a next target."""
    place = physics.bind(vars(task)["_targets"][vars(task)["_current_target_ix"]].geom).xpos
    vars(task)["_walker"].shift_pose(physics, [place[0], place[1], 0.0])


def check_told(told, image, expected, theirs) -> None:
    """What is told against the package's own state, and against the border's colour."""
    task = vars(theirs.task)
    assert {name: value.shape for name, value in told.items()} == {
        "agent": (2,), "heading": (2,), "targets": (6,), "colour": (3,)
    }  # fmt: skip
    colours = np.array(task["_target_colors"][:3]) * 255
    assert told["colour"].argmax() == np.abs(colours - image[0, 0]).sum(-1).argmin() == task["_current_target_ix"]
    assert told["colour"].sum() == 1
    observed = theirs.physics.bind(task["_walker"].root_body)
    assert np.allclose(told["agent"] * 2, observed.xpos[:2], atol=1e-5)
    ahead = np.array(observed.xmat).reshape(3, 3)[:2, 1]  # the walker's own frame looks along y
    assert np.allclose(told["heading"], ahead / np.linalg.norm(ahead), atol=0.05)
    assert np.array_equal(image, expected)


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
    inner = vars(env.unwrapped)
    records, states, told = [], {}, [env.unwrapped.told]
    for at, action in enumerate(actions):
        if at in (19, 27):
            states[at] = env.snapshot()
        if at in TOUCHES:
            touch(inner["_env"].physics, inner["_task"])
            touch(theirs.physics, theirs.task)
        records.append(env.step(action))
        expected = theirs.step(action)
        assert np.array_equal(expected.observation, records[-1][0]["image"]), at
        assert expected.reward == records[-1][1], at
        told.append(env.unwrapped.told)  # and nothing moves by it
        check_told(told[-1], records[-1][0]["image"], expected.observation, theirs)
    assert [at for at, record in enumerate(records) if record[1]] == list(TOUCHES)
    for at in TOUCHES:  # the agent lay upon the target that was looked for before the step, and a next one is drawn
        sought = told[at]["targets"].reshape(3, 2)[told[at]["colour"].argmax()]
        assert np.linalg.norm(told[at + 1]["agent"] - sought) < 0.3
    assert {int(one["colour"].argmax()) for one in told} == {0, 1, 2}
    assert [record[3] for record in records] == [False] * 39 + [True]
    theirs.close()
    for start, stop in ((19, 23), (27, 40)):
        env.restore(states[start])
        for at in range(start, stop):
            if at in TOUCHES:
                touch(inner["_env"].physics, inner["_task"])
            found = env.step(actions[at])
            assert found[1:4] == records[at][1:4] and np.array_equal(found[0]["image"], records[at][0]["image"]), at
            assert all(np.array_equal(value, told[at + 1][name]) for name, value in env.unwrapped.told.items())
    env.close()


def test_sizes_and_limits_are_checked_before_anything_is_built() -> None:
    with pytest.raises(TaskError, match="no size '10x10'; it has 9x9, 11x11, 13x13, 15x15"):
        make("memory_maze_10x10")
    with pytest.raises(TaskError, match="limit is 1001; it is 1 to 1000"):
        make("memory_maze_9x9", limit=1001)


def test_missing_extra_is_named(monkeypatch) -> None:
    monkeypatch.setattr(memory_maze.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(TaskError, match=r"env-adapters\[memory-maze\]"):
        make("memory_maze_9x9")
