"""Data sets of others as records: what minari and lerobot wrote themselves, and everything that can be wrong with a file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from env_adapters import decode_action, make_vec
from env_adapters.actions import ActionCodec
from env_adapters.errors import TaskError
from env_adapters.recordings import opened
from gymnasium import spaces

HERE = Path(__file__).parent / "lerobot"


# ---- .npz


def saved(folder: Path, episodes: int = 3, **changed: Callable[[dict[str, Any]], Any]) -> Path:
    """Episodes whose every number says where it is; `changed` of the second."""
    folder.mkdir(exist_ok=True)
    for e in range(episodes):
        count = 4 + e
        arrays: dict[str, Any] = {
            "image": np.full((count + 1, 16, 16, 3), 10 * e, np.uint8)
            + np.arange(count + 1, dtype=np.uint8)[:, None, None, None],
            "speed": (100 * e + np.arange(count + 1)).astype(np.float32)[:, None],
            "gear": np.arange(count + 1) % 3,
            "told/place": np.arange(count + 1, dtype=np.float64)[:, None],
            "action": (np.arange(count) + e) % 4,
            "reward": np.arange(count) / 2,
            "terminated": np.array(e == 0),
        }
        if e == 1:
            for name, change in changed.items():
                arrays[name] = change(arrays)
            arrays = {name: value for name, value in arrays.items() if value is not None}
        np.savez(folder / f"{e:03d}.npz", **arrays)
    return folder


def test_npz_episodes_are_records_of_the_action_that_led_there(tmp_path: Path) -> None:
    data = opened(str(saved(tmp_path / "a")))
    assert data.who == "npz" and data.count == 3 and data.action_spec.discrete == (4,)
    assert data.observation_space == spaces.Dict(
        {
            "gear": spaces.Discrete(3),
            "image": spaces.Box(0, 255, (16, 16, 3), np.uint8),
            "speed": spaces.Box(-np.inf, np.inf, (1,)),
        }
    )
    for e, records in enumerate(data.episodes()):
        count = 4 + e
        assert records["speed"][:, 0].tolist() == [100 * e + t for t in range(count + 1)]
        assert records["image"][:, 0, 0, 0].tolist() == [10 * e + t for t in range(count + 1)]
        assert not records["action"][0].any() and records["reward"][0] == 0
        assert records["action"][1:].argmax(-1).tolist() == [(t + e) % 4 for t in range(count)]
        assert records["reward"][1:].tolist() == [t / 2 for t in range(count)]
        assert records["first"].tolist() == [True] + [False] * count
        assert records["last"].tolist() == [False] * count + [True]
        assert records["terminal"].tolist() == [False] * count + [e == 0]
        assert records["told/place"].dtype == np.float32 and records["told/place"][-1, 0] == count


def test_about_json_says_what_the_files_do_not(tmp_path: Path) -> None:
    folder = saved(tmp_path / "a", action=lambda a: a["action"])
    (folder / "about.json").write_text('{"actions": 6, "repeat": 4, "task": "gym:MyEnv-v0"}')
    data = opened(str(folder))
    assert (data.action_spec.discrete, data.repeat, data.task) == ((6,), 4, "gym:MyEnv-v0")


def test_continuous_actions_have_the_bounds_that_are_told_or_those_of_the_values(tmp_path: Path) -> None:
    for e in range(2):
        values = np.array([[-2.0, 5.0], [4.0, 5.0]]) + e
        np.savez(tmp_path / f"{e}.npz", action=values, reward=np.zeros(2), speed=np.zeros((3, 1)), truncated=True)
    first = next(iter(opened(str(tmp_path)).episodes()))
    assert first["action"][1:, 0].tolist() == pytest.approx([-1, 5 / 7])
    (tmp_path / "about.json").write_text('{"low": [-10, 0], "high": [10, 10]}')
    assert next(iter(opened(str(tmp_path)).episodes()))["action"][1:].tolist() == [
        pytest.approx([-0.2, 0]),
        pytest.approx([0.4, 0]),
    ]


ODD_NPZ: dict[str, tuple[dict[str, Any], str]] = {
    "no action": ({"action": lambda a: None}, r"001.npz holds no 'action'"),
    "an observation short": (
        {"speed": lambda a: a["speed"][:-1]},
        "001.npz: speed has shape .* one observation more than actions",
    ),
    "as many observations as actions": (
        {k: (lambda a, k=k: a[k][:-1]) for k in ("speed", "image", "gear")},
        "one observation more",
    ),
    "another shape": ({"image": lambda a: a["image"][:, :8]}, "001.npz: image has shape"),
    "another dtype": (
        {"speed": lambda a: a["speed"].astype(np.float64)},
        "001.npz: speed is float64, and float32 in the first",
    ),
    "an entry less": ({"gear": lambda a: None}, "001.npz: gear is in it or in the first file, and not in both"),
    "an entry more": ({"more": lambda a: a["gear"]}, "001.npz: more is in it or in the first file"),
    "nan": ({"speed": lambda a: a["speed"] * np.nan}, "001.npz: it shows 'speed' with the value nan"),
    "a reward of nan": (
        {"reward": lambda a: a["reward"] * np.nan},
        "001.npz: the rewards are .* should be 5 finite numbers",
    ),
    "a reward short": ({"reward": lambda a: a["reward"][1:]}, "001.npz: 5 actions brought 4 rewards"),
    "an end in the middle": (
        {"terminated": lambda a: np.arange(5) == 2},
        "terminated is True after action 2 of 5: .* cut the file",
    ),
    "flags of another length": (
        {"truncated": lambda a: np.zeros(3, bool)},
        "truncated is one bool, or one for each of 5 actions",
    ),
    "objects": ({"gear": lambda a: np.array([None] * 6)}, "001.npz cannot be read"),
    "texts": ({"gear": lambda a: np.array(["x"] * 6)}, "001.npz: gear is <U1"),
    "an action below 0": ({"action": lambda a: a["action"] - 2}, "the actions are -2 to 3, and should be 0 to 3"),
    "told of another length": (
        {"told/place": lambda a: np.zeros((2, 1))},
        "told/place has 2 records, and the episode 6",
    ),
    "no step": ({k: (lambda a, k=k: a[k][:0]) for k in ("action", "reward")}, "001.npz: it has no action"),
}


@pytest.mark.parametrize("case", ODD_NPZ)
def test_npz_that_does_not_fit_is_one_sentence(case: str, tmp_path: Path) -> None:
    changed, told = ODD_NPZ[case]
    with pytest.raises(TaskError, match=told) as error:
        list(opened(str(saved(tmp_path / "a", **changed))).episodes())
    assert len(str(error.value).splitlines()) == 1 and len(str(error.value)) < 400


def test_files_that_are_none_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "a.npz").write_bytes(b"PK\x03\x04 and no more")
    (tmp_path / "empty").mkdir()
    with pytest.raises(TaskError, match=r"a.npz cannot be read"):
        opened(str(tmp_path / "cut"))
    with pytest.raises(TaskError, match=r"is no data set that can be read: it has neither meta/info.json"):
        opened(str(tmp_path / "empty"))
    with pytest.raises(TaskError, match="there is no kind 'csv'"):
        opened(str(tmp_path), kind="csv")
    with pytest.raises(TaskError, match="--keep is no option of npz data"):
        opened(str(saved(tmp_path / "a")), keep=["speed"])
    with pytest.raises(TaskError, match="drop names 'colour', but the observations are gear, image, speed"):
        opened(str(tmp_path / "a"), drop=["colour"])
    for text, told in (
        ("[", "is no JSON object"),
        ('{"fps": 3}', "says fps, and may say"),
        ('{"low": 1}', "give both"),
    ):
        (tmp_path / "a" / "about.json").write_text(text)
        with pytest.raises(TaskError, match=told):
            opened(str(tmp_path / "a"))


# ---- minari

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:minari")


def test_actions_together_are_those_one_by_one() -> None:
    rng = np.random.default_rng(0)
    space = spaces.Dict(
        {
            "turn": spaces.Discrete(4, start=-1),
            "keys": spaces.MultiDiscrete([[2, 3], [4, 5]], start=[[0, 1], [2, 3]]),
            "speed": spaces.Box(np.array([-1, 0, -np.inf], np.float32), np.array([3, np.inf, np.inf], np.float32)),
            "buttons": spaces.MultiBinary(3),
        }
    )
    natives = [space.sample() for _ in range(20)]
    natives = [one | {"speed": rng.uniform(0, 2, 3).astype(np.float32)} for one in natives]
    codec = ActionCodec(space)
    together = codec.encode_all({key: np.stack([one[key] for one in natives]) for key in space.spaces})
    assert (together == np.stack([codec.encode(one) for one in natives])).all()


def minari_of(
    monkeypatch: pytest.MonkeyPatch, home: Path, buffers: list[Any], name: str = "toy-v0", **more: Any
) -> Any:
    import minari

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(home))
    return minari.create_dataset_from_buffers(name, buffer=buffers, data_format="hdf5", **more)


def test_minari_leads_an_environment_to_the_same_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CartPole is stepped and written down with minari; the records' actions lead another one to what they show."""
    import gymnasium
    from minari.data_collector import EpisodeBuffer

    env, buffers, rng = gymnasium.make("CartPole-v1", max_episode_steps=30), [], np.random.default_rng(0)
    for seed in range(4):
        seen, actions, rewards, over, cut = [env.reset(seed=seed)[0]], [], [], [], []
        while not (over and (over[-1] or cut[-1])):
            actions.append(int(rng.integers(2)) if seed else int(seen[-1][2] + seen[-1][3] > 0))
            observation, reward, terminated, truncated, _ = env.step(actions[-1])
            seen.append(observation)
            rewards.append(float(reward))  # type: ignore[arg-type]
            over.append(terminated)
            cut.append(truncated)
        buffers.append(
            EpisodeBuffer(seed, seed, None, np.stack(seen), np.array(actions), rewards, over, cut, {})  # type: ignore[arg-type]
        )
    minari_of(monkeypatch, tmp_path, buffers, env=env)
    for source in ("toy-v0", str(tmp_path / "toy-v0")):
        data = opened(source)
        assert (data.who, data.task, data.count) == ("minari:toy-v0", "gym:CartPole-v1", 4)
        ends = []
        for seed, records in enumerate(data.episodes()):
            other = gymnasium.make("CartPole-v1", max_episode_steps=30)
            shown, _ = other.reset(seed=seed)
            assert (records["vector"][0] == shown).all()
            for t in range(1, len(records["first"])):
                action = decode_action(data.action_space, records["action"][t])
                shown, reward, terminated, truncated, _ = other.step(action)
                assert (records["vector"][t] == shown).all() and records["reward"][t] == reward
                assert (records["terminal"][t], records["last"][t]) == (terminated, terminated or truncated)
            ends.append(bool(records["terminal"][-1]))
        assert ends == [False, True, True, True]  # the first is balanced until its limit of time
    with make_vec("gym:CartPole-v1", 1) as envs:
        assert envs.observation_space == data.observation_space and envs.action_spec == data.action_spec


def test_minari_of_nested_spaces_and_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from minari.data_collector import EpisodeBuffer

    space = spaces.Dict({"arm": spaces.Dict({"speed": spaces.Box(-1, 1, (2,))}), "goal": spaces.Discrete(5, start=2)})
    action_space = spaces.Dict({"turn": spaces.Discrete(3), "push": spaces.Box(0, 10, (1,))})
    seen = {"arm": {"speed": np.linspace(0, 1, 8, dtype=np.float32).reshape(4, 2)}, "goal": np.array([2, 3, 4, 6])}
    taken = {"turn": np.array([0, 2, 1]), "push": np.array([[0.0], [5.0], [10.0]], np.float32)}
    buffer = EpisodeBuffer(0, 0, None, seen, taken, [0.0, 1.0, 2.0], [False] * 3, [False, False, True], {})
    minari_of(monkeypatch, tmp_path, [buffer], observation_space=space, action_space=action_space)
    (records,) = opened("toy-v0").episodes()
    assert records["goal"].tolist() == [0, 1, 2, 4] and (records["arm/speed"] == seen["arm"]["speed"]).all()  # type: ignore[index]
    assert records["action"].tolist() == [[0, 0, 0, 0], [1, 0, 0, -1], [0, 0, 1, 0], [0, 1, 0, 1]]
    assert records["last"].tolist() == [False, False, False, True] and not records["terminal"].any()


def test_minari_that_is_not_there_or_is_damaged_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from minari.data_collector import EpisodeBuffer

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    with pytest.raises(
        TaskError, match=r"there is no data set 'D4RL/door/human-v2' here: .*`minari download D4RL/door/human-v2`"
    ):
        opened("D4RL/door/human-v2")
    flags = {"terminations": [False, True, False], "truncations": [False, False, True]}
    buffer = EpisodeBuffer(
        0, 0, None, np.zeros((4, 2), np.float32), np.zeros((3, 1), np.float32), [0.0] * 3, **flags, infos={}
    )
    spaces_of = {"observation_space": spaces.Box(-1, 1, (2,)), "action_space": spaces.Box(-1, 1, (1,))}
    minari_of(monkeypatch, tmp_path, [buffer], **spaces_of)
    with pytest.raises(TaskError, match="episode 0 ends after action 1 of 3 and goes on"):
        list(opened("toy-v0").episodes())
    (tmp_path / "toy-v0" / "data" / "main_data.hdf5").write_bytes(b"nothing")
    with pytest.raises(TaskError, match=r"^(Minari cannot open|episode 0 cannot be read)"):
        list(opened("toy-v0").episodes())


# ---- lerobot


@pytest.fixture(params=["v2.1", "v3.0"])
def robot(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """3 episodes of 5 to 7 frames at 10 fps, as tests/lerobot/make.py had lerobot write them; a copy."""
    return Path(shutil.copytree(HERE / request.param, tmp_path / request.param))


def test_lerobot_is_read_as_it_was_written(robot: Path) -> None:
    data = opened(str(robot))
    assert data.who == "lerobot" and data.count == 3 and data.protocol["fps"] == 10
    assert set(data.observation_space.spaces) == {"images.top", "state"}
    for e, (records, length) in enumerate(zip(data.episodes(), (5, 7, 6), strict=True)):
        shown = [*range(length), length - 1]  # the last frame again, for the reward of the last action
        assert records["state"].tolist() == [[e, t] for t in shown]
        bright = (records["images.top"][:, 32, :, 0] > 80).sum(-1)  # the bar has t + 1 eighths of the width
        assert bright.tolist() == pytest.approx([8 * (t + 1) for t in shown], abs=2)
        low, high = data.action_space.low, data.action_space.high
        assert low.tolist() == [0, -6] and high.tolist() == [25, 0]
        native = (records["action"][1:] + 1) / 2 * (high - low) + low
        assert native.tolist() == [pytest.approx([10 * e + t, -t], abs=1e-5) for t in range(length)]
        assert records["reward"].tolist() == [0, *(0.5 * t for t in range(length))]
        assert records["terminal"].tolist() == [False] * length + [True] and records["last"][-1]


def test_lerobot_columns_can_be_chosen(robot: Path) -> None:
    assert set(opened(str(robot), keep=["observation.state"]).observation_space.spaces) == {"state"}
    assert set(opened(str(robot), drop=["state"]).observation_space.spaces) == {"images.top"}
    assert not any(
        one["terminal"].any() for one in opened(str(robot), drop=["images.top"], ends="truncated").episodes()
    )
    with pytest.raises(TaskError, match=r"--keep names 'observation.force', and the columns are"):
        opened(str(robot), keep=["observation.force"])


def info(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def changed(folder: Path) -> None:
        path = folder / "meta" / "info.json"
        found = json.loads(path.read_text())
        change(found)
        path.write_text(json.dumps(found))

    return changed


def table(change: Callable[[Any], Any], episode: int = 1) -> Callable[[Path], None]:
    """Of the data of an episode, or of all where one file has them."""

    def changed(folder: Path) -> None:
        import pyarrow.parquet as pq

        files = sorted((folder / "data").glob("*/*.parquet"))
        path = files[episode if len(files) > 1 else 0]
        pq.write_table(change(pq.read_table(path)), path)

    return changed


def shifted(rows: Any) -> Any:
    """Every later timestamp of an episode is three frames late."""
    import pyarrow as pa

    stamps = np.array(rows.column("timestamp")) + 0.3 * (np.array(rows.column("frame_index")) > 2)
    return rows.set_column(rows.column_names.index("timestamp"), "timestamp", pa.array(stamps.astype(np.float32)))


def holed(rows: Any) -> Any:
    import pyarrow as pa

    values = rows.column("next.reward").to_pylist()
    return rows.set_column(rows.column_names.index("next.reward"), "next.reward", pa.array([None, *values[1:]]))


ODD_ROBOTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "another format": (
        info(lambda i: i.update(codebase_version="v1.6")),
        "has LeRobot's format v1.6, and v2.0, v2.1, v3.0 are read",
    ),
    "no features": (info(lambda i: i.pop("features")), "is not what LeRobot writes"),
    "no action": (info(lambda i: i["features"].pop("action")), "has no column 'action'"),
    "no JSON": (lambda f: (f / "meta" / "info.json").write_text("{"), "is not what LeRobot writes"),
    "another fps": (
        info(lambda i: i.update(fps=30)),
        "(do not follow each other at 30 fps: frames are missing, or fps|10 frames a second, and fps is 30) in info.json",
    ),
    "a column that is not there": (
        info(lambda i: i["features"].update({"observation.force": {"dtype": "float32", "shape": [1], "names": None}})),
        "has no column 'observation.force', which info.json names",
    ),
    "another shape": (
        info(lambda i: i["features"]["observation.state"].update(shape=[3])),
        r"observation.state is not float32 \(3,\)",
    ),
    "a frame missing": (
        table(lambda rows: rows.slice(0, rows.num_rows - 1), 2),
        "episode 2 has 5 frames in .* and 6 by meta/: frames are missing",
    ),
    "a gap in time": (table(shifted), "frames 2 and 3 do not follow each other at 10 fps"),
    "a value missing": (table(holed), "next.reward lacks 1 of"),
    "no data": (lambda f: max((f / "data").glob("*/*.parquet")).unlink(), "lacks its data: .* is missing"),
    "no parquet": (lambda f: min((f / "data").glob("*/*.parquet")).write_bytes(b"PAR1"), "cannot be read"),
    "no video": (lambda f: next((f / "videos").rglob("*.mp4")).unlink(), "lacks its video: .* is missing"),
    "no mp4": (
        lambda f: next((f / "videos").rglob("*.mp4")).write_bytes(b"no video"),
        "is no video that can be decoded",
    ),
    "no episodes": (
        lambda f: [
            shutil.rmtree(f / "meta" / "episodes", ignore_errors=True),
            (f / "meta" / "episodes.jsonl").unlink(missing_ok=True),
        ],
        "meta/episodes",
    ),
}


@pytest.mark.parametrize("case", ODD_ROBOTS)
def test_lerobot_that_does_not_fit_is_one_sentence(case: str, robot: Path) -> None:
    change, told = ODD_ROBOTS[case]
    change(robot)
    with pytest.raises(TaskError, match=told) as error:
        list(opened(str(robot)).episodes())
    assert len(str(error.value).splitlines()) == 1


def write_video(path: Path, count: int, rate: int) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width = stream.height = 64
        for _ in range(count):
            for packet in stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), "rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


@pytest.mark.parametrize(
    ("count", "rate", "told"),
    [(3, 10, "holds 3 frames of the episode, which has 5"), (5, 30, "runs at 30 frames a second, and fps is 10")],
)
def test_a_video_of_another_length_or_rate_is_one_sentence(count: int, rate: int, told: str, robot: Path) -> None:
    write_video(min((robot / "videos").rglob("*.mp4")), count, rate)
    with pytest.raises(TaskError, match=f"episode 0: observation.images.top: .*{told}"):
        list(opened(str(robot)).episodes())
