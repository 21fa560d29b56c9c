"""Environments that draw from `random` and `np.random` have both to themselves."""

import random

import gymnasium
import numpy as np
import pytest
from env_adapters import check_env, generators, make_vec
from env_adapters.generators import Generators
from gymnasium import spaces


def draws() -> list[float]:
    """Of every kind; an odd number of normals, of which both modules make two at a time."""
    return [random.random(), random.gauss(0, 1), random.randint(0, 9), np.random.rand(), np.random.randn()]  # noqa: NPY002


def kinds():
    """Classes made here, so that they travel to the workers by value; the module above goes along by name."""
    import random

    def draw():
        return [random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn()]  # noqa: NPY002

    class Draws(gymnasium.Env):
        """Draws when it is made, in `quiet` steps of an episode not at all, then at every step."""

        observation_space = spaces.Box(-np.inf, np.inf, (8,), np.float32)
        action_space = spaces.Discrete(2)

        def __init__(self, quiet=0, at_reset=True):
            self.quiet, self.at_reset, self.born = quiet, at_reset, draw()

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.count = 0
            return np.array([*self.born, *(draw() if self.at_reset else [0] * 4)], np.float32), {}

        def step(self, action):
            self.count += 1
            seen = draw() if self.count > self.quiet else [0] * 4
            return np.array([*self.born, *seen], np.float32), random.random(), self.count == 9, False, {}

    class Native(Draws):
        env_adapters = True

        def snapshot(self):
            return {"count": self.count}

        def restore(self, state):
            self.count = state["count"]

    return Draws, Native


DRAWS, NATIVE = kinds()
ACTION = np.eye(2, dtype=np.float32)[[0, 1, 0]]


def records(env, steps: int = 30) -> list[dict[str, np.ndarray]]:
    return [env.reset(seed=4), *(env.step(ACTION) for _ in range(steps))]


def same(one, two) -> bool:
    return all(np.array_equal(a[name], b[name]) for a, b in zip(one, two, strict=True) for name in a)


@pytest.mark.parametrize("kind", [DRAWS, NATIVE])
def test_the_records_are_the_same_with_any_number_of_workers(kind) -> None:
    random.seed(1), np.random.seed(1)  # noqa: NPY002
    with make_vec(kind, 3, workers=0) as env:
        expected = records(env)
    shown = np.stack([step["vector"] for step in expected])
    assert len(np.unique(shown[:, :, 4:])) == shown[:, :, 4:].size  # no two environments or steps draw the same
    assert len(np.unique(shown[:, :, :4])) == 12
    for workers in (1, 2) if kind is DRAWS else (2,):
        random.seed(workers), np.random.seed(workers + 5)  # noqa: NPY002
        with make_vec(kind, 3, workers=workers) as env:
            assert same(records(env), expected)


@pytest.mark.parametrize("kind", [DRAWS, NATIVE])
@pytest.mark.parametrize(("quiet", "at_reset"), [(0, True), (4, False)])
@pytest.mark.parametrize("left", [2, 6, 17])
def test_a_snapshot_holds_what_will_be_drawn(kind, quiet: int, at_reset: bool, left: int) -> None:
    env, other = (make_vec(kind, 3, workers=0, quiet=quiet, at_reset=at_reset) for _ in range(2))
    env.reset(seed=1)
    for _ in range(left):
        env.step(ACTION)
    state = env.state()
    rest = [env.step(ACTION) for _ in range(15)]
    other.reset(seed=2)
    other.load_state(state)
    assert same([other.step(ACTION) for _ in range(15)], rest) and other.take_faults() == []


def test_the_process_draws_as_if_there_were_no_environment() -> None:
    numbers = []
    for play in (True, False):
        random.seed(3), np.random.seed(3)  # noqa: NPY002
        random.gauss(0, 1)
        if play:
            records(make_vec(DRAWS, 3, workers=0))
        numbers.append([random.gauss(0, 1), random.random(), np.random.rand()])  # noqa: NPY002
    assert numbers[0] == numbers[1]


def test_such_an_environment_passes_the_check() -> None:
    assert check_env(DRAWS, steps=40) == [] and check_env(NATIVE, steps=40) == []


def test_a_snapshot_without_generators_still_loads() -> None:
    env = make_vec(NATIVE, 1, workers=0)
    env.reset(seed=0)
    state = env.state()
    state["envs"] = [{"count": one["count"]} for one in state["envs"]]
    env.load_state(state)
    assert env.take_faults() == [] and not env.step(ACTION[:1])["last"].any()


def test_states_are_put_in_place_and_taken_out_by_memory_as_by_pythons_methods(monkeypatch) -> None:
    def play() -> list[list[float]]:
        one, two, seen = Generators(1), Generators(2), []
        for _ in range(700):
            with one:
                seen.append(draws())
            with two:
                seen.append(draws())
        return seen

    assert generators._read is not random.getstate  # noqa: SLF001  # CPython's layout is known
    fast = play()
    monkeypatch.setattr(generators, "_read", random.getstate)
    monkeypatch.setattr(generators, "_write", random.setstate)
    assert play() == fast
    assert fast[0] != fast[1]


def test_what_was_not_drawn_takes_no_room() -> None:
    one = Generators(5)
    with one:
        pass
    assert one.state() == {"seed": 5, "states": None}
    with one:
        random.gauss(0, 1)
    state = one.state()
    with one:
        expected = draws()
    other = Generators(6)
    other.load_state(state)
    with other:
        assert draws() == expected
