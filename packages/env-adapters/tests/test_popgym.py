"""All of POPGym's environments, and what their ends mean."""

import gymnasium
import numpy as np
import popgym
import pytest
from env_adapters import TaskError, check_env, make, make_vec
from env_adapters.popgym import ENVIRONMENTS, TASKS

# the games whose episodes a clock may end; the others end with their deck
TIMED = {"Battleship", "Concentration", "MineSweeper", "MultiarmedBandit"} | {
    name for name in ENVIRONMENTS if "Cart" in name or "Pendulum" in name
}


def test_the_list_of_tasks_is_the_packages() -> None:
    assert popgym
    assert {id for id in gymnasium.registry if id.startswith("popgym-")} == {f"popgym-{name}-v0" for name in TASKS}
    assert len(TASKS) == 42


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_every_environment_passes_and_only_clocks_truncate(name) -> None:
    ends = set()
    for level in ("Easy", "Medium", "Hard"):
        assert all("no episode ended" in one for one in check_env(f"popgym_{name}{level}", steps=40))
        env = make(f"popgym_{name}{level}")
        for seed in range(8 if level == "Easy" else 1):
            env.reset(seed=seed)
            env.action_space.seed(seed)
            ended = False
            while not ended:
                _, _, terminated, truncated, _ = env.step(env.action_space.sample())
                ended = terminated or truncated
            ends.add("terminal" if terminated else "truncation")
    assert ("truncation" in ends) <= (name in TIMED)
    assert ("terminal" in ends) or name in TIMED


def test_repeat_previous_is_solved_by_remembering() -> None:
    env = make("popgym_RepeatPreviousEasy")
    for seed in range(3):
        seen, total, ended = [env.reset(seed=seed)[0]["vector"]], 0.0, False
        while not ended:
            action = seen[-4] if len(seen) >= 4 else 0
            observation, reward, ended, _, _ = env.step(int(action))
            seen.append(observation["vector"])
            total += reward
        assert total == pytest.approx(1.0)


def test_batches_continue_exactly() -> None:
    env = make_vec("popgym_AutoencodeEasy", 3)
    rng = np.random.default_rng(0)
    actions = np.eye(4, dtype=np.float32)[rng.integers(4, size=(140, 3))]
    step = env.reset(seed=0)
    assert step["0"].dtype.kind == "i" and step["1"].shape == (3,)
    for action in actions[:120]:  # an episode has 103 steps
        env.step(action)
    state = env.state()
    one = [env.step(action) for action in actions[120:]]
    env.load_state(state)
    two = [env.step(action) for action in actions[120:]]
    assert all(np.array_equal(a[key], b[key]) for a, b in zip(one, two, strict=True) for key in a)
    assert env.take_faults() == []


def test_mistakes_are_one_sentence(monkeypatch) -> None:
    with pytest.raises(TaskError, match="no environment 'RepeatPrevious'; close: popgym_RepeatPrevious"):
        make("popgym_RepeatPrevious")
    monkeypatch.setitem(__import__("sys").modules, "popgym", None)
    with pytest.raises(TaskError, match=r"env-adapters\[popgym\]"):
        make("popgym_RepeatFirstEasy")
