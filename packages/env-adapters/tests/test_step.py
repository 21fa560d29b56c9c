"""Action vectors and observation dictionaries."""

import gymnasium
import numpy as np
import pytest
from env_adapters import ActionSpec, TaskError, action_spec, decode_action, encode_action
from env_adapters.step import digest, observation, observation_space
from gymnasium import spaces

F32 = float(np.finfo(np.float32).max)
HALF_OPEN = spaces.Box(np.array([0.0, -np.inf]), np.array([np.inf, 2.0]), dtype=np.float64)
SPACES = {
    "discrete": (spaces.Discrete(4), ActionSpec((4,), 0)),
    "discrete from 5": (spaces.Discrete(3, start=5), ActionSpec((3,), 0)),
    "multi": (spaces.MultiDiscrete([3, 2, 5]), ActionSpec((3, 2, 5), 0)),
    "multi of rank 2 with start": (
        spaces.MultiDiscrete([[2, 3], [4, 2]], start=[[1, 0], [0, 7]]),
        ActionSpec((2, 3, 4, 2)),
    ),
    "binary": (spaces.MultiBinary(3), ActionSpec((2, 2, 2), 0)),
    "box": (spaces.Box(-2.0, 6.0, (3,)), ActionSpec((), 3)),
    "box of rank 2, uneven": (spaces.Box(np.array([[0.0], [-3.0]]), np.array([[1.0], [9.0]])), ActionSpec((), 2)),
    "box without bounds": (spaces.Box(-np.inf, np.inf, (2,)), ActionSpec((), 2)),
    "box with half bounds": (HALF_OPEN, ActionSpec((), 2)),
    "tuple": (spaces.Tuple([spaces.Box(0, 1, (2,)), spaces.Discrete(3), spaces.Discrete(2)]), ActionSpec((3, 2), 2)),
    "dict": (spaces.Dict(b=spaces.Box(-1, 1, (1,)), a=spaces.MultiDiscrete([2, 2])), ActionSpec((2, 2), 1)),
}


@pytest.mark.parametrize("name", SPACES)
def test_action_survives_its_vector(name: str) -> None:
    space, spec = SPACES[name]
    assert action_spec(space) == spec
    space.seed(0)
    for _ in range(20):
        native = space.sample()
        vector = encode_action(space, native)
        assert vector.shape == (spec.size,) and vector.dtype == np.float32
        back = decode_action(space, vector)
        assert space.contains(back)
        np.testing.assert_allclose(spaces.flatten(space, back), spaces.flatten(space, native), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", SPACES)
def test_vector_survives_its_action(name: str) -> None:
    space, spec = SPACES[name]
    rng = np.random.default_rng(1)
    for _ in range(20):
        blocks = [np.eye(n)[rng.integers(n)] for n in spec.discrete]
        vector = np.concatenate([*blocks, rng.uniform(0.0, 1.0, spec.continuous)]).astype(np.float32)
        np.testing.assert_allclose(encode_action(space, decode_action(space, vector)), vector, atol=1e-5)


def test_every_vector_decodes_into_the_space() -> None:
    rng = np.random.default_rng(2)
    for space, spec in SPACES.values():
        for _ in range(20):
            assert space.contains(decode_action(space, rng.normal(0, 3, spec.size).astype(np.float32)))


def test_box_is_rescaled_and_clipped_by_hand() -> None:
    space = spaces.Box(np.array([0.0, -10.0]), np.array([4.0, 10.0]))
    assert decode_action(space, np.array([-1.0, 1.0])).tolist() == [0.0, 10.0]
    assert decode_action(space, np.array([0.5, -0.5])).tolist() == [3.0, -5.0]
    assert decode_action(space, np.array([7.0, -7.0])).tolist() == [4.0, -10.0]
    assert decode_action(HALF_OPEN, np.array([-3.0, 3.0])).tolist() == [0.0, 2.0]
    assert decode_action(HALF_OPEN, np.array([30.0, -30.0])).tolist() == [31.0, -30.0]


# bounds, then what the vectors -1, 0, 0.5 and 1 are
BOUNDS = {
    "none": (-np.inf, np.inf, [-1, 0, 0.5, 1]),
    "largest floats": (-F32, F32, [-1, 0, 0.5, 1]),
    "far": (-1e20, 1e16, [-1, 0, 0.5, 1]),
    "wide, but meant": (-1e9, 3e9, [-1e9, 1e9, 2e9, 3e9]),
    "from 5": (5, np.inf, [5, 6, 6.5, 7]),
    "from 5 to the largest float": (5, F32, [5, 6, 6.5, 7]),
    "from 0": (0, np.inf, [0, 1, 1.5, 2]),
    "from -0.5": (-0.5, np.inf, [-0.5, 0.5, 1, 1.5]),
    "from far below": (-100, np.inf, [-1, 0, 0.5, 1]),
    "up to -3": (-np.inf, -3, [-5, -4, -3.5, -3]),
    "up to 2": (-F32, 2, [-1, 0, 0.5, 1]),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", BOUNDS)
def test_bounds_that_mean_none_and_half_open_boxes_by_hand(name: str, dtype: type) -> None:
    low, high, expected = BOUNDS[name]
    space = spaces.Box(low, high, (4,), dtype)
    vector = np.array([-1, 0, 0.5, 1], np.float32)
    native = decode_action(space, vector)
    assert native.tolist() == expected and space.contains(native)
    np.testing.assert_allclose(encode_action(space, native), vector, atol=1e-6)
    for far in (-1e6, 1e6):
        assert space.contains(decode_action(space, np.full(4, far, np.float32)))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_largest_number_of_a_dtype_is_no_bound(dtype: type) -> None:
    most = np.finfo(dtype).max
    vector = np.array([-1, 0.5], np.float32)
    assert decode_action(spaces.Box(-most, most, (2,), dtype), vector).tolist() == [-1, 0.5]


def test_discrete_components_come_first() -> None:
    space = SPACES["tuple"][0]
    vector = encode_action(space, (np.array([0.0, 1.0], np.float32), 2, 0))
    assert vector.tolist() == [0, 0, 1, 1, 0, -1, 1]


@pytest.mark.parametrize("space", [spaces.Text(3), spaces.Box(0, 9, (2,), np.int64), spaces.Dict(a=spaces.Text(2))])
def test_action_space_without_vector_is_refused(space: spaces.Space) -> None:
    with pytest.raises(TaskError, match="no action vector"):
        action_spec(space)


IMAGE = spaces.Box(0, 255, (16, 32, 3), np.uint8)


def test_plain_observations_get_a_name() -> None:
    assert observation_space(IMAGE) == spaces.Dict(image=IMAGE)
    assert observation_space(spaces.Discrete(7)) == spaces.Dict(vector=spaces.Discrete(7))
    assert observation_space(spaces.Box(0, 255, (8, 6), np.uint8)).spaces.keys() == {"vector"}
    double = spaces.Box(-1, 1, (2,), np.float64)
    assert observation_space(double) == spaces.Dict(vector=spaces.Box(-1, 1, (2,), np.float32))
    assert observation(double, np.zeros(2))["vector"].dtype == np.float32


def test_nested_observations_are_joined_by_a_slash() -> None:
    space = spaces.Dict(eye=IMAGE, body=spaces.Dict(arm=spaces.Box(0, 1, (2,)), leg=spaces.Discrete(2)))
    flat = observation_space(space)
    assert set(flat.spaces) == {"eye", "body/arm", "body/leg"}
    value = space.sample()
    found = observation(space, value)
    assert flat.contains(found)
    assert np.array_equal(found["body/arm"], value["body"]["arm"]) and found["body/leg"] == value["body"]["leg"]
    assert set(observation_space(spaces.Tuple([IMAGE, spaces.Discrete(2)])).spaces) == {"0", "1"}


def test_discrete_observations_begin_at_zero() -> None:
    """As discrete actions do: what reads them makes one-hots of them."""
    multi = spaces.MultiDiscrete([3, 2], start=[5, -1], dtype=np.int16)
    space = spaces.Dict(one=spaces.Discrete(3, start=4), many=multi, plain=spaces.Discrete(2))
    flat = observation_space(space)
    assert flat == spaces.Dict(
        one=spaces.Discrete(3), many=spaces.MultiDiscrete([3, 2], np.int16), plain=spaces.Discrete(2)
    )
    seen = observation(space, {"one": np.int64(6), "many": np.array([5, 0], np.int16), "plain": 1})
    assert flat.contains(seen) and (int(seen["one"]), seen["many"].tolist(), int(seen["plain"])) == (2, [0, 1], 1)
    assert seen["many"].dtype == np.int16


def test_unreadable_observations_are_refused() -> None:
    with pytest.raises(TaskError, match="'vector' is Text"):
        observation_space(spaces.Text(3))
    with pytest.raises(TaskError, match="'a/b' is Sequence"):
        observation_space(spaces.Dict(a=spaces.Dict(b=spaces.Sequence(spaces.Discrete(2)))))
    with pytest.raises(TaskError, match=r"'a' of shape .* shows nothing"):
        observation_space(spaces.Dict(a=spaces.Box(0, 1, (0, 3))))


def test_digest_sees_values_shapes_and_types() -> None:
    base = digest({"a": np.arange(6, dtype=np.int32)})
    for other in (np.arange(1, 7, dtype=np.int32), np.arange(6).reshape(2, 3).astype(np.int32), np.arange(6.0)):
        assert digest({"a": other}) != base
    assert digest({"b": np.arange(6, dtype=np.int32)}) != base


def test_codec_agrees_with_gymnasiums_flatten_on_discrete_spaces() -> None:
    space = spaces.MultiDiscrete([3, 2, 5])
    space.seed(3)
    for _ in range(10):
        native = space.sample()
        assert np.array_equal(encode_action(space, native), gymnasium.spaces.flatten(space, native))
