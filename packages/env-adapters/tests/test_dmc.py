"""The Control suite against dm_control's own environments, and its snapshots."""

import numpy as np
import pytest
from dm_control import suite
from dm_control.rl.control import PhysicsError
from env_adapters import TaskError, check_env, make, make_vec
from env_adapters.dmc import SUITE, TASKS, Control
from gymnasium.utils import seeding


def by_hand(domain: str, task: str, seed: int, actions: list[np.ndarray], repeat: int) -> list[tuple]:
    """(observations, reward, last) of a reset and each action, from the package's environment."""
    env = suite.load(domain, task, task_kwargs={"random": int(seeding.np_random(seed)[0].integers(2**32))})
    records = [(env.reset().observation, 0.0, False)]
    for action in actions:
        reward = 0.0
        for _ in range(repeat):
            record = env.step(action)
            reward += record.reward
            if record.last():
                break
        records.append((record.observation, reward, record.last()))
        if record.last():
            break
    env.close()
    return records


def draws(env, count: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.uniform(-1, 1, env.action_space.shape).astype(np.float32) for _ in range(count)]


# a target drawn into the model; a force sensor; another integrator, gains drawn into the model; the whole 1,000 steps
@pytest.mark.parametrize(
    ("task", "count", "repeat"),
    [("finger_turn_hard", 40, 2), ("hopper_stand", 40, 3), ("point_mass_hard", 40, 1), ("cartpole_swingup", 510, 2)],
)
def test_records_equal_the_packages(task, count, repeat) -> None:
    env = Control(task, repeat=repeat)
    env.reset(seed=1)
    env.step(draws(env, 1)[0])  # an episode depends on none before it
    actions = draws(env, count)
    found = [(env.reset(seed=7)[0], 0.0, False)]
    while len(found) <= count and not found[-1][2]:
        observation, reward, terminated, truncated, _ = env.step(actions[len(found) - 1])
        assert not terminated
        found.append((observation, reward, truncated))
    expected = by_hand(*TASKS[task], 7, actions, repeat)
    assert len(found) == len(expected) == min(count, 1000 // repeat) + 1
    for (one, reward, last), (two, expected_reward, expected_last) in zip(found, expected, strict=True):
        assert reward == expected_reward and last == expected_last
        assert one.keys() == two.keys()
        assert all(np.array_equal(one[key], np.float32(two[key]).reshape(-1)) for key in one)


def test_the_list_of_tasks_is_the_packages() -> None:
    assert {(domain, task) for domain, tasks in SUITE.items() for task in tasks} == set(suite.ALL_TASKS)


@pytest.mark.parametrize("domain", SUITE)
def test_every_task_steps_and_comes_back_exactly(domain, request) -> None:
    if domain == "quadruped":
        request.getfixturevalue("drawing")
    for name in SUITE[domain]:
        env = make(f"dmc_{domain}_{name}")
        actions = draws(env, 6)
        env.reset(seed=3)
        for action in actions[:3]:
            env.step(action)
        state = env.snapshot()
        expected = [env.step(action) for action in actions[3:]]
        env.reset(seed=4)
        env.restore(state)
        for action, one in zip(actions[3:], expected, strict=True):
            two = env.step(action)
            assert one[1:4] == two[1:4] and all(np.array_equal(one[0][key], two[0][key]) for key in one[0]), name
        env.close()


def test_batches_continue_exactly_also_in_another_process() -> None:
    task = "dmc_reacher_hard"
    env, other = make_vec(task, 2, workers=0, limit=30), make_vec(task, 2, workers=1, limit=30)
    actions = np.random.default_rng(0).uniform(-1, 1, (40, 2, env.action_spec.size)).astype(np.float32)
    env.reset(seed=0)
    for action in actions[:20]:  # an episode has 15 steps: the second one is left in its middle
        env.step(action)
    state = env.state()
    other.load_state(state)
    ends = 0
    for action in actions[20:]:
        one, two = env.step(action), other.step(action)
        assert all(np.array_equal(one[name], two[name]) for name in one)
        assert not one["terminal"].any()
        ends += int(one["last"].sum())
    assert ends == 2
    env.close(), other.close()


def test_specification() -> None:
    assert check_env("dmc_quadruped_walk", steps=30, limit=40) == []
    assert check_env("dmc_lqr_lqr_2_1", steps=30, limit=40) == []


@pytest.mark.usefixtures("drawing")
def test_pixels_come_from_the_domains_camera() -> None:
    assert check_env("dmc_vision_cartpole_balance", steps=8, limit=10, size=16) == []
    for task, camera in (("reacher_easy", 0), ("quadruped_walk", 2)):
        env = make(f"dmc_vision_{task}")
        image = env.reset(seed=2)[0]["image"]
        theirs = suite.load(*TASKS[task], task_kwargs={"random": int(seeding.np_random(2)[0].integers(2**32))})
        theirs.reset()
        assert env.observation_space.spaces.keys() == {"image"} and image.shape == (64, 64, 3)
        assert np.array_equal(image, theirs.physics.render(64, 64, camera_id=camera))
        assert env.unwrapped.protocol["camera"] == camera and env.unwrapped.protocol["name"] == "dmc_vision"
        env.close(), theirs.close()


def test_protocol_names_what_was_changed() -> None:
    plain, changed = Control("walker_run"), Control("proprio_walker_run", repeat=1, limit=500)
    expected = {"name": "dmc_proprio", "repeat": 2, "limit": 1000, "task": "walker_run", "limit_is_terminal": False}
    assert expected.items() <= plain.protocol.items()
    assert changed.protocol["name"] == "dmc_proprio, changed: limit, repeat"
    assert (plain.repeat, changed.repeat) == (2, 1)
    assert Control("cup_catch").protocol["task"] == "ball_in_cup_catch"


def test_the_limit_cuts_the_last_action_short() -> None:
    env = Control("cartpole_balance", limit=5)
    env.reset(seed=0)
    records = [env.step(np.zeros(1, np.float32)) for _ in range(3)]
    assert [record[3] for record in records] == [False, False, True]
    assert 0 < records[2][1] <= 1 < records[1][1] <= 2  # one control step's reward, then two


def test_lqr_terminates_at_rest(monkeypatch) -> None:
    env = Control("lqr_lqr_2_1")
    env.reset(seed=0)
    monkeypatch.setattr(suite.lqr.LQRLevel, "get_termination", lambda self, physics: 0.0)
    assert env.step(np.zeros(1, np.float32))[2:4] == (True, False)


def test_a_diverging_simulation_is_a_truncation(monkeypatch) -> None:
    env = Control("pendulum_swingup")
    before = env.reset(seed=0)[0]

    def explode(self, _):
        raise PhysicsError("Physics state is invalid")

    with monkeypatch.context() as broken:
        broken.setattr(suite.pendulum.Physics, "step", explode)
        observation, reward, terminated, truncated, info = env.step(np.zeros(1, np.float32))
    assert (reward, terminated, truncated, info) == (0.0, False, True, {"diverged": True})
    assert all(np.array_equal(observation[key], before[key]) for key in before)
    env.reset(seed=0)
    assert not env.step(np.zeros(1, np.float32))[4]["diverged"]


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("dmc_cartpole_balanc", {}, "no task 'cartpole_balanc'; close: dmc_cartpole_balance"),
        ("dmc_zzz", {}, "domains: acrobot, "),
        ("dmc_walker_run", {"observe": "sound"}, "one of proprio, vision"),
        ("dmc_vision_walker_run", {"observe": "proprio"}, "observes vision"),
        ("dmc_walker_run", {"repeat": 0}, "repeat is 0"),
        ("dmc_walker_run", {"camera": 9}, "cameras 0 to 1, not 9"),
    ],
)
def test_mistakes_are_one_sentence(task, options, message) -> None:
    with pytest.raises(TaskError, match=message):
        make(task, **options)


def test_missing_extra_is_named(monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "dm_control.suite", None)
    with pytest.raises(TaskError, match=r"env-adapters\[dmc\]"):
        make("dmc_walker_run")
