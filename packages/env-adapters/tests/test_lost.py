"""Environments that raise: one row is cut, the others go on, and what cannot be helped is told with a state to save."""

import os
import pathlib
import pickle
import signal
from typing import ClassVar

import gymnasium
import numpy as np
import pytest
from env_adapters import TaskError, VectorEnv, check_env, make_vec
from env_adapters.errors import Diverged
from env_adapters.kept import LOST
from env_adapters.wrappers import Reexecuted
from gymnasium import spaces


def fragile():
    """A class, made here so that it travels to the workers by value."""
    import os
    import sys

    import gymnasium
    from env_adapters import TaskError
    from gymnasium import spaces

    class Fragile(gymnasium.Env):
        """Counts its steps. Action 1 raises, 2 leaves by sys.exit, 3 breaks its word; what `folder` holds raises, too."""

        observation_space, action_space = spaces.Box(0, 1000, (1,), np.float32), spaces.Discrete(4)

        def __init__(self, folder: str):
            self.folder, self.open = folder, True
            self.trouble("make")
            self.mark("made")

        def trouble(self, when):
            if os.path.exists(f"{self.folder}/{when}"):
                raise ConnectionError(f"nobody listens\nto {when}")

        def mark(self, what):
            with open(f"{self.folder}/log", "a") as file:
                file.write(f"{what}\n")

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.trouble("reset")
            self.count = int(self.np_random.integers(100))
            return np.full(1, self.count, np.float32), {}

        def step(self, action):
            self.trouble("step")
            if action == 1:
                raise ArithmeticError("the sum is wrong")
            if action == 2:
                sys.exit(5)
            if action == 3:
                raise TaskError("the observation is no number: return one")
            self.count += 1
            return np.full(1, self.count, np.float32), 1.0, False, False, {}

        def close(self):
            assert self.open
            self.open = False
            self.mark("closed")
            self.trouble("close")

    return Fragile


def act(*chosen: int) -> np.ndarray:
    return np.eye(4, dtype=np.float32)[list(chosen)]


def marks(folder: pathlib.Path) -> list[str]:
    return (folder / "log").read_text().split()


def vector(folder: pathlib.Path, n: int, workers: int, **options) -> VectorEnv:
    return make_vec(fragile(), n, workers=workers, folder=str(folder), **options)


@pytest.fixture(autouse=True)
def hasty(monkeypatch) -> list[float]:
    """Nobody waits between tries; what would have been waited."""
    waited: list[float] = []
    monkeypatch.setattr("env_adapters.attempts.time.sleep", waited.append)
    return waited


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(("action", "name"), [(1, "ArithmeticError: the sum is wrong"), (2, "SystemExit: 5")])
def test_an_environment_that_raises_is_cut_and_made_anew_and_no_other(tmp_path, workers, action, name) -> None:
    with vector(tmp_path, 3, workers) as env, vector(tmp_path, 3, 0) as control:
        env.reset(seed=0), control.reset(seed=0)
        before = env.step(act(0, 0, 0))
        control.step(act(0, 0, 0))
        mine = len(marks(tmp_path))
        step, other = env.step(act(0, action, 0)), control.step(act(0, 0, 0))
        assert step["last"].tolist() == [False, True, False] and not step["terminal"].any() and not step["first"].any()
        assert step["reward"].tolist() == [1, 0, 1] and step["action"].tolist() == act(0, action, 0).tolist()
        assert step["vector"][1] == before["vector"][1]
        for name_ in step:
            assert np.array_equal(step[name_][[0, 2]], other[name_][[0, 2]])
        assert marks(tmp_path)[mine:] == ["closed", "made"]  # what the old one held is free before the next is made
        told, cut = env.take_faults()
        assert told.startswith(f"environment 1 raised {name} (test_lost.py:") and told.endswith("and is made anew")
        assert "step)" in told and cut == "the episode of environment 1 was cut short as a truncation"
        step, other = env.step(act(0, 0, 0)), control.step(act(0, 0, 0))
        assert step["first"].tolist() == [False, True, False] and env.failure == ""
        assert np.array_equal(step["vector"][[0, 2]], other["vector"][[0, 2]])
        assert env.step(act(0, 0, 0))["vector"][1] == step["vector"][1] + 1


@pytest.mark.parametrize("workers", [0, 1])
def test_records_with_faults_are_the_same_with_and_without_workers_and_after_a_resume(tmp_path, workers) -> None:
    plan = [act(*row) for row in np.random.default_rng(3).choice(2, p=(0.9, 0.1), size=(40, 2))]
    with vector(tmp_path, 2, 0) as control, vector(tmp_path, 2, workers) as env, vector(tmp_path, 2, workers) as other:
        expected = [control.reset(seed=1), *(control.step(action) for action in plan)]
        assert sum(int(step["last"].sum()) for step in expected) > 4
        found = [env.reset(seed=1), *(env.step(action) for action in plan[:20])]
        other.load_state(pickle.loads(pickle.dumps(env.state())))
        found += [other.step(action) for action in plan[20:]]
    for one, two in zip(expected, found, strict=True):
        assert all(np.array_equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_state_tells_whose_episode_was_cut_with_its_records(tmp_path, workers) -> None:
    """Whoever counts episodes may not have come to it before the state was saved; of a reset that never came, too."""
    with vector(tmp_path, 2, workers, attempts=3) as env, vector(tmp_path, 2, workers) as other:
        env.reset(seed=1)
        env.step(act(1, 0))
        other.load_state(pickle.loads(pickle.dumps(env.state())))
        assert other.cut.tolist() == env.cut.tolist() == [True, False]
        (tmp_path / "reset").touch()
        env.step(act(0, 1))
        assert env.failure and env.cut.tolist() == [False, True]
        (tmp_path / "reset").unlink()
        step = other.load_state(pickle.loads(pickle.dumps(env.state())))
        assert step is not None and step["first"].tolist() == [True, False] and other.cut.tolist() == [False, True]
        other.step(act(0, 0))
        assert not other.cut.any()


@pytest.mark.parametrize("workers", [0, 1])
def test_too_many_in_a_row_are_a_failure_after_which_the_state_can_be_saved(tmp_path, workers, hasty) -> None:
    with vector(tmp_path, 2, workers, attempts=4) as env:
        env.reset(seed=0)
        for _ in range(3):
            step = env.step(act(0, 1))
            assert step["last"].tolist() == [False, True] and env.failure == ""
            assert env.step(act(0, 0))["first"].tolist() == [False, True]
        step = env.step(act(0, 1))
        assert step["last"].tolist() == [False, True] and step["vector"][0] == env.state()["step"]["vector"][0]
        assert "environment 1 failed 4 times without a step between (attempts), at last: Arithmetic" in env.failure
        with pytest.raises(TaskError, match="4 times without a step"):
            env.step(act(0, 0))
        state = pickle.loads(pickle.dumps(env.state()))
        assert env.state()["envs"][1] is None
    assert hasty == [0.5, 1.0]  # before the third and the fourth instance
    with vector(tmp_path, 2, workers) as env:
        assert env.load_state(state) is None  # the record that was saved is the one to go on from
        after = env.step(act(0, 0))
        assert after["first"].tolist() == [False, True] and after["vector"][0] == step["vector"][0] + 1


def test_a_step_between_forgives_what_was_before(tmp_path) -> None:
    with vector(tmp_path, 1, 0, attempts=2) as env:
        env.reset(seed=0)
        for _ in range(5):
            env.step(act(1)), env.step(act(0)), env.step(act(0))
        assert env.failure == "" and len(env.take_faults()) == 10


@pytest.mark.parametrize("workers", [0, 1])
def test_a_reset_that_fails_for_good_happens_where_the_state_is_loaded(tmp_path, workers) -> None:
    with vector(tmp_path, 2, workers, attempts=3) as env:
        env.reset(seed=0)
        env.step(act(0, 1))
        (tmp_path / "reset").touch()
        step = env.step(act(0, 0))
        assert (
            "environment 1 failed 3 times" in env.failure and "ConnectionError: nobody listens to reset" in env.failure
        )
        assert step["first"].tolist() == [False, True] and not step["last"].any() and step["reward"].tolist() == [1, 0]
        state = pickle.loads(pickle.dumps(env.state()))
    with vector(tmp_path, 2, 0, attempts=2) as env, pytest.raises(TaskError, match="nobody listens"):
        env.load_state(state)  # nothing is mended yet
    (tmp_path / "reset").unlink()
    with vector(tmp_path, 2, workers) as env:
        record = env.load_state(state)
        assert record is not None and record["first"].tolist() == [False, True]
        assert record["vector"][0] == step["vector"][0]
        after = env.step(act(0, 0))
        assert after["vector"].ravel().tolist() == (record["vector"].ravel() + 1).tolist()


@pytest.mark.parametrize("workers", [0, 1])
def test_an_environment_that_cannot_be_made_again_is_a_failure_too(tmp_path, workers) -> None:
    with vector(tmp_path, 1, workers, attempts=3) as env:
        env.reset(seed=0)
        (tmp_path / "make").touch()
        assert env.step(act(1))["last"].all()
        assert "environment 0 failed 3 times" in env.failure and "nobody listens to make" in env.failure
        assert "environment 0 raised ConnectionError: nobody listens to make" in " ".join(env.take_faults())
        state = env.state()
    (tmp_path / "make").unlink()
    with vector(tmp_path, 1, workers) as env:
        assert env.load_state(state) is None and env.step(act(0))["first"].all()


def test_a_broken_word_stops_at_once(tmp_path) -> None:
    with vector(tmp_path, 2, 0) as env:
        env.reset(seed=0)
        step = env.step(act(0, 3))
        assert env.failure == "the observation is no number: return one"
        assert step["last"].tolist() == [False, True] and step["reward"].tolist() == [1, 0]
        state = env.state()
        with pytest.raises(TaskError, match="no number"):
            env.send(act(0, 0))
        env.load_state(state)  # and goes on
        assert env.step(act(0, 0))["first"].tolist() == [False, True]


def test_what_cannot_be_made_or_begun_is_one_sentence(tmp_path) -> None:
    (tmp_path / "reset").touch()
    with vector(tmp_path, 1, 0) as env, pytest.raises(TaskError, match=r"failed 5 times.*nobody listens to reset"):
        env.reset(seed=0)
    (tmp_path / "make").touch()
    with pytest.raises(TaskError, match=r"could not be made: ConnectionError: nobody listens to make \(test_lost.py"):
        vector(tmp_path, 1, 0)


class Unreadable:
    """A factory that travels badly."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder

    def __call__(self):
        return fragile()(str(self.folder))

    def __reduce__(self):
        return int, ("no number",)


def test_what_only_a_worker_cannot_make_is_one_sentence(tmp_path) -> None:
    with pytest.raises(
        TaskError, match=r"worker 0 \(environment 0\) could not be started: ValueError: invalid literal"
    ):
        make_vec(Unreadable(tmp_path), 1, workers=1)


@pytest.mark.parametrize("workers", [0, 1])
def test_closing_never_raises(tmp_path, workers, recwarn) -> None:
    env = vector(tmp_path, 2, workers)
    env.reset(seed=0)
    (tmp_path / "close").touch()
    env.close()
    env.close()
    said = [str(one.message) for one in recwarn]
    assert bool(said) == (not workers)  # a worker says it for itself
    assert all("could not be closed: ConnectionError: nobody listens to close" in one for one in said)
    assert marks(tmp_path)[-2:] == ["closed", "closed"]


def test_a_worker_that_dies_again_and_again_is_a_failure(tmp_path) -> None:
    with vector(tmp_path, 2, 1, attempts=2) as env:
        env.reset(seed=0)
        env.step(act(0, 0))
        os.kill(env.pids()[0], signal.SIGKILL)
        assert env.step(act(0, 0))["last"].all() and env.failure == ""
        os.kill(env.pids()[0], signal.SIGKILL)  # in a reset
        assert env.step(act(0, 0))["first"].all()
        assert "2 times without a step between (attempts), at last: its worker died (exit code -9)" in env.failure
        state = env.state()
    with vector(tmp_path, 2, 0) as env:
        record = env.load_state(state)
        assert record is not None and record["first"].all()
        assert (env.step(act(0, 0))["vector"] == record["vector"] + 1).all()


def test_signals_to_the_whole_group_are_the_parents_to_hear(tmp_path, monkeypatch) -> None:
    """While a worker starts, when its first lines run with the signals held back, and while it waits."""
    import multiprocessing.process

    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2]
    real = multiprocessing.process.BaseProcess.start

    def start(self) -> None:
        real(self)
        for number in numbers:
            os.kill(self.pid, number)

    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", start)
    with vector(tmp_path, 1, 1) as env:
        pids = env.pids()
        assert env.reset(seed=0)["first"].all()
        for number in numbers:
            os.kill(pids[0], number)
            assert env.step(act(0))["reward"].all()
        assert env.pids() == pids and env.take_faults() == []


def test_what_the_user_says_cannot_be_put_back_is_cut(tmp_path) -> None:
    with vector(tmp_path, 2, 0, restore=False) as env:
        env.reset(seed=0)
        before = env.step(act(0, 1))  # the second has just ended and has nothing to lose
        env.take_faults()
        state = pickle.loads(pickle.dumps(env.state()))
        assert all(list(one) == [LOST] for one in state["envs"])
        assert env.step(act(0, 0))["vector"][0] == before["vector"][0] + 1  # the running one goes on
    for restore in (True, False):
        with vector(tmp_path, 2, 0, restore=restore) as env:
            env.load_state(state)
            (told,) = env.take_faults()
            assert told.startswith("environment 0 could not be restored: the run was told so (restore)")
            step = env.step(act(0, 0))
            assert step["last"].tolist() == [True, False] and step["first"].tolist() == [False, True]
            assert step["vector"][0] == before["vector"][0] and not step["terminal"].any()
            assert env.step(act(0, 0))["first"].tolist() == [True, False]


def test_a_state_with_snapshots_is_not_put_back_by_who_is_told_so(tmp_path) -> None:
    with vector(tmp_path, 1, 0) as env:
        env.reset(seed=0), env.step(act(0))
        state = env.state()
    with vector(tmp_path, 1, 0, restore=False) as env:
        env.load_state(state)
        assert env.step(act(0))["last"].all() and "(restore)" in env.take_faults()[0]


def test_a_restore_that_raises_cuts_the_episode_and_not_the_run(tmp_path) -> None:
    with vector(tmp_path, 1, 0) as env:
        env.reset(seed=0), env.step(act(0))
        state = env.state()
    with vector(tmp_path, 1, 0) as env:
        (tmp_path / "step").touch()
        env.load_state(state)
        (tmp_path / "step").unlink()
        assert "raised ConnectionError: nobody listens to step" in env.take_faults()[0]
        assert env.step(act(0))["last"].all() and env.step(act(0))["first"].all()


class Server(gymnasium.Env):
    """What it does cannot be done again; counts every step of its life."""

    metadata: ClassVar[dict] = {"render_modes": [], "restorable": False}
    observation_space, action_space = spaces.Box(0, 1e6, (1,), np.float32), spaces.Discrete(4)
    lived = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        Server.lived += 1
        self.count += 1
        return np.full(1, self.count, np.float32), 1.0, False, False, {}


def test_an_environment_that_says_it_cannot_be_put_back_is_not_acted_in_again() -> None:
    with make_vec(Server, 1) as env:
        env.reset(seed=0), env.step(act(0)), env.step(act(0))
        state = pickle.loads(pickle.dumps(env.state()))
    lived = Server.lived
    with make_vec(Server, 1) as env:
        env.load_state(state)
        assert Server.lived == lived
        (told,) = env.take_faults()
        assert 'it says so (metadata["restorable"])' in told and "its episode is cut short" in told
        assert env.step(act(0))["last"].all() and env.step(act(0))["first"].all()
    (remark,) = [one for one in check_env(Server, steps=20) if "restored" in one]
    assert "a resume cuts the episode under way short" in remark


def test_an_endless_episode_keeps_a_bounded_number_of_actions(monkeypatch) -> None:
    monkeypatch.setattr(Server, "metadata", {})
    env, copy = (Reexecuted(Server(), most=100) for _ in range(2))
    env.reset(seed=0)
    for _ in range(100):
        env.step(3)
    assert env.snapshot()["actions"][0].tolist() == [3] * 100
    copy.restore(env.snapshot())
    assert copy.unwrapped.count == 100
    for _ in range(200):
        env.step(3)
        assert env.snapshot() == {LOST: "its episode had more than 100 actions"}
    with pytest.raises(Diverged, match="more than 100 actions"):
        copy.restore(env.snapshot())
    env.reset(seed=0), env.step(2)
    assert env.snapshot()["actions"][0].tolist() == [2]
