"""Random observation and action spaces: they work whole, or are refused in one sentence. FUZZ=1000 tries more of them."""

import copy
import os

import gymnasium
import numpy as np
import pytest
from env_adapters import TaskError, check_env, make, make_vec
from gymnasium import spaces

COUNT = int(os.environ.get("FUZZ", "60"))
KEYS = ("a", "b/c", "image", "vector", "Ünicode", "two words", "first", "x")
FLOATS, INTEGERS = (np.float16, np.float32, np.float64), (np.uint8, np.int8, np.int32, np.int64)


def box(rng: np.random.Generator) -> spaces.Box:
    shape = tuple(int(side) for side in rng.integers(1, 4, rng.integers(0, 5)))
    if rng.random() < 0.4:
        return spaces.Box(0, int(rng.integers(1, 100)), shape, INTEGERS[rng.integers(4)])
    low = rng.choice([-np.inf, -3.0, 0.0], shape)
    high = rng.choice([np.inf, 5.0, 1.5], shape)
    return spaces.Box(low, high, shape or None, FLOATS[rng.integers(3)])


def leaf(rng: np.random.Generator) -> spaces.Space:
    kind = rng.integers(8)
    if kind < 3:
        return box(rng)
    if kind == 3:
        return spaces.Discrete(int(rng.integers(1, 9)), start=int(rng.integers(-3, 4)))
    if kind == 4:
        shape = (2, 3) if rng.random() < 0.3 else (int(rng.integers(1, 5)),)
        return spaces.MultiDiscrete(rng.integers(1, 6, shape), start=rng.integers(-2, 3, shape))
    if kind == 5:
        return spaces.MultiBinary([2, 3] if rng.random() < 0.3 else int(rng.integers(1, 6)))
    if kind == 6:
        return spaces.Box(0, 255, (16, 16, 3), np.uint8)
    odd = (
        spaces.Text(4),
        spaces.Sequence(spaces.Discrete(2)),
        spaces.Graph(spaces.Box(0, 1, (2,)), spaces.Discrete(3)),
        spaces.OneOf([spaces.Discrete(2), spaces.Box(0, 1, (2,))]),
    )
    return odd[rng.integers(4)]


def space(rng: np.random.Generator, depth: int = 0) -> spaces.Space:
    if depth == 3 or rng.random() < 0.55:
        return leaf(rng)
    inner = [space(rng, depth + 1) for _ in range(rng.integers(0 if depth else 1, 4))]
    if rng.random() < 0.3:
        return spaces.Tuple(inner)
    return spaces.Dict(dict(zip(rng.permutation(KEYS).tolist(), inner, strict=False)))


class Samples(gymnasium.Env):
    """Every observation is a fresh sample; half of the episodes terminate, half are truncated."""

    def __init__(self, observed: spaces.Space, taken: spaces.Space) -> None:
        self.observation_space, self.action_space = copy.deepcopy((observed, taken))  # a space holds a generator

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(int(self.np_random.integers(2**31)))
        self.left = int(self.np_random.integers(1, 6))
        return self.observation_space.sample(), {}

    def step(self, action):
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        self.left -= 1
        ends, way = self.left == 0, self.np_random.random() < 0.5
        return self.observation_space.sample(), self.np_random.random(), ends and way, ends and not way, {}


def unexpected(said):
    """Sentences but that a text or a sequence among the observations is left out."""
    return [sentence for sentence in said if "no array: it is left out" not in sentence]


def walk(seed: int) -> bool:
    """True if the spaces are accepted: then everything works on them."""
    rng = np.random.default_rng(seed)
    observed, taken = space(rng), space(rng)
    try:
        make(lambda: Samples(observed, taken))
    except TaskError as error:
        assert "\n" not in str(error) and len(str(error)) > 20
        return False
    assert unexpected(check_env(lambda: Samples(observed, taken), steps=20)) == []
    env = make_vec(lambda: Samples(observed, taken), 2, workers=0)
    env.reset(seed=seed)
    actions = rng.uniform(-2, 2, (12, 2, env.action_spec.size)).astype(np.float32)
    for action in actions[:6]:
        env.step(action)
    state = env.state()
    one = [env.step(action) for action in actions[6:]]
    env.load_state(state)
    two = [env.step(action) for action in actions[6:]]
    assert unexpected(env.take_faults()) == []
    for a, b in zip(one, two, strict=True):
        assert all(np.array_equal(a[key], b[key], equal_nan=a[key].dtype.kind == "f") for key in a)
    return True


@pytest.mark.parametrize("start", range(0, COUNT, 20))
def test_random_spaces_work_or_are_refused_in_one_sentence(start: int) -> None:
    accepted = sum(walk(seed) for seed in range(start, start + 20))
    assert 1 <= accepted <= 19
