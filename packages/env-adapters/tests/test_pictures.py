"""Any box that shows a picture becomes one that an encoder takes, channel by channel; symbols stay symbols."""

import itertools
from typing import Any

import gymnasium
import numpy as np
import pytest
from env_adapters import TaskError, check_env, make_vec
from env_adapters.pictures import arranged_shape, common_size, resized, unclear, views
from env_adapters.wrappers import Resize
from gymnasium import spaces


def box(*shape: int, high: float = 255, dtype: Any = np.uint8) -> spaces.Box:
    return spaces.Box(0, high, shape, dtype)


TRAVELS = {
    "as it is": (box(64, 64, 3), None),
    "any number of channels": (box(64, 48, 7), None),
    "large and fit": (box(256, 256, 3), None),
    "channels first": (box(3, 64, 64), (64, 64, 3)),
    "a stack, first": (box(16, 64, 64), (64, 64, 16)),
    "grey": (box(84, 84), (80, 80, 1)),
    "any sides": (box(210, 160, 3), (96, 80, 3)),
    "short sides": (box(20, 9, 2), (16, 16, 2)),
    "bytes below 32": (box(64, 64, 3, high=10), None),
    "floats": (box(3, 20, 20, high=1, dtype=np.float32), (16, 16, 3)),
    "a grid": (box(7, 7, 3, high=10), None),
    "a grid of fit sides": (box(16, 16, 3, high=10), None),
    "a table": (box(20, 31), None),
    "floats without end": (spaces.Box(-np.inf, np.inf, (20, 20, 3)), None),
    "a vector": (box(128), None),
    "a choice": (spaces.Discrete(3), None),
}


@pytest.mark.parametrize("what", TRAVELS)
def test_how_a_box_travels(what: str) -> None:
    space, shape = TRAVELS[what]
    found = views({"x": space})
    assert (found["x"].space.shape if found else None) == shape
    if found:
        value = found["x"](space.sample())
        assert found["x"].space.contains(value) and value.flags.c_contiguous


def test_pictures_of_one_space_get_one_size() -> None:
    found = views({"a": box(64, 64, 3), "b": box(32, 64, 64), "c": box(100, 20, 1), "d": box(4)})
    assert {key: view.space.shape for key, view in found.items()} == {
        "a": (96, 64, 3),
        "b": (96, 64, 32),
        "c": (96, 64, 1),
    }
    assert not views({"a": box(64, 64, 3), "b": box(64, 64, 1)})


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_each_channel_is_resized_by_itself(channels: int) -> None:
    """None is taken for transparency: a channel of zeros leaves the others."""
    picture = np.zeros((20, 30, channels), np.uint8)
    picture[..., :-1] = 200
    small = resized(picture, (16, 32))
    assert small.shape == (16, 32, channels) and (small[..., :-1] == 200).all() and not small[..., -1].any()


@pytest.mark.parametrize("size", [(16, 16), (48, 80), (64, 32)])
def test_resizing_equals_pillow(size: tuple[int, int]) -> None:
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (50, 70, 3), dtype=np.uint8)
    theirs = np.asarray(image.fromarray(picture).resize(size[::-1], image.Resampling.BILINEAR))
    assert np.abs(resized(picture, size).astype(int) - theirs).max() <= 1


def test_floats_become_bytes_over_their_range() -> None:
    view = views({"x": spaces.Box(-1.0, 1.0, (16, 16, 1), np.float32)})["x"]
    value = np.full((16, 16, 1), -1, np.float32)
    value[0, 0], value[0, 1] = 1.0, 0.0
    assert view(value)[0, :3, 0].tolist() == [255, 128, 0]


def test_channels_first_and_last_are_the_same_picture() -> None:
    last = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    one, two = (views({"x": box(*shape)})["x"] for shape in ((40, 60, 3), (3, 40, 60)))
    assert np.array_equal(one(last), two(np.moveaxis(last, -1, 0)))


def test_sizes_are_near_what_was_given() -> None:
    for high in range(1, 300, 7):
        for wide in range(1, 300, 11):
            size = common_size({(high, wide)})
            assert size is not None and not any(side % 16 for side in size)
            if size != (high, wide):
                assert max(size) <= 96
                share = min(1.0, 96 / max(high, wide))
                assert all(abs(new - max(16, old * share)) <= 8 for new, old in zip(size, (high, wide), strict=True))


def test_what_only_its_values_tell() -> None:
    assert unclear({"a": box(7, 7, 3), "b": box(3, 20, 20), "c": box(16, 16, 3), "d": box(40, 7, 1)}) == ["a", "b"]
    assert arranged_shape((3, 20, 10)) == (20, 10, 3)


# ---- in an environment


class Shows(gymnasium.Env[Any, Any]):
    """Observations of a space, all from `value`."""

    action_space = spaces.Discrete(2)

    def __init__(self, space: spaces.Box, value: Any) -> None:
        self.observation_space, self.value = space, value

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        return self.shown(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        return self.shown(), 0.0, self.t == 5, False, {}

    def shown(self) -> Any:
        return np.full(self.observation_space.shape, self.value(self.t), self.observation_space.dtype)


def grid() -> Shows:
    """As MiniGrid shows what lies before its agent: objects, colours and states, in a space of bytes."""
    return Shows(box(7, 7, 3), lambda t: t % 11)


def photo() -> Shows:
    """As small, and dark at first."""
    return Shows(box(7, 7, 3), lambda t: 50 * t)


def test_symbols_are_told_from_pictures_by_their_values() -> None:
    with pytest.warns(UserWarning, match="'image' .7x7x3. is taken for a grid of symbols below 32"):
        step = (env := make_vec(grid, 2, workers=0)).reset(seed=0)
    assert env.observation_space["image"] == box(7, 7, 3, high=31) and (step["image"] == 0).all()
    assert (env.step(np.eye(2, dtype=np.float32))["image"] == 1).all()
    with pytest.warns(UserWarning, match="'image' .7x7x3. is taken for a picture, resized to 16x16"):
        (env := make_vec(photo, 2, workers=0)).reset(seed=0)
    assert env.observation_space["image"].shape == (16, 16, 3)
    for make in (grid, photo):
        remarks = check_env(make, steps=20)
        assert len(remarks) == 1 and "is taken for" in remarks[0]


def test_a_symbol_beyond_what_was_seen_is_no_symbol() -> None:
    shown = itertools.count()
    env = make_vec(lambda: Shows(box(7, 7, 3), lambda t: 3 if next(shown) < 80 else 200), 1)
    env.reset(seed=0)

    def play() -> None:
        for _ in range(80):
            env.step(np.eye(2, dtype=np.float32)[:1])

    with pytest.raises(TaskError, match=r"'image' with the value 200, but so far .* resize it to 32x32"):
        play()


def test_a_looking_leaves_the_episodes_as_they_were() -> None:
    """What is played to tell symbols from pictures changes no random number of the run."""

    class Drawn(Shows):
        def shown(self) -> Any:
            return self.np_random.integers(0, 9, (7, 7, 3), np.uint8)

    def plain() -> Drawn:
        return Drawn(box(7, 7, 3, high=31), None)

    one, two = (make_vec(make, 2, workers=0) for make in (plain, lambda: Drawn(box(7, 7, 3), None)))
    assert np.array_equal(one.reset(seed=3)["image"], two.reset(seed=3)["image"])
    action = np.eye(2, dtype=np.float32)
    assert all(np.array_equal(one.step(action)["image"], two.step(action)["image"]) for _ in range(12))


def test_what_a_bare_environment_shows_is_seen_as_in_training() -> None:
    env, bare = make_vec(photo, 1), photo()
    assert np.array_equal(env.views["image"](bare.reset(seed=0)[0]), env.reset(seed=0)["image"][0])


@pytest.mark.parametrize(
    "shape", [(40, 50, 1), (40, 50, 2), (40, 50, 3), (40, 50, 4), (40, 50, 6), (4, 40, 50), (40, 50)]
)
def test_size_resizes_each_channel_by_itself(shape: tuple[int, ...]) -> None:
    """A fourth channel is no transparency, a second no mask: each is as it would be alone."""
    pytest.importorskip("PIL.Image")
    value = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    found = Resize(Shows(box(*shape), lambda t: value), 16).reset(seed=0)[0]
    first = len(shape) == 3 and shape[0] == 4
    planes = [value] if len(shape) == 2 else list(value if first else np.moveaxis(value, -1, 0))
    for channel, plane in enumerate(planes):
        alone = Resize(Shows(box(40, 50, 1), lambda t, plane=plane: plane[..., None]), 16).reset(seed=0)[0]
        assert np.array_equal(found[..., channel], alone[..., 0])
    assert found.shape == (16, 16, len(planes))


class Small(gymnasium.Env[Any, Any]):
    """A picture of 44x44, or 20x20, of one value, whose size is to stay, and beside it one of another size."""

    env_adapters = True
    sizes_kept = ("small",)
    action_space = spaces.Discrete(2)

    def __init__(self, side: int = 44) -> None:
        self.side = side
        self.observation_space = spaces.Dict(small=box(side, side, 3), large=box(84, 84, 3))

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        return self.observation_space.sample() | {"small": np.full((self.side, self.side, 3), 9, np.uint8)}, {}

    def step(self, action: Any) -> Any:
        return *self.reset()[:1], 0.0, False, False, {}


@pytest.mark.parametrize("side", [44, 20])
def test_a_picture_whose_size_is_kept_is_not_resized(side: int) -> None:
    with make_vec(Small, 2, side=side, workers=0) as env:
        assert env.observation_space["small"].shape == (side, side, 3) and not env.grids
        assert env.observation_space["large"].shape == (80, 80, 3)
        assert set(env.views) == {"large"}
        with pytest.warns(UserWarning, match="'large' .* resized to 80x80"):
            record = env.reset(seed=0)
        assert record["small"].shape == (2, side, side, 3) and (record["small"] == 9).all()
    assert views({"a": box(44, 44, 3)})["a"].size == (48, 48) and not views({"a": box(44, 44, 3)}, (), ["a"])
