"""What a replay cannot do, each in one sentence, and nothing is changed by it."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from wm_run.replay import ReplayError
from wm_run.testing.replays import (
    STREAMS,
    build,
    committed,
    filled,
    reread,
    step,
)


def damage(folder: Path, how: str) -> None:
    path = sorted(folder.glob("*.chunk"))[1]
    if how == "missing":
        path.unlink()
    elif how == "short":
        os.truncate(path, 100)
    elif how in ("schema.json", "commit.json"):
        os.truncate(folder / how, 9)
    elif how == "schema":
        described = json.loads((folder / "schema.json").read_text())
        described["entries"][0]["shape"] = [7]
        (folder / "schema.json").write_text(json.dumps(described))
    else:
        (folder / "schema.json").unlink()


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("missing", "is missing.*put it back"),
        ("short", "cut short.*put it back"),
        ("schema", "other entries"),
        ("gone", "no replay in"),
        ("schema.json", r"schema\.json is not what was saved"),
        ("commit.json", r"commit\.json is not what was saved"),
    ],
)
def test_a_damaged_folder_is_refused(tmp_path: Path, how: str, says: str) -> None:
    _, state = committed(tmp_path, 30)
    damage(tmp_path, how)
    with pytest.raises(ReplayError, match=says):
        reread(tmp_path, state)


@pytest.mark.parametrize("where", ["sealed", "open"])
def test_one_flipped_byte_is_found_and_the_folder_is_left_as_it_is(tmp_path: Path, where: str) -> None:
    """In every entry in turn; what lies behind the write head of the open chunk belongs to nobody."""
    replay, state = committed(tmp_path, 29)
    number = 1 if where == "sealed" else 3  # 29 = 3 chunks of 8, and 5 steps
    for key in sorted(step(0)):
        raw = replay._chunks.held[number].columns[key][1, 4:5].reshape(-1).view(np.uint8)  # noqa: SLF001
        raw[-1] ^= 1
        files = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
        with pytest.raises(ReplayError, match=f"0000000{number}.chunk is not what was saved .*'{key}'.*--init-from"):
            reread(tmp_path, state)
        assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == files
        raw[-1] ^= 1
    replay._chunks.held[3].columns["reward"][1, 5] = 7  # noqa: SLF001
    assert reread(tmp_path, state).steps == 29 * STREAMS


@pytest.mark.parametrize(("name", "value"), [("streams", 2), ("chunk", 16), ("length", 5)])
def test_another_shape_is_refused(tmp_path: Path, name: str, value: int) -> None:
    state = filled(tmp_path, 30).state()
    with pytest.raises(ReplayError, match=f"{name}="):
        reread(tmp_path, state, **{name: value, "chunks": 40})


def test_a_folder_of_another_model_is_refused(tmp_path: Path) -> None:
    state = filled(tmp_path, 30).state()
    with pytest.raises(ReplayError, match="another model"):
        reread(tmp_path, state, stores={"hidden": 1})


@pytest.mark.parametrize(("number", "says"), [(1, "older wm-core"), (4, "newer wm-core")])
def test_another_format_is_refused(tmp_path: Path, number: int, says: str) -> None:
    state = filled(tmp_path, 30).state() | {"format": number}
    with pytest.raises(ReplayError, match=f"{says}.*--init-from"):
        reread(tmp_path, state)


def test_too_little_data_is_said() -> None:
    for steps in (0, 3):
        replay = filled(None, steps)
        assert not replay.ready(4)
        with pytest.raises(ReplayError, match=f"holds {steps} per stream"):
            replay.sample(1, 4)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"reward": np.zeros(STREAMS)}, "float64"),
        ({"reward": np.zeros(2, np.float32)}, "(2,)"),
        ({"more": np.zeros(STREAMS)}, "more"),
    ],
)
def test_a_step_that_differs_from_the_first_is_refused_and_changes_nothing(change: dict[str, Any], says: str) -> None:
    replay = filled(None, 3)
    with pytest.raises(ReplayError) as error:
        replay.add({**step(3), **change})
    assert says in str(error.value) and replay.steps == 3 * STREAMS


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"weight": np.ones(STREAMS)}, "made by `sample`"),
        ({"reward": np.array(["a", "b", "c"])}, "cannot store 'reward'"),
        ({"reward": torch.zeros(STREAMS, dtype=torch.bfloat16)}, "float16"),
        ({"reward": np.zeros(5)}, "3 streams"),
    ],
)
def test_a_first_step_that_cannot_be_stored_is_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ReplayError, match=says):
        build(None).add({**step(0), **change})


def test_a_step_without_what_the_dynamics_stores_is_refused() -> None:
    values = step(0)
    del values["key"], values["first"]
    with pytest.raises(ReplayError, match=r"\['first', 'key'\]"):
        build(None).add(values)


def test_a_limit_below_two_chunks_is_refused() -> None:
    with pytest.raises(ReplayError, match=r"raise the limit .*, shorten the chunks"):
        build(None, chunks=1).add(step(0))


def test_annotating_the_wrong_thing_is_refused() -> None:
    replay = filled(None, 10)
    index = replay.sample(2, 4).index
    with pytest.raises(ReplayError, match="holds"):
        replay.annotate(index, nothing=np.zeros((2, 4)))
    with pytest.raises(ReplayError, match="float32"):
        replay.annotate(index, key=np.zeros((2, 4, 3), np.float32))
    with pytest.raises(ReplayError, match="cannot annotate"):
        replay.annotate(index, key=np.zeros((3, 4, 3), np.float16))


def test_a_full_disk_stops_the_run_before_anything_older_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replay = filled(tmp_path, 32)  # four chunks, the budget: the next one would evict

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("wm_run.chunks._reserve", full)
        with pytest.raises(ReplayError, match="free some disk space"):
            replay.add(step(32))
    assert replay.steps == 32 * STREAMS and len(list(tmp_path.glob("*.chunk"))) == 4
    assert reread(tmp_path, replay.state()).steps == 32 * STREAMS
    replay.add(step(32))  # room again: it goes on
    assert replay.steps == 25 * STREAMS
