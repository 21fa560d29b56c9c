"""Replay against a Python list of steps."""

from __future__ import annotations

import gc
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from wm_core.types import Index
from wm_run.replay import Replay
from wm_run.testing.replays import (
    CHUNK,
    LENGTH,
    STORES,
    STREAMS,
    build,
    filled,
    numpy_of,
    step,
)

KEYS = {"action", "reward", "first", "last", "image", "count", "key", "deter"}


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


def test_a_stride_of_one_more_leaves_each_queued_row_a_step_of_context() -> None:
    """The official queue: pieces of T + 1 steps, of which the first is context and T are trained on."""
    replay = filled(None, 3 * (LENGTH + 1) + 2, stride=LENGTH + 1)
    index = replay.sample(3 * STREAMS, LENGTH, past=1).index
    assert index.start.tolist() == [piece * (LENGTH + 1) + 1 for piece in range(3) for _ in range(STREAMS)]
    assert index.stream.tolist() == [0, 1, 2] * 3


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
