"""The protocols' facts, against the emulator driven by hand."""

import ale_py
import cv2
import numpy as np
import pytest
from ale_py import ALEInterface, LoggerMode, roms
from env_adapters import TaskError, make, make_vec
from env_adapters.atari import GAMES, Atari
from gymnasium.utils import seeding
from PIL import Image

NOOP, FIRE = 0, 1


def by_hand(game: str, seed: int, actions: list[int], sticky: float, noops: int, resize) -> list[tuple]:
    """(image, reward, game over, lives) of a reset and each action, by a loop over raw frames."""
    ALEInterface.setLoggerMode(LoggerMode.Error)
    rng, _ = seeding.np_random(seed)
    ale = ALEInterface()
    ale.setInt("random_seed", int(rng.integers(2**31)))
    ale.setFloat("repeat_action_probability", sticky)
    ale.loadROM(roms.get_rom_path(game))
    ale.reset_game()
    for _ in range(rng.integers(noops + 1)):
        ale.act(ale_py.Action.NOOP)
    records = [(resize(ale.getScreenRGB()), 0.0, False, ale.lives())]
    for action in actions:
        frames, reward = [], 0.0
        while len(frames) < 4 and not ale.game_over():
            reward += ale.act(ale.getMinimalActionSet()[action])
            frames.append(ale.getScreenRGB())
        image = np.maximum(frames[-2], frames[-1]) if len(frames) > 1 else frames[0]
        records.append((resize(image), reward, ale.game_over(), ale.lives()))
        if ale.game_over():
            break
    return records


def bilinear(image):
    return np.asarray(Image.fromarray(image).resize((64, 64), Image.Resampling.BILINEAR))


def area(image):
    return cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA)


@pytest.mark.parametrize(
    ("game", "protocol", "sticky", "noops", "resize"),
    [
        ("boxing", "dreamerv3", 0.0, 30, bilinear),
        ("breakout", "dreamerv3", 0.0, 30, bilinear),
        ("boxing", "storm", 0.25, 0, area),
        ("breakout", "storm", 0.25, 0, area),
    ],
)
def test_records_equal_the_emulator_driven_by_hand(game, protocol, sticky, noops, resize) -> None:
    env = Atari(game, protocol=protocol)
    rng = np.random.default_rng(5)
    # breakout by mostly serving: the ball is lost again and again, until the game is over
    actions = rng.choice(env.action_space.n, size=500 if game == "breakout" else 150).tolist()
    expected = by_hand(game, 11, actions, sticky, noops, resize)
    observation, info = env.reset(seed=11)
    found = [(observation["image"], 0.0, False, info["lives"])]
    for action in actions[: len(expected) - 1]:
        observation, reward, terminated, truncated, info = env.step(action)
        assert not truncated
        found.append((observation["image"], reward, terminated, info["lives"]))
    for at, (one, two) in enumerate(zip(found, expected, strict=True)):
        assert one[1:] == two[1:], at
        assert np.array_equal(one[0], two[0]), at
    assert expected[-1][2] == (game == "breakout")  # the hard end was reached where it is meant to be
    assert sum(abs(one[1]) for one in expected) > 0


def test_protocols_name_their_facts() -> None:
    dreamer, storm = make("atari100k_pong").get_wrapper_attr("protocol"), Atari("pong", "storm").protocol
    expected = {"name": "dreamerv3", "sticky": 0.0, "noops": 30, "repeat": 4, "pool": 2, "lives": "unused", "size": 64}
    expected |= {"actions": "minimal", "resize": "pillow-bilinear", "limit": 108_000, "limit_is_terminal": False}
    expected |= {"clip_rewards": False, "colour": "rgb", "game": "pong", "episode_seed": "own"}
    assert expected.items() <= dreamer.items()
    differing = {"name": "storm", "sticky": 0.25, "noops": 0, "lives": "signal", "resize": "opencv-area"}
    assert (expected | differing | {"episode_seed": "same"}).items() <= storm.items()
    changed = Atari("pong", "storm", episode_seed="own", lives="unused").protocol["name"]
    assert changed == "storm, changed: episode_seed, lives"


def test_every_benchmark_game_exists_under_its_usual_name() -> None:
    counts = {}
    for game in GAMES:
        counts[game] = Atari(game).action_space.n
    assert len(counts) == 26
    some = {"pong": 6, "breakout": 4, "freeway": 3, "boxing": 18, "ms_pacman": 9, "james_bond": 18, "up_n_down": 6}
    assert some.items() <= counts.items()
    for name in ("jamesbond", "JamesBond", "battlezone", "bankheist", "kungfumaster"):
        assert make(f"atari100k_{name}").get_wrapper_attr("protocol")["game"]
    assert Atari("pong", actions="all").action_space.n == 18


def test_noops_are_uniform_from_0_to_30() -> None:
    env = Atari("pong")
    noops = [env.reset(seed=seed)[1]["noops"] for seed in range(35)]
    assert min(noops) >= 0 and max(noops) <= 30 and max(noops) >= 27 and min(noops) <= 3
    assert np.mean(noops) == pytest.approx(15, abs=5)
    assert Atari("pong", "storm").reset(seed=3)[1]["noops"] == 0


def test_first_image_holds_nothing_of_the_episode_before() -> None:
    env = Atari("boxing", noops=0)
    fresh = env.reset(seed=0)[0]["image"]
    for action in np.random.default_rng(0).integers(18, size=60):
        env.step(action)
    assert np.array_equal(env.reset(seed=1)[0]["image"], fresh)
    assert np.array_equal(bilinear(env.render()), fresh)


def test_limit_truncates_and_terminates_only_where_asked() -> None:
    env = Atari("pong", limit=42)
    env.reset(seed=0)
    ends = [env.step(NOOP)[2:4] for _ in range(11)]
    assert ends == [(False, False)] * 10 + [(False, True)]
    switch = Atari("pong", limit=40, limit_is_terminal=True)
    switch.reset(seed=0)
    assert [switch.step(NOOP)[2:4] for _ in range(10)] == [(False, False)] * 9 + [(True, False)]


def test_limit_counts_raw_frames_and_a_cut_step_is_shorter() -> None:
    env = Atari("pong", limit=42)
    env.reset(seed=0)
    frames = [env.step(NOOP)[4]["frames"] for _ in range(11)]
    assert frames == [*range(4, 41, 4), 42]


def test_sticky_actions_depend_on_the_seed_and_plain_ones_do_not() -> None:
    def images(env: Atari, seed: int) -> bytes:
        env.reset(seed=seed)
        rng = np.random.default_rng(0)
        return b"".join(env.step(rng.integers(6))[0]["image"].tobytes() for _ in range(60))

    plain, sticky = Atari("pong", noops=0), Atari("pong", "storm")
    assert images(plain, 0) == images(plain, 1)
    assert images(sticky, 0) == images(sticky, 0) != images(sticky, 1)


def test_lost_lives_are_a_signal_beside_the_observations() -> None:
    env = make_vec("atari100k_breakout", 1, protocol="storm")
    assert env.signals == ("life_loss",) and env.observation_space.spaces.keys() == {"image"}
    step, lost, serve = env.reset(seed=0), 0, np.eye(4, dtype=np.float32)[[FIRE]]
    assert not step["life_loss"][0]
    for _ in range(400):
        step = env.step(serve)
        lost += int(step["life_loss"][0])
        assert not step["terminal"][0] or step["last"][0]
        if step["last"][0]:
            break
        assert not step["terminal"][0]  # a lost life ends nothing
    assert step["terminal"][0] and lost == 5
    assert not env.step(serve)["life_loss"][0]
    assert "life_loss" not in make_vec("atari100k_breakout", 1).reset(seed=0)


def test_storm_repeats_one_seed_and_dreamerv3_does_not() -> None:
    def episodes(protocol: str) -> list[bytes]:
        env = make_vec("atari100k_pong", 1, protocol=protocol, limit=80)
        step, found, rng = env.reset(seed=3), [], None
        for _ in range(42):
            if step["first"][0]:
                found.append(b"")
                rng = np.random.default_rng(1)
            found[-1] += step["image"].tobytes()
            step = env.step(np.eye(6, dtype=np.float32)[[rng.integers(6)]])
        assert len(found) == 2
        return found

    one, two = episodes("storm")
    assert one == two
    one, two = episodes("dreamerv3")
    assert one != two


def test_rewards_are_not_clipped() -> None:
    env = make("atari100k_ms_pacman")
    env.reset(seed=0)
    rewards = [env.step(env.action_space.sample())[1] for _ in range(100)]
    assert max(rewards) >= 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protocol": "dqn"}, "no protocol 'dqn'; it has dreamerv3, storm"),
        ({"lives": "reset"}, "lives is 'reset'; it is one of unused, signal"),
        ({"repeat": 0}, "repeat is 0"),
        ({"sticky": 2.0}, "probability"),
    ],
)
def test_impossible_protocols_are_refused(options, message) -> None:
    with pytest.raises(TaskError, match=message):
        make("atari100k_pong", **options)


@pytest.mark.parametrize(("module", "options"), [("ale_py", {}), ("PIL", {}), ("cv2", {"protocol": "storm"})])
def test_missing_extra_is_named(monkeypatch, module, options) -> None:
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(TaskError, match=r"env-adapters\[atari\]"):
        make("atari100k_pong", **options)


def test_the_consoles_memory_is_told_and_where_known_things_lie_in_it() -> None:
    """Against the emulator driven by hand, and against what its raw frames show."""
    env, rng = Atari("breakout"), np.random.default_rng(0)
    env.reset(seed=0)
    seen, told = [], []
    for _ in range(250):
        step = env.step(FIRE if rng.random() < 0.3 else int(rng.integers(4)))
        red = env.render()[:, 8:152, 0] > 100
        ball = np.argwhere(red[95:188])
        if 0 < len(ball) < 40:
            seen.append([*ball.mean(0)[::-1], np.flatnonzero(red[190:193].all(0)).mean()])
            told.append(np.concatenate([env.told["ball"], env.told["paddle"]]))
        if step[2]:
            env.reset(seed=1)
    assert len(seen) > 60
    for k, (shown, byte) in enumerate(zip(np.transpose(seen), np.transpose(told), strict=True)):
        assert np.corrcoef(shown, byte)[0, 1] > 0.99, k
    assert np.array_equal(env.told["ram"], vars(env)["_ale"].getRAM().astype(np.float32) / np.float32(255))
    assert env.told["ram"].shape == (128,) and env.told["ram"].dtype == np.float32


def test_the_chicken_of_freeway_is_found_in_memory() -> None:
    env, rng = Atari("freeway", noops=0), np.random.default_rng(0)
    env.reset(seed=0)
    seen, told = [], []
    for _ in range(100):
        env.step(int(rng.choice(3, p=[0.2, 0.5, 0.3])))
        lane = env.render()[:, 40:56].astype(int)
        seen.append(np.nonzero((lane[..., 0] > 240) & (lane[..., 1] > 240) & (lane[..., 2] < 100))[0].mean())
        told.append(float(env.told["chicken"][0]))
    assert np.corrcoef(seen, told)[0, 1] < -0.99  # rows count from above, the byte from below


@pytest.mark.parametrize("workers", [0, 1])
def test_what_atari_tells_travels_beside_the_record(workers: int) -> None:
    with make_vec("atari100k_pong", 2, workers=workers) as envs:
        step = envs.reset(seed=0)
        assert {name: value.shape for name, value in envs.told().items()} == {"told/ram": (2, 128)}
        assert not [name for name in step if "ram" in name] and set(envs.observation_space.spaces) == {"image"}
