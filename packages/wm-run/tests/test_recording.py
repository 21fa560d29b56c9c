"""Recordings against a Python list of records, and their folders against everything that can be wrong with them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from wm_core.errors import UserError
from wm_run.recorder import Writer
from wm_run.recording import About, ActionSizes, Recording
from wm_run.spaces import described, restored
from wm_run.tally import Recorded

SPACE = spaces.Dict({"image": spaces.Box(0, 255, (4, 4, 3), np.uint8), "door": spaces.Discrete(7)})
ABOUT = About(SPACE, spaces.Discrete(3), ActionSizes((3,)), task="toy", repeat=2, protocol={"name": "toy"})
SOURCE = [{"who": "random", "share": 1.0, "steps": 1, "seed": 0}]


def records(streams: int, count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Records of episodes of 2 to 6 actions, every entry drawn."""
    rng = np.random.default_rng(seed)
    left, over, found = np.zeros(streams, int), np.ones(streams, bool), []
    for _ in range(count):
        first, left = over, np.where(over, rng.integers(2, 7, streams), left - 1)
        over = left == 0
        action = np.eye(3, dtype=np.float32)[rng.integers(3, size=streams)] * ~first[:, None]
        found.append(
            {
                "image": rng.integers(256, size=(streams, 4, 4, 3), dtype=np.uint8),
                "door": rng.integers(7, size=streams),
                "action": action.astype(np.float32),
                "reward": (rng.random(streams) * ~first).astype(np.float32),
                "first": first,
                "last": over,
                "terminal": over & (rng.random(streams) < 0.5),
                "told/place": rng.random((streams, 2)).astype(np.float32),
            }
        )
    return found


def written(
    folder: Path, train: list[dict[str, Any]], held_out: list[dict[str, Any]], about: About = ABOUT
) -> Recording:
    writer = Writer(folder, about, streams={"train": len(train[0]["first"])})
    for part, all_of in (("train", train), ("held_out", held_out)):
        for record in all_of:
            writer.add(part, record)
    writer.finish(SOURCE)
    return Recording.open(folder)


def episode_of(all_of: list[dict[str, Any]], episode: Recorded) -> dict[str, Any]:
    chosen = all_of[episode.start : episode.start + episode.length + 1]
    return {key: np.stack([one[key][episode.stream] for one in chosen]) for key in chosen[0]}


@pytest.fixture
def small(tmp_path: Path) -> Recording:
    return written(tmp_path / "small", records(3, 50), records(1, 30, seed=1))


def test_records_blocks_and_rows_are_those_of_a_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wm_run.recorder.CHUNK", range(3, 4))  # seven chunks
    train, held_out = records(3, 50), records(1, 30, seed=1)
    recording = written(tmp_path / "a", train, held_out)
    for part, all_of in (("train", train), ("held_out", held_out)):
        for mine, theirs in zip(recording.records(part), all_of, strict=True):
            assert mine.keys() == theirs.keys() and all((mine[key] == theirs[key]).all() for key in theirs)
        assert sum(block["first"].shape[1] for block in recording.blocks(part)) == len(all_of)
        batch = recording.rows(part, batch=40, length=5, past=4, seed=7)
        assert batch.past is not None
        for b, (stream, start) in enumerate(zip(batch.index.stream.tolist(), batch.index.start.tolist(), strict=True)):
            for key in all_of[0]:
                expected = np.stack([one[key][stream] for one in all_of[start : start + 5]])
                assert (batch.steps[key][b].numpy() == expected).all()
            for p in range(4):
                at = start - 4 + p
                assert batch.past.valid[b, p] == (at >= 0)
                assert (batch.past.action[b, p].numpy() == (all_of[at]["action"][stream] if at >= 0 else 0)).all()
        again, other = (recording.rows(part, 40, 5, 4, seed=seed).index.start for seed in (7, 8))
        assert (again == batch.index.start).all() and (other != batch.index.start).any()


def test_every_place_of_a_row_is_drawn(small: Recording) -> None:
    starts = set(small.rows("held_out", batch=2000, length=27).index.start.tolist())
    assert starts == {0, 1, 2, 3}


def test_episodes_are_told_from_the_records(small: Recording) -> None:
    train = records(3, 50)
    found = small.episodes("train")
    assert sum(one.length for one in found) * 2 == small.steps("train")
    assert sum(one.length + 1 for one in found) == 150  # every record is of one episode
    for one in found:
        its = episode_of(train, one)
        assert its["first"].tolist() == [True] + [False] * one.length
        how = "cut" if not its["last"][-1] else "terminal" if its["terminal"][-1] else "truncated"
        assert one.ended == how and one.score == pytest.approx(its["reward"].sum())
        kept = small.part("train").episode(one)
        assert all((kept[key] == its[key]).all() for key in its)


def test_an_episode_at_once_is_its_records_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wm_run.recorder.CHUNK", range(3, 4))
    all_of = records(1, 90)
    all_of = all_of[: max(t for t, record in enumerate(all_of) if record["last"][0]) + 1]
    one = written(tmp_path / "one", all_of, [])
    writer = Writer(tmp_path / "whole", ABOUT)
    for episode in one.episodes("train"):
        writer.episode("train", episode_of(all_of, episode))
    writer.finish(SOURCE)
    whole = Recording.open(tmp_path / "whole")
    assert whole.checksum == one.checksum and len(one.part("train").chunks.held) > 9
    assert [e._replace(score=0) for e in whole.episodes("train")] == [
        e._replace(score=0) for e in one.episodes("train")
    ]


def test_reading_changes_nothing_and_needs_no_right_to_write(small: Recording) -> None:
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in small.folder.rglob("*") if path.is_file()}
    for path in before:
        path.chmod(0o444)
    again = Recording.open(small.folder)
    again.verify()
    with pytest.raises(ValueError, match="read-only"):
        next(again.blocks("train"))["first"][:] = True
    for record in again.records("train"):
        record["first"][:] = True  # a copy
    again.verify()
    assert before == {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in before}


def test_the_checksum_is_of_what_can_be_learned(tmp_path: Path) -> None:
    train = records(2, 20)
    one, same = (written(tmp_path / name, train, []) for name in "ab")
    assert one.checksum == same.checksum
    train[7]["reward"] = train[7]["reward"] + 1
    assert written(tmp_path / "c", train, []).checksum != one.checksum


def test_what_it_is_of_comes_back_as_it_was(tmp_path: Path) -> None:
    native = spaces.Dict({"b": spaces.Box(-1, 1, (2,)), "a": spaces.MultiDiscrete([2, 3], start=[1, 0])})
    about = About(
        SPACE,
        native,
        ActionSizes((2, 3), 2),
        "toy:x",
        4,
        {"n": np.int64(3)},
        {"size": 4},
        sources={"image": (("eye", "left"), spaces.Box(0, 1, (4, 4, 3)))},
        unseen=frozenset({("mission",)}),
    )
    all_of = records(1, 5)
    for one in all_of:
        one["action"] = np.zeros((1, 7), np.float32)
    found = written(tmp_path / "a", all_of, [], about).about
    assert found.protocol == {"n": 3}
    assert found == About(**{**vars(about), "protocol": {"n": 3}})


def test_a_writer_goes_on_from_where_it_was_saved(tmp_path: Path) -> None:
    train, held_out = records(3, 50), records(1, 30, seed=1)
    unbroken = written(tmp_path / "unbroken", train, held_out)
    for saved, lost in ((0, 5), (20, 20), (20, 45), (49, 50)):
        folder = tmp_path / f"{saved}-{lost}"
        writer = Writer(folder, ABOUT, streams={"train": 3})
        for t, record in enumerate(train[:lost]):
            if t == saved:
                writer.save({"t": t})
            writer.add("train", record)
        with pytest.raises(UserError, match="is not finished: repeat the command"):
            Recording.open(folder)
        writer = Writer(folder, ABOUT, streams={"train": 3})
        for record in train[writer.saved["t"] if writer.saved else 0 :]:
            writer.add("train", record)
        writer.save("between")
        for record in held_out:
            writer.add("held_out", record)
        writer.finish(SOURCE)
        names = sorted(path.relative_to(folder) for path in folder.rglob("*"))
        assert names == sorted(path.relative_to(unbroken.folder) for path in unbroken.folder.rglob("*"))
        for name in names:
            if (folder / name).is_file():
                assert (folder / name).read_bytes() == (unbroken.folder / name).read_bytes(), name


@pytest.mark.parametrize(
    ("space"),
    [
        spaces.Box(np.array([-np.inf, 0.1, -1e-30], np.float32), np.array([np.inf, 0.3, 3e38], np.float32)),
        spaces.Box(-np.pi, np.pi, (2, 3), np.float64),
        spaces.Box(0, 2**63 - 1, (2,), np.int64),
        spaces.Discrete(4, start=-3),
        spaces.MultiDiscrete([[2, 3], [4, 5]]),
        spaces.MultiBinary((2, 3)),
        spaces.MultiBinary(3),
        spaces.Tuple([spaces.Discrete(2), spaces.Dict({"z": spaces.Discrete(3), "a": spaces.Box(0, 1, ())})]),
    ],
)
def test_spaces_come_back_exactly(space: Any) -> None:
    again = restored(json.loads(json.dumps(described(space), allow_nan=False)))
    assert again == space and again.dtype == space.dtype and again.shape == space.shape
    if isinstance(space, spaces.Box):
        assert (again.low == space.low).all() and (again.high == space.high).all()


def test_the_order_of_keys_comes_back() -> None:
    from collections import OrderedDict

    space = spaces.Dict(OrderedDict([("b", spaces.Discrete(2)), ("a", spaces.Discrete(3))]))
    assert list(restored(described(space)).spaces) == ["b", "a"]


def test_a_space_that_cannot_be_written_down_is_one_sentence() -> None:
    with pytest.raises(UserError, match=r"^the space Text\(.*cannot be written down: use Box"):
        described(spaces.Text(5))
    with pytest.raises(UserError, match="is the description of no space"):
        restored({"kind": "Graph"})


def damage_chunk(folder: Path) -> None:
    path = next((folder / "train").glob("*.chunk"))
    data = bytearray(path.read_bytes())
    data[3] ^= 1
    path.write_bytes(data)


def cut_chunk(folder: Path) -> None:
    path = next((folder / "train").glob("*.chunk"))
    path.write_bytes(path.read_bytes()[:-1])


def alter(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


ODD = {
    "nothing": (shutil.rmtree, "there is no recording in .*: `wm-run collect` makes one"),
    "no chunk": (
        lambda folder: next((folder / "train").glob("*.chunk")).unlink(),
        "is missing: copy the recording again",
    ),
    "a chunk cut short": (cut_chunk, "is cut short .*: copy the recording again"),
    "a chunk altered": (damage_chunk, "the checksum of 'action' differs.*copy the recording again"),
    "no state": (lambda folder: (folder / "held_out.json").unlink(), "held_out.json is missing"),
    "no JSON": (lambda folder: (folder / "recording.json").write_text("{"), "is not what was saved: copy"),
    "a list": (lambda folder: (folder / "recording.json").write_text("[1]"), "is not what was saved: copy"),
    "another format": (
        lambda folder: (folder / "recording.json").write_text('{"format": 9}'),
        "has format 9 and this wm-run reads 1",
    ),
    "a number that is none": (
        lambda folder: (folder / "train.json").write_text('{"streams": "x", "position": 3}'),
        "is not what was saved",
    ),
    "a schema that is none": (lambda folder: alter(folder / "train.json", schema="{"), "is not what was saved"),
    "entries lack": (lambda folder: (folder / "recording.json").write_text('{"format": 1}'), "is not what was saved"),
}


@pytest.mark.parametrize("case", ODD)
def test_a_folder_that_is_no_recording_is_one_sentence(case: str, small: Recording) -> None:
    change, told = ODD[case]
    change(small.folder)
    with pytest.raises(UserError, match=told) as error:
        Recording.open(small.folder).verify()
    assert len(str(error.value).splitlines()) == 1


def test_rows_longer_than_the_part_and_unknown_parts_are_refused(small: Recording) -> None:
    with pytest.raises(UserError, match="a row of 31 records was asked of held_out, which holds 30"):
        small.rows("held_out", 2, 31)
    with pytest.raises(UserError, match="no part 'test': it has train and held_out"):
        small.episodes("test")


def test_a_finished_folder_and_another_request_are_refused(small: Recording, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds a finished recording"):
        Writer(small.folder, ABOUT)
    writer = Writer(tmp_path / "b", ABOUT, asked={"steps": 10})
    writer.add("train", records(1, 1)[0])
    writer.save()
    with pytest.raises(UserError, match="was begun with steps 10, which became 20: give the same again"):
        Writer(tmp_path / "b", ABOUT, asked={"steps": 20})


def test_an_empty_recording_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing was recorded for train"):
        Writer(tmp_path / "a", ABOUT).finish(SOURCE)


def an_episode(**changed: Any) -> dict[str, Any]:
    all_of = records(1, 40)
    tally = [t for t, one in enumerate(all_of) if one["first"][0]]
    begin, end = tally[1], tally[2]
    whole = {key: np.stack([one[key][0] for one in all_of[begin:end]]) for key in all_of[0]}
    for key, change in changed.items():
        whole[key] = change(whole[key].copy())
    return whole


def put(at: int, value: Any) -> Any:
    def change(array: np.ndarray) -> np.ndarray:
        array[at] = value
        return array

    return change


BROKEN = {
    "two firsts": (
        {"first": put(1, True)},
        "'first' is True in the first record of an episode alone, not True in record 1",
    ),
    "no first": ({"first": put(0, False)}, "not False in record 0"),
    "last in the middle": ({"last": put(1, True)}, "'last' is True in record 1 of"),
    "terminal in the middle": ({"terminal": put(1, True)}, "'terminal' is True in record 1 of"),
    "terminal and not last": (
        {"terminal": put(-1, True), "last": put(-1, False)},
        "'terminal' is True in record .* which is not the last one",
    ),
    "action at first": ({"action": put(0, [1, 0, 0])}, "has action 0, for nothing led to it"),
    "reward at first": ({"reward": put(0, 1)}, "has reward 0, for nothing led to it"),
    "no one-hot": ({"action": put(1, [0.5, 0.5, 0])}, "entries 0 to 2 of an action are a one-hot"),
    "nan": ({"reward": put(1, np.nan)}, "'reward' holds nan in record 1"),
    "another dtype": ({"image": lambda one: one.astype(np.float32)}, "'image' is float32 .* should be uint8"),
    "another shape": ({"image": lambda one: one[:, :2]}, r"'image' is uint8 \(\d, 2, 4, 3\)"),
    "a record short": ({"door": lambda one: one[1:]}, "'door' is int64"),
    "a told entry short": ({"told/place": lambda one: one[1:]}, "'told/place' has"),
    "a door too many": ({"door": put(1, 7)}, "'door' holds 7, and has 7 values from 0 on"),
    "flags that are no bools": (
        {"last": lambda one: one.astype(np.float32)},
        "'last' of an episode is one bool a record",
    ),
    "one record": (
        {key: (lambda one: one[:1]) for key in ("first", "last", "terminal")},
        "at least one action, so two records",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_an_episode_that_is_none_is_one_sentence(case: str, tmp_path: Path) -> None:
    changed, told = BROKEN[case]
    writer = Writer(tmp_path / "a", ABOUT)
    writer.episode("train", an_episode())
    with pytest.raises(UserError, match=told) as error:
        writer.episode("train", an_episode(**changed))
    assert re.fullmatch(r"[^\n]{20,300}", str(error.value))
    writer.finish(SOURCE)
    assert len(Recording.open(tmp_path / "a").episodes("train")) == 1  # and nothing of it was kept
