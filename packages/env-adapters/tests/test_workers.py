"""Workers that die, hang or raise."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from env_adapters import make_vec


def accident_prone():
    """A class, made here so that it travels to the workers by value."""
    import gymnasium
    from gymnasium import spaces

    class AccidentProne(gymnasium.Env):
        """Counts its steps; action 1 kills its process, 2 hangs it, 3 raises, `deadly` resets die at once."""

        observation_space = spaces.Box(0, 1000, (1,), np.float32)
        action_space = spaces.Discrete(4)

        def __init__(self, deadly: str = ""):
            self.deadly = deadly

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            if self.deadly and not os.path.exists(self.deadly):
                open(self.deadly, "w").close()
                os._exit(3)
            self.count = 0
            return np.zeros(1, np.float32), {}

        def step(self, action):
            if action == 1:
                os._exit(7)
            if action == 2:
                time.sleep(60)
            if action == 3:
                raise ArithmeticError("the sum is wrong")
            self.count += 1
            return np.full(1, self.count, np.float32), 1.0, False, False, {}

    return AccidentProne


def act(*chosen: int) -> np.ndarray:
    return np.eye(4, dtype=np.float32)[list(chosen)]


def assert_cut(step, row: int, before, action) -> None:
    """The row repeats its last record as a truncation."""
    assert step["last"][row] and not step["terminal"][row] and not step["first"][row]
    assert step["reward"][row] == 0 and np.array_equal(step["action"][row], action[row])
    assert np.array_equal(step["vector"][row], before["vector"][row])


def test_killed_worker_is_replaced_and_its_episodes_become_truncations() -> None:
    env, control = (make_vec("gym:CartPole-v1", 4, workers=workers) for workers in (2, 0))
    plan = np.eye(2, dtype=np.float32)[np.random.default_rng(0).integers(2, size=(40, 4))]
    env.reset(seed=0), control.reset(seed=0)
    for action in plan[:5]:
        before, _ = env.step(action), control.step(action)
    assert not before["last"].any()
    os.kill(env.pids()[1], signal.SIGKILL)
    step, other = env.step(plan[5]), control.step(plan[5])
    for row in (2, 3):
        assert_cut(step, row, before, plan[5])
    for name in step:
        assert np.array_equal(step[name][:2], other[name][:2])  # the other worker's went on
    faults = env.take_faults()
    assert faults[0] == "worker 1 (environments 2 to 3) died (exit code -9) and was replaced"
    assert faults[1:] == [f"the episode of environment {row} was cut short as a truncation" for row in (2, 3)]
    assert env.take_faults() == []
    step = env.step(plan[6])
    assert step["first"].tolist() == [False, False, True, True]
    state = env.state()
    rest = [env.step(action) for action in plan[7:]]
    assert sum(one["last"].any() for one in rest) > 0
    env.load_state(state)
    again = [env.step(action) for action in plan[7:]]
    assert all(np.array_equal(one[name], two[name]) for one, two in zip(rest, again, strict=True) for name in one)
    env.close()


def test_worker_that_dies_or_hangs_in_a_step_is_replaced() -> None:
    env = make_vec(accident_prone(), 2, workers=2, timeout=3)
    env.reset(seed=0)
    before = env.step(act(0, 0))
    step = env.step(act(1, 0))
    assert_cut(step, 0, before, act(1, 0))
    assert step["vector"][1] == 2
    assert env.take_faults()[0] == "worker 0 (environment 0) died (exit code 7) and was replaced"
    before = env.step(act(0, 0))
    assert before["first"].tolist() == [True, False] and before["vector"].tolist() == [[0], [3]]
    start, hung = time.monotonic(), env.pids()[1]
    step = env.step(act(0, 2))
    assert time.monotonic() - start < 30
    with pytest.raises(ProcessLookupError):
        os.kill(hung, 0)
    assert_cut(step, 1, before, act(0, 2))
    assert step["vector"][0] == 1
    assert env.take_faults()[0] == "worker 1 (environment 1) gave no answer within its timeout of 3 s and was replaced"
    assert env.step(act(0, 0))["first"].tolist() == [False, True]
    env.close()


def patient(path: str):
    """An environment whose step waits for a file, and says that it has begun."""
    import gymnasium
    from gymnasium import spaces

    class Patient(gymnasium.Env):
        observation_space, action_space = spaces.Box(0, 1, (1,), np.float32), spaces.Discrete(4)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return np.zeros(1, np.float32), {}

        def step(self, action):
            open(f"{path}.begun", "w").close()
            end = time.monotonic() + 30
            while not os.path.exists(path) and time.monotonic() < end:
                time.sleep(0.01)
            return np.full(1, os.path.exists(path), np.float32), 0.0, False, False, {}

    return Patient


def begun(path: str) -> None:
    end = time.monotonic() + 30
    while not os.path.exists(f"{path}.begun"):
        assert time.monotonic() < end, "nobody works between send and receive"
        time.sleep(0.01)


def test_workers_play_while_the_caller_does_something_else(tmp_path) -> None:
    path = str(tmp_path / "now")
    with make_vec(patient(path), 1, workers=1) as env:
        env.reset(seed=0)
        env.send(act(0))
        begun(path)
        open(path, "w").close()
        assert env.receive()["vector"] == 1


def test_worker_that_dies_between_the_halves_of_a_step_is_replaced(tmp_path) -> None:
    path = str(tmp_path / "now")
    with make_vec(patient(path), 2, workers=2) as env:
        before = env.reset(seed=0)
        env.send(act(0, 0))
        begun(path)
        os.kill(env.pids()[0], signal.SIGKILL)
        open(path, "w").close()
        step = env.receive()
        assert_cut(step, 0, before, act(0, 0))
        assert step["vector"][1] == 1
        assert env.take_faults()[0] == "worker 0 (environment 0) died (exit code -9) and was replaced"
        assert env.step(act(0, 0))["first"].tolist() == [True, False]


def test_closing_while_workers_are_at_work_is_quiet(tmp_path) -> None:
    """As when an update fails, or a second Ctrl-C comes, while the environments step."""
    path = str(tmp_path / "now")
    script = tmp_path / "script.py"
    script.write_text(
        f"import sys\nsys.path.insert(0, {os.path.dirname(__file__)!r})\nfrom test_workers import act, begun, patient\n"
        f"from env_adapters import make_vec\n\nif __name__ == '__main__':\n    env = make_vec(patient({path!r}), 1, workers=1)\n"
        f"    env.reset(seed=0)\n    env.send(act(0))\n    begun({path!r})\n    pid = env.pids()[0]\n"
        f"    env._crew._ends[0].close()\n    open({path!r}, 'w').close()\n    env.close()\n    print(pid)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)


def test_worker_that_dies_in_a_reset_resets_again(tmp_path) -> None:
    env = make_vec(accident_prone(), 1, workers=1, deadly=str(tmp_path / "once"))
    step = env.reset(seed=0)
    assert step["first"].all() and not step["last"].any()
    assert env.take_faults() == ["worker 0 (environment 0) died (exit code 3) and was replaced"]
    assert env.step(act(0))["vector"] == 1
    env.close()


def test_worker_lost_while_nobody_steps_is_noticed_by_state_and_load_state() -> None:
    env = make_vec(accident_prone(), 2, workers=2)
    env.reset(seed=0)
    before = env.step(act(0, 0))
    os.kill(env.pids()[0], signal.SIGKILL)
    state = env.state()
    assert state["envs"][0] is None and state["lost"].tolist() == [True, False]
    assert len(env.take_faults()) == 1
    step = env.step(act(0, 0))
    assert_cut(step, 0, before, act(0, 0))
    os.kill(env.pids()[1], signal.SIGKILL)
    env.load_state(state)
    step = env.step(act(0, 0))
    assert_cut(step, 0, before, act(0, 0))
    assert_cut(step, 1, before, act(0, 0))
    assert env.step(act(0, 0))["first"].all()
    env.close()


def test_lost_doors_begin_a_new_instance() -> None:
    env = make_vec("toy:doors", 2, workers=2, redraw=0)
    env.reset(seed=0)
    rules = env.get("rule")
    os.kill(env.pids()[0], signal.SIGINT)  # Ctrl-C reaches the whole group; the parent decides
    time.sleep(0.2)
    env.step(act(0, 0))
    assert env.take_faults() == []
    os.kill(env.pids()[0], signal.SIGKILL)
    env.step(act(0, 0))
    assert not np.array_equal(env.get("rule")[0], rules[0]) and np.array_equal(env.get("rule")[1], rules[1])
    env.close()


def test_closing_ends_every_process() -> None:
    env = make_vec("toy:doors", 2, workers=2)
    env.reset(seed=0)
    pids = env.pids()
    env.close()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_script_without_main_guard_is_told_what_to_do(tmp_path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import env_adapters\nenv_adapters.make_vec('toy:doors', 2, workers=1)\n")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "if __name__ == '__main__'" in done.stderr.splitlines()[-1]


def apart():
    """An environment that shows the process it lives in, and what that began with."""
    import gymnasium
    from env_adapters import TaskError
    from gymnasium import spaces

    class Apart(gymnasium.Env):
        env_adapters = True
        apart = {"BEGUN_WITH": "5"}  # noqa: RUF012
        observation_space, action_space = spaces.Box(0, 1e9, (2,), np.float64), spaces.Discrete(4)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            if "BEGUN_WITH" not in os.environ:
                raise TaskError("not here")
            return np.array([os.getpid(), float(os.environ["BEGUN_WITH"])]), {}

        def step(self, action):
            if action == 1:
                os._exit(7)
            return self.reset()[0], 0.0, False, False, {}

    return Apart


@pytest.mark.parametrize(("n", "workers", "processes"), [(1, None, 1), (1, 0, 1), (2, 0, 1), (2, 2, 2)])
def test_environments_that_live_apart_have_workers_that_begin_with_their_variables(n, workers, processes) -> None:
    with make_vec(apart(), n, workers=workers) as env:
        step = env.reset(seed=0)
        assert len(env.pids()) == processes and set(step["vector"][:, 0].tolist()) == set(map(float, env.pids()))
        assert (step["vector"][:, 1] == 5).all() and "BEGUN_WITH" not in os.environ
        if (n, workers) == (1, None):
            env.step(act(1))
            assert (env.step(act(0))["vector"][:, 1] == 5).all() and "BEGUN_WITH" not in os.environ  # the next one, too


def test_a_variable_that_is_there_stays_as_it_was(monkeypatch) -> None:
    monkeypatch.setenv("BEGUN_WITH", "3")
    with make_vec(apart(), 1) as env:
        assert env.reset(seed=0)["vector"][0, 1] == 5 and os.environ["BEGUN_WITH"] == "3"
