"""Replay against a Python list of steps, and the folder against everything that can happen to it."""

from __future__ import annotations

import errno
import gc
import json
import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from wm_core.replay import Replay, ReplayError
from wm_core.run import checkpoint
from wm_core.types import Index

STREAMS, CHUNK, LENGTH = 3, 8, 6
STORES = {"key": 10, "deter": 1}
KEYS = {"action", "reward", "first", "last", "image", "count", "key", "deter"}


def step(t: int, streams: int = STREAMS) -> dict[str, Any]:
    """A step that names its stream and time in every entry."""
    stream = np.arange(streams)
    first = (t + stream) % 5 == 0
    return {
        "action": np.stack([stream, np.full(streams, t)], 1).astype(np.float32),
        "reward": (100 * stream + t).astype(np.float32),
        "first": first,
        "last": (t + 1 + stream) % 5 == 0,
        "image": np.broadcast_to(((t + 50 * stream) % 256)[:, None, None, None], (streams, 2, 2, 3)).astype(np.uint8),
        "count": stream * 10**10 + t,
        "key": torch.from_numpy(np.stack([stream, np.full(streams, t), stream + t], 1).astype(np.float16)),
        "deter": (stream - t)[:, None].astype(np.float16),
    }


def numpy_of(value: Any) -> np.ndarray:
    return value.numpy() if isinstance(value, torch.Tensor) else np.asarray(value)


class Listed:
    """What replay should hold: a dictionary of steps by (stream, position)."""

    def __init__(self, kept_chunks: int) -> None:
        self.kept = kept_chunks
        self.all: dict[tuple[int, int], dict[str, np.ndarray]] = {}
        self.position = self.oldest = 0

    def add(self, values: dict[str, Any]) -> None:
        for stream in range(STREAMS):
            self.all[stream, self.position] = {k: numpy_of(v)[stream].copy() for k, v in values.items()}
        self.oldest = max(0, self.position // CHUNK - self.kept + 1) * CHUNK
        self.position += 1

    def check(self, batch: Any, length: int, past: int) -> None:
        for row, (stream, start) in enumerate(
            zip(batch.index.stream.tolist(), batch.index.start.tolist(), strict=True)
        ):
            assert self.oldest <= start and start + length <= self.position
            for t in range(length):
                expected = self.all[stream, start + t]
                for key in KEYS:
                    np.testing.assert_array_equal(batch.steps[key][row, t].numpy(), expected[key], key)
                alone = t == 0 and (past == 0 or start == self.oldest)
                assert bool(batch.steps["reset"][row, t]) == (bool(expected["first"]) or alone)
            if past == 0:
                continue
            for slot in range(past):
                where = start - past + slot
                held = where >= self.oldest
                assert bool(batch.past.valid[row, slot]) == held
                for key, value in (("action", batch.past.action), ("first", batch.past.first)):
                    wanted_here: Any = self.all[stream, where][key] if held else 0
                    np.testing.assert_array_equal(value[row, slot].numpy(), wanted_here)
            assert batch.past.stored.keys() == STORES.keys()
            for name, wanted in STORES.items():
                value, size = batch.past.stored[name], min(past, wanted)
                assert value.shape[1] == size
                for slot in range(size):
                    where = start - size + slot
                    wanted_here = self.all[stream, where][name] if where >= self.oldest else 0
                    np.testing.assert_array_equal(value[row, slot].numpy(), wanted_here)


def chunk_bytes() -> int:
    probe = Replay(None, STREAMS, stores=STORES, limit_bytes=10**9, chunk=CHUNK, length=LENGTH)
    probe.add(step(0))
    return 64 * sum(-(-STREAMS * CHUNK * numpy_of(v)[0].nbytes // 64) for v in step(0).values())


def build(folder: Path | None, chunks: int = 4, **options: Any) -> Replay:
    options = dict[str, Any](chunk=CHUNK, length=LENGTH, stores=STORES, streams=STREAMS) | options
    return Replay(folder, limit_bytes=chunks * chunk_bytes(), **options)


def filled(folder: Path | None, steps: int, **options: Any) -> Replay:
    replay = build(folder, **options)
    for t in range(steps):
        replay.add(step(t))
    return replay


@pytest.mark.parametrize("where", ["memory", "folder"])
@pytest.mark.parametrize("seed", range(3))
def test_rows_equal_a_list_of_steps(tmp_path: Path, where: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    replay, listed = build(tmp_path / "replay" if where == "folder" else None, seed=seed), Listed(4)
    earlier: list[Any] = []
    for _ in range(60):
        for _ in range(rng.integers(1, 5)):
            values = step(replay.steps)  # any number will do
            replay.add(values)
            listed.add(values)
        assert replay.steps == STREAMS * (listed.position - listed.oldest)
        length, past = int(rng.choice([1, 3, LENGTH, 11])), int(rng.choice([0, 1, 4, 10, 30]))
        assert replay.ready(length) == (listed.position - listed.oldest >= length)
        if not replay.ready(length):
            continue
        batch = replay.sample(5, length, past)
        listed.check(batch, length, past)
        earlier.append((batch.index, length))
        index, length = earlier[rng.integers(len(earlier))]  # often evicted in part or whole
        fresh = rng.normal(size=(5, length, 3)).astype(np.float16)
        replay.annotate(index, key=torch.from_numpy(fresh))
        for row, (stream, start) in enumerate(zip(index.stream.tolist(), index.start.tolist(), strict=True)):
            for t in range(length):
                if start + t >= listed.oldest:
                    listed.all[stream, start + t]["key"] = fresh[row, t]
    assert listed.oldest > 0


def test_sampling_is_uniform_over_all_row_starts_of_all_streams() -> None:
    replay = filled(None, 61, online=False)
    starts = 61 - 32 - LENGTH + 1  # 4 chunks of 8 are held: positions 32 to 60
    assert replay.steps == STREAMS * 29
    count: Counter[tuple[int, int]] = Counter()
    draws = 200 * starts * STREAMS
    for _ in range(draws // 200):
        index = replay.sample(200, LENGTH).index
        count.update(zip(index.stream.tolist(), index.start.tolist(), strict=True))
    assert set(count) == {(s, t) for s in range(STREAMS) for t in range(32, 32 + starts)}
    chi = sum((n - 200) ** 2 / 200 for n in count.values())
    freedom = starts * STREAMS - 1
    assert abs(chi - freedom) < 4 * (2 * freedom) ** 0.5  # mean and spread of a chi-square


def test_the_online_queue_serves_every_step_once_and_soon() -> None:
    replay = build(None, chunks=40)
    waiting: list[tuple[int, int]] = []
    served: list[tuple[int, int]] = []
    for t in range(10 * LENGTH):
        replay.add(step(t))
        if (t + 1) % LENGTH == 0:
            waiting += [(stream, t + 1 - LENGTH) for stream in range(STREAMS)]
        if t % 4 == 3 and replay.ready(LENGTH):
            index = replay.sample(5, LENGTH).index
            rows = list(zip(index.stream.tolist(), index.start.tolist(), strict=True))
            assert rows[: len(waiting)] == waiting[:5]
            served += rows[: len(waiting)]
            waiting = waiting[5:]
    assert not waiting
    steps = Counter((stream, start + t) for stream, start in served for t in range(LENGTH))
    assert steps == Counter({(s, t): 1 for s in range(STREAMS) for t in range(10 * LENGTH)})


def test_queued_rows_come_before_uniform_ones_and_only_at_their_length() -> None:
    replay = filled(None, 3 * LENGTH)
    replay.sample(50, LENGTH + 1)
    index = replay.sample(9, LENGTH).index
    assert index.start.tolist() == [t for t in (0, LENGTH, 2 * LENGTH) for _ in range(STREAMS)]
    assert index.stream.tolist() == [0, 1, 2] * 3
    starts = replay.sample(200, LENGTH).index.start
    assert len(set(starts.tolist())) == 2 * LENGTH + 1
    off = filled(None, 3 * LENGTH, online=False)
    assert off.sample(9, LENGTH).index.start.tolist() != index.start.tolist()


def test_queued_rows_that_were_evicted_are_not_served() -> None:
    replay = filled(None, 100, chunks=2)
    oldest = 100 - replay.steps // STREAMS
    assert replay.sample(60, LENGTH).index.start.min() >= oldest > 0


def test_the_past_crosses_episodes_and_is_padded_on_the_left() -> None:
    replay = filled(None, 12, online=False)
    batch = replay.sample(64, 4, past=7)
    assert batch.past is not None
    whole = batch.past.valid.all(1)
    assert whole.any() and batch.past.first[whole].any(1).all()  # every 5 steps an episode begins
    padded = batch.past.action[~batch.past.valid]
    assert len(padded) and not padded.any()
    assert (batch.past.valid[:, 1:] >= batch.past.valid[:, :-1]).all()


def test_a_row_with_past_is_not_reset_and_one_without_is() -> None:
    replay = filled(None, 12, online=False)
    batch = replay.sample(64, 4, past=1)
    assert batch.past is not None
    reset, first = batch.steps["reset"][:, 0], batch.steps["first"][:, 0]
    begins = batch.index.start == 0
    assert begins.any() and reset[begins].all()
    assert torch.equal(reset[~begins], first[~begins]) and not first[~begins].all()
    assert replay.sample(8, 4).steps["reset"][:, 0].all()


def test_weight_is_ones_and_dtypes_survive() -> None:
    steps = filled(None, 12).sample(2, 4).steps
    assert steps["weight"].dtype == torch.float32 and bool((steps["weight"] == 1).all())
    dtypes = {key: str(steps[key].dtype).split(".")[1] for key in KEYS | {"reset"}}
    assert dtypes == {
        "action": "float32", "reward": "float32", "first": "bool", "last": "bool", "image": "uint8", "count": "int64",
        "key": "float16", "deter": "float16", "reset": "bool",
    }  # fmt: skip


def test_sampled_tensors_belong_to_the_caller() -> None:
    replay = filled(None, LENGTH, online=False)
    one = replay.sample(2, LENGTH, past=3)
    kept = one.steps["reward"].clone()
    two = replay.sample(2, LENGTH, past=3)
    for batch in (one, two):
        assert batch.past is not None
        tensors = [*batch.steps.values(), *batch.past.stored.values(), batch.past.action, batch.past.valid]
        assert all(t.is_contiguous() and t.device.type == "cpu" for t in tensors)
    two.steps["reward"].fill_(-1)
    two.steps["first"].fill_(True)
    assert torch.equal(one.steps["reward"], kept)
    assert (replay.sample(8, LENGTH).steps["reward"] >= 0).all()


def test_annotating_skips_what_was_evicted_and_cut() -> None:
    replay = filled(None, 60, online=False)
    oldest = 60 - replay.steps // STREAMS
    index = Index(torch.tensor([0, 1, 2]), torch.tensor([0, oldest - 2, 58]))  # gone, half gone, beyond the head
    replay.annotate(index, reward=np.full((3, 4), -7, np.float32))
    batch = replay.sample(400, 1)
    marked = {
        (s, t)
        for s, t, r in zip(batch.index.stream.tolist(), batch.index.start.tolist(), batch.steps["reward"], strict=True)
        if r == -7
    }
    assert marked == {(1, oldest), (1, oldest + 1), (2, 58), (2, 59)}


def test_agents_ride_along_as_one_more_axis() -> None:
    replay = Replay(None, 2, stores={}, limit_bytes=10**6, chunk=8, length=4)
    for t in range(5):
        action = np.full((2, 3, 4), t, np.float32)
        replay.add({"action": action, "first": np.zeros((2, 3), bool)})
    batch = replay.sample(2, 3, past=2)
    assert batch.past is not None
    assert batch.steps["action"].shape == (2, 3, 3, 4) and batch.past.action.shape == (2, 2, 3, 4)


# ---- the folder


def reread(folder: Path, state: dict[str, Any], **options: Any) -> Replay:
    replay = build(folder, seed=99, **options)
    replay.load_state(state)
    return replay


def equal(one: Any, two: Any) -> None:
    for key in one.steps:
        torch.testing.assert_close(one.steps[key], two.steps[key], rtol=0, atol=0)
    torch.testing.assert_close(one.past.action, two.past.action, rtol=0, atol=0)
    for key in STORES:
        torch.testing.assert_close(one.past.stored[key], two.past.stored[key], rtol=0, atol=0)
    assert torch.equal(one.index.start, two.index.start) and torch.equal(one.index.stream, two.index.stream)


@pytest.mark.parametrize("steps", [13, 16, 39, 61])
def test_a_killed_run_goes_on_as_the_unbroken_one(tmp_path: Path, steps: int) -> None:
    """Steps beyond the checkpoint are cut; rows drawn and steps added afterwards are those of a run never killed."""
    broken = filled(tmp_path / "a", steps, seed=5)
    whole = filled(tmp_path / "b", steps, seed=5)
    broken.sample(3, LENGTH), whole.sample(3, LENGTH)
    broken.flush()
    path = checkpoint.save(tmp_path, 1, weights={}, state={"replay": broken.state()}, meta={})
    for t in range(steps, (steps // CHUNK + 1) * CHUNK + 3 if steps < 4 * CHUNK else steps + 1):
        broken.add({**step(t), "reward": np.full(STREAMS, -1, np.float32)})
        broken.sample(2, LENGTH)
    del broken
    resumed = reread(tmp_path / "a", checkpoint.load(path).state["replay"])
    held = {p.name for p in (tmp_path / "a").glob("*.chunk")}
    assert held == {p.name for p in (tmp_path / "b").glob("*.chunk")}
    for t in range(steps, steps + 2 * CHUNK):
        equal(resumed.sample(4, LENGTH, past=12), whole.sample(4, LENGTH, past=12))
        resumed.add(step(t))
        whole.add(step(t))
    assert resumed.steps == whole.steps


def test_a_process_killed_at_work_loses_nothing_of_its_checkpoint(tmp_path: Path) -> None:
    """With a real SIGKILL and no flush."""
    child = os.fork()
    if child == 0:  # nothing of pytest runs here
        replay = filled(tmp_path / "r", 19, seed=5)
        checkpoint.save(tmp_path, 19, weights={}, state={"replay": replay.state()}, meta={})
        for t in range(19, 26):
            replay.add(step(t))
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    path = checkpoint.latest(tmp_path)
    assert path is not None
    resumed, whole = reread(tmp_path / "r", checkpoint.load(path).state["replay"]), filled(None, 19, seed=5)
    for t in range(19, 30):
        equal(resumed.sample(4, LENGTH, past=12), whole.sample(4, LENGTH, past=12))
        resumed.add(step(t))
        whole.add(step(t))


def test_the_state_is_small_and_plain() -> None:
    state = filled(None, 50).state()
    assert all(isinstance(v, (np.ndarray, str, int, float)) for v in state.values())
    assert sum(len(v) if isinstance(v, str) else 8 for v in state.values()) < 2000


def test_what_was_evicted_since_the_checkpoint_stays_gone(tmp_path: Path) -> None:
    replay = filled(tmp_path / "r", 32)
    state = replay.state()
    for t in range(32, 49):  # begins chunks 4, 5 and 6: chunks 0 to 2 go
        replay.add(step(t))
    resumed = reread(tmp_path / "r", state)
    assert resumed.steps == STREAMS * 8
    batch = resumed.sample(50, LENGTH)
    assert batch.index.start.min() >= 24 and batch.index.start.max() + LENGTH <= 32
    assert torch.equal(batch.steps["count"] % 10**10, batch.index.start[:, None] + torch.arange(LENGTH))


def test_a_run_whose_every_checkpointed_step_was_evicted_starts_collecting_again(tmp_path: Path) -> None:
    replay = filled(tmp_path / "r", 21)
    state = replay.state()
    for t in range(21, 80):
        replay.add(step(t))
    for _ in range(2):  # the second time as if killed at once
        resumed = reread(tmp_path / "r", state)
        assert resumed.steps == 0 and not resumed.ready(1)
    for t in range(21, 21 + LENGTH):
        resumed.add(step(t))
    later = resumed.state()
    again = reread(tmp_path / "r", later)
    assert again.steps == STREAMS * LENGTH
    batch = again.sample(4, LENGTH, past=3)
    assert batch.index.start.tolist() == [21] * 4
    assert batch.past is not None and not batch.past.valid.any()
    assert batch.steps["count"][0].tolist()[0] % 10**10 == 21


def test_values_written_back_after_the_checkpoint_are_kept(tmp_path: Path) -> None:
    replay = filled(tmp_path / "r", 12)
    state = replay.state()
    replay.annotate(Index(torch.tensor([1]), torch.tensor([2])), reward=np.full((1, 3), 5000, np.float32))
    assert (reread(tmp_path / "r", state).sample(200, LENGTH).steps["reward"] == 5000).any()


def test_a_fresh_start_in_a_used_folder_begins_anew(tmp_path: Path) -> None:
    filled(tmp_path, 40)
    (tmp_path / "notes.txt").write_text("mine")
    replay = build(tmp_path)
    assert replay.steps == 0
    replay.add(step(0))
    assert {p.name for p in tmp_path.iterdir()} == {"00000000.chunk", "schema.json", "notes.txt"}


def test_loading_a_state_from_before_the_first_step_empties_the_folder(tmp_path: Path) -> None:
    state = build(tmp_path).state()
    filled(tmp_path, 20)
    assert reread(tmp_path, state).steps == 0 and not list(tmp_path.glob("*.chunk"))


def test_memory_goes_back_within_its_process_only() -> None:
    replay = filled(None, 20)
    state = replay.state()
    for t in range(20, 30):
        replay.add(step(t))
    replay.load_state(state)
    assert replay.sample(100, LENGTH).index.start.max() == 20 - LENGTH
    with pytest.raises(ReplayError, match="give it a folder"):
        build(None).load_state(state)


def test_chunks_hold_no_file_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    replay = filled(tmp_path, 60 * CHUNK, chunks=80)
    assert len(list(tmp_path.glob("*.chunk"))) == 60 and replay.steps == 60 * CHUNK * STREAMS
    if before:
        assert len(os.listdir("/proc/self/fd")) < before + 10


def test_the_budget_holds_on_disk(tmp_path: Path) -> None:
    replay = build(tmp_path)
    for t in range(100):
        replay.add(step(t))
        assert sum(p.stat().st_size for p in tmp_path.glob("*.chunk")) <= replay.limit_bytes


def test_a_lower_limit_on_resume_is_obeyed_at_the_next_chunk(tmp_path: Path) -> None:
    state = filled(tmp_path, 32).state()
    resumed = reread(tmp_path, state, chunks=2)
    resumed.add(step(32))
    assert resumed.steps == STREAMS * 9 and len(list(tmp_path.glob("*.chunk"))) == 2


# ---- errors, each one sentence


def damage(folder: Path, how: str) -> None:
    path = sorted(folder.glob("*.chunk"))[1]
    if how == "missing":
        path.unlink()
    elif how == "short":
        os.truncate(path, 100)
    elif how == "schema":
        described = json.loads((folder / "schema.json").read_text())
        described["entries"][0]["shape"] = [7]
        (folder / "schema.json").write_text(json.dumps(described))
    else:
        (folder / "schema.json").unlink()


@pytest.mark.parametrize(
    ("how", "says"),
    [("missing", "is missing"), ("short", "cut short"), ("schema", "other entries"), ("gone", "no replay in")],
)
def test_a_damaged_folder_is_refused(tmp_path: Path, how: str, says: str) -> None:
    state = filled(tmp_path, 30).state()
    damage(tmp_path, how)
    with pytest.raises(ReplayError, match=says):
        reread(tmp_path, state)


@pytest.mark.parametrize(("name", "value"), [("streams", 2), ("chunk", 16), ("length", 5)])
def test_another_shape_is_refused(tmp_path: Path, name: str, value: int) -> None:
    state = filled(tmp_path, 30).state()
    with pytest.raises(ReplayError, match=f"{name}="):
        reread(tmp_path, state, **{name: value, "chunks": 40})


def test_a_folder_of_another_model_is_refused(tmp_path: Path) -> None:
    state = filled(tmp_path, 30).state()
    with pytest.raises(ReplayError, match="another model"):
        reread(tmp_path, state, stores={"hidden": 1})


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    state = filled(tmp_path, 30).state() | {"format": 2}
    with pytest.raises(ReplayError, match="newer wm-core"):
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
    with pytest.raises(ReplayError, match="raise the limit or shorten the chunks"):
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
        patch.setattr("wm_core.replay._reserve", full)
        with pytest.raises(ReplayError, match="free some disk space"):
            replay.add(step(32))
    assert replay.steps == 32 * STREAMS and len(list(tmp_path.glob("*.chunk"))) == 4
    assert reread(tmp_path, replay.state()).steps == 32 * STREAMS
    replay.add(step(32))  # room again: it goes on
    assert replay.steps == 25 * STREAMS


def test_chunk_files_own_their_blocks(tmp_path: Path) -> None:
    replay = Replay(tmp_path, 1, stores={}, limit_bytes=10**8, chunk=64, length=4)
    replay.add({"action": np.zeros((1, 2), np.float32), "first": np.ones(1, bool), "x": np.zeros((1, 10**4), np.uint8)})
    stat = next(tmp_path.glob("*.chunk")).stat()
    assert stat.st_blocks * 512 >= stat.st_size > 64 * 10**4


def test_dropped_chunks_free_their_memory(tmp_path: Path) -> None:
    replay = filled(tmp_path, 100)
    gc.collect()
    maps = Path("/proc/self/maps")
    if maps.exists():
        assert maps.read_text().count(str(tmp_path)) == len(list(tmp_path.glob("*.chunk"))) == 4
    assert replay.steps


def test_a_long_past_is_sampled_in_milliseconds() -> None:
    """16 rows of 64 with 800 steps of a 512-wide key before them; a loop over steps would take 50 times as long."""
    replay = Replay(None, 4, stores={"key": 800}, limit_bytes=10**8, chunk=1024, length=64)
    values = {
        "action": np.zeros((4, 18), np.float32),
        "first": np.zeros(4, bool),
        "key": np.zeros((4, 512), np.float16),
    }
    for _ in range(2100):
        replay.add(values)
    replay.sample(16, 64, past=800)
    begin = time.perf_counter()
    for _ in range(5):
        batch = replay.sample(16, 64, past=800)
    spent = (time.perf_counter() - begin) / 5
    assert batch.past is not None and batch.past.stored["key"].shape == (16, 800, 512)
    assert spent < 0.1  # 3 ms on an idle core
