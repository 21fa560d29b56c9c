"""Replay against a Python list of steps, and the folder against everything that can happen to it."""

from __future__ import annotations

import errno
import gc
import json
import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from wm_core.types import Index
from wm_run import checkpoint
from wm_run.chunks import Chunks
from wm_run.commits import Commits
from wm_run.replay import Replay, ReplayError
from wm_run.rows import Rows

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
    return Replay(folder, limit_bytes=-(-chunks * chunk_bytes() * 8 // 7), **options)  # an eighth is not for chunks


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


# ---- back to the last commit, whatever happened since


def committed(folder: Path, steps: int, **options: Any) -> tuple[Replay, dict[str, Any]]:
    """A replay with a checkpoint, and what that holds."""
    replay = filled(folder, steps, **options)
    state = replay.state()
    replay.commit(state)
    return replay, state


def everything(replay: Replay) -> dict[int, dict[str, np.ndarray]]:
    """Stream -> entry -> (T, ...): all that is held."""
    held: dict[int, dict[str, np.ndarray]] = {}
    rows = torch.arange(replay.streams), torch.full((replay.streams,), replay._oldest)  # noqa: SLF001
    for stream, start in zip(*(row.tolist() for row in rows), strict=True):
        steps = replay.steps // replay.streams
        read = Rows(replay._chunks, replay.stores, replay._oldest).gather  # noqa: SLF001
        held[stream] = {e.key: read(e, [(stream, start)], 0, steps)[0].numpy().copy() for e in replay.schema}
    return held


def assert_alike(one: Any, two: Any) -> None:
    assert one.keys() == two.keys()
    for stream in one:
        for key in one[stream]:
            np.testing.assert_array_equal(one[stream][key], two[stream][key], key)


def disturb(replay: Replay, rng: np.random.Generator, first: int, steps: int) -> None:
    """What training does: steps, samples, write-backs of two entries."""
    for t in range(first, first + steps):
        replay.add({**step(t), "reward": rng.normal(size=STREAMS).astype(np.float32)})
        index = replay.sample(3, LENGTH).index
        replay.annotate(index, key=rng.normal(size=(3, LENGTH, 3)).astype(np.float16))
        replay.annotate(index, deter=rng.normal(size=(3, LENGTH, 1)).astype(np.float16))


@pytest.mark.parametrize("more", [1, 7, 20, 70])
@pytest.mark.parametrize("steps", [13, 16, 39, 61])
def test_write_backs_and_evictions_since_the_commit_are_undone(tmp_path: Path, steps: int, more: int) -> None:
    replay, state = committed(tmp_path, steps)
    before = everything(replay)
    disturb(replay, np.random.default_rng(0), steps, more)
    assert more < 20 or replay._oldest > int(state["oldest"])  # noqa: SLF001 - chunks went in between
    resumed = reread(tmp_path, state)
    assert_alike(everything(resumed), before)
    disturb(resumed, np.random.default_rng(1), steps, more)
    again = reread(tmp_path, state)
    assert_alike(everything(again), before)
    assert not list(tmp_path.glob("*.undo"))


@pytest.mark.parametrize("seed", range(3))
def test_commit_after_commit_the_last_one_counts(tmp_path: Path, seed: int) -> None:
    """Random lengths of work between commits and resumptions, against a copy of what each commit held."""
    rng = np.random.default_rng(seed)
    replay, state = committed(tmp_path, 20)
    before, at = everything(replay), 20
    for _ in range(12):
        disturb(replay, rng, at, int(rng.integers(1, 25)))
        if rng.random() < 0.5:
            replay = reread(tmp_path, state)
            assert_alike(everything(replay), before)
        else:
            state = replay.state()
            replay.commit(state)
            before, at = everything(replay), int(state["position"])
        assert not list(tmp_path.glob("*.undo"))


def test_a_commit_that_was_killed_before_it_was_told_is_still_one(tmp_path: Path) -> None:
    """The checkpoint is on disk, `commit` was not called: the journal of the one before must not be undone."""
    replay, _ = committed(tmp_path, 20)
    disturb(replay, np.random.default_rng(0), 20, 15)
    before, state = everything(replay), replay.state()
    assert list(tmp_path.glob("*.undo"))
    assert_alike(everything(reread(tmp_path, state)), before)


def test_going_back_may_be_killed_and_begun_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replay, state = committed(tmp_path, 39)
    before = everything(replay)
    disturb(replay, np.random.default_rng(0), 39, 30)
    for part, stage in ((Chunks, "map"), (Commits, "_tell")):
        with monkeypatch.context() as patch:
            patch.setattr(part, stage, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                reread(tmp_path, state)
    assert_alike(everything(reread(tmp_path, state)), before)


@pytest.mark.parametrize("cut", [1, 3, 10, 29, 40])
def test_a_journal_cut_short_belongs_to_a_change_that_did_not_begin(tmp_path: Path, cut: int) -> None:
    replay, state = committed(tmp_path, 13)
    before = everything(replay)
    index = Index(torch.tensor([1, 2]), torch.tensor([2, 5]))
    replay.annotate(index, key=np.ones((2, LENGTH, 3), np.float16))
    later = everything(replay)
    (journal,) = tmp_path.glob("*.undo")
    whole = journal.stat().st_size
    replay.annotate(index, reward=np.ones((2, LENGTH), np.float32))
    os.truncate(journal, journal.stat().st_size - cut)
    assert journal.stat().st_size > whole  # the first write-back is whole in it
    for stream in (1, 2):  # and the second one has not happened
        path, column = tmp_path / "00000000.chunk", replay._chunks.held[0].columns["reward"]  # noqa: SLF001
        column[stream, :] = later[stream]["reward"][:CHUNK]
        replay._chunks.held[1].columns["reward"][stream, :5] = later[stream]["reward"][CHUNK:]  # noqa: SLF001
        assert path.is_file()
    assert_alike(everything(reread(tmp_path, state)), before)


def test_old_values_are_recorded_once(tmp_path: Path) -> None:
    """Else a run that saves seldom would write its replay many times over."""
    replay, _ = committed(tmp_path, 13)
    index = Index(torch.tensor([1, 1, 2]), torch.tensor([2, 4, 5]))
    sizes = []
    for value in range(5):
        replay.annotate(index, key=np.full((3, LENGTH, 3), value, np.float16))
        sizes.append(sum(path.stat().st_size for path in tmp_path.glob("*.undo")))
    assert len(set(sizes)) == 1 and sizes[0] >= 14 * 6  # 14 different steps of 6 bytes
    replay.annotate(Index(torch.tensor([1]), torch.tensor([9])), key=np.zeros((1, 4, 3), np.float16))
    assert sum(path.stat().st_size for path in tmp_path.glob("*.undo")) < sizes[0] + 3 * 6 + 60  # 10, 11 and 12 are new


def test_steps_of_after_the_commit_need_no_record(tmp_path: Path) -> None:
    replay, _ = committed(tmp_path, 13)
    for t in range(13, 20):
        replay.add(step(t))
    replay.annotate(Index(torch.tensor([0]), torch.tensor([13])), key=np.zeros((1, 6, 3), np.float16))
    assert not list(tmp_path.glob("*.undo"))


def test_without_a_commit_nothing_is_kept(tmp_path: Path) -> None:
    disturb(replay := filled(tmp_path, 20), np.random.default_rng(0), 20, 60)
    assert {p.suffix for p in tmp_path.iterdir()} == {".chunk", ".json"}
    assert len(list(tmp_path.glob("*.chunk"))) == 4 and not replay.crowded


def test_the_next_commit_makes_room(tmp_path: Path) -> None:
    """Budget of 24 chunks: 21 are used, 3 are left to what a resumed run would need back."""
    replay = filled(tmp_path, 24 * CHUNK, chunks=21)
    assert replay.steps == 21 * CHUNK * STREAMS
    replay.commit(replay.state())
    crowded, t = [], 24 * CHUNK
    for _ in range(6 * CHUNK):
        replay.add(step(t))
        t += 1
        found = sum(p.stat().st_size for p in tmp_path.iterdir() if p.suffix != ".json")
        assert replay.disk_bytes == found <= replay.limit_bytes + chunk_bytes()
        crowded.append(replay.crowded)
        if replay.crowded:
            replay.commit(replay.state())
            assert not replay.crowded and len(list(tmp_path.glob("*.chunk"))) == 21
    assert crowded.index(True) == 3 * CHUNK and sum(crowded) == 1


def test_an_older_checkpoint_than_the_last_one_is_served_as_far_as_possible(tmp_path: Path) -> None:
    replay, old = committed(tmp_path, 32)
    rng = np.random.default_rng(0)
    before = everything(replay)
    disturb(replay, rng, 32, 17)  # begins chunks 4, 5 and 6: chunks 0 to 2 go
    replay.commit(replay.state())
    disturb(replay, rng, 49, 2)
    resumed = build(tmp_path)
    said = " and ".join(resumed.load_state(old))
    assert "['deter', 'key'] stay as later updates left them" in said
    assert "the first 24 steps of each stream were evicted since" in said
    assert resumed.steps == STREAMS * 8
    for stream, entries in everything(resumed).items():
        np.testing.assert_array_equal(entries["image"], before[stream]["image"][24:])
    disturb(resumed, rng, 32, 3)
    again = build(tmp_path)  # killed before its next commit
    assert again.load_state(old) == said.split(" and ")
    assert again.steps == STREAMS * 8
    disturb(again, rng, 32, 3)
    state = again.state()
    again.commit(state)
    assert build(tmp_path).load_state(state) == []


def test_a_run_whose_every_checkpointed_step_was_evicted_starts_collecting_again(tmp_path: Path) -> None:
    replay, old = committed(tmp_path, 21)
    for t in range(21, 80):
        replay.add(step(t))
    replay.commit(replay.state())
    resumed = reread(tmp_path, old)
    assert resumed.steps == 0 and not resumed.ready(1)
    for t in range(21, 21 + LENGTH):
        resumed.add(step(t))
    again = reread(tmp_path, resumed.state())
    assert again.steps == STREAMS * LENGTH
    batch = again.sample(4, LENGTH, past=3)
    assert batch.index.start.tolist() == [21] * 4
    assert batch.past is not None and not batch.past.valid.any()
    assert batch.steps["count"][0].tolist()[0] % 10**10 == 21


OURS = f"{os.sep}wm_run{os.sep}"


def test_killed_at_any_line_of_annotate_evict_and_commit(tmp_path: Path) -> None:
    """SIGKILL before the k-th line of what replay, journal and checkpoint do after a commit, for a spread of k."""
    lines, children = 0, []

    def work(folder: Path, fatal: int) -> int:
        """Runs in a child of its own; gives the number of lines."""
        replay, _ = committed(folder, 39)
        count = 0

        def tracer(frame: Any, event: str, argument: Any) -> Any:
            nonlocal count
            if OURS not in frame.f_code.co_filename:  # what a library does differs from the first time to the second
                return None
            count += event == "line"
            if fatal and count == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            return tracer

        sys.settrace(tracer)
        disturb(replay, np.random.default_rng(0), 39, 12)
        state = replay.state()
        checkpoint.save(folder, 2, weights={}, state={"replay": state}, meta={})
        replay.commit(state)
        disturb(replay, np.random.default_rng(1), 51, 4)
        sys.settrace(None)
        return count

    lines = work(tmp_path / "whole", 0)
    before = everything(committed(tmp_path / "early", 39)[0])
    late = checkpoint.load(tmp_path / "whole" / "checkpoint" / "2").state["replay"]
    after = everything(reread(tmp_path / "whole", late))
    first = committed(tmp_path / "state", 39)[1]
    for fatal in np.linspace(1, lines, 25).astype(int).tolist():
        folder = tmp_path / str(fatal)
        child = os.fork()
        if child == 0:
            work(folder, fatal)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        path = checkpoint.latest(folder)
        children.append(path is not None)
        state = first if path is None else checkpoint.load(path).state["replay"]
        assert_alike(everything(reread(folder, state)), before if path is None else after)
    assert any(children) and not all(children)


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
    assert resumed.steps == STREAMS * 9 and resumed.crowded
    resumed.commit(resumed.state())
    assert len(list(tmp_path.glob("*.chunk"))) == 2 and not resumed.crowded


def test_a_limit_on_resume_that_holds_no_row_is_refused(tmp_path: Path) -> None:
    state = filled(tmp_path, 32).state()
    with pytest.raises(ReplayError, match=r"raise the limit .*, shorten the chunks"):
        reread(tmp_path, state, chunks=1)
    assert reread(tmp_path, state).steps == STREAMS * 32


# ---- errors, each one sentence


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
    for key in sorted(KEYS):
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


def test_a_disk_without_room_for_the_journal_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replay, state = committed(tmp_path, 20)
    index = Index(torch.tensor([0, 1]), torch.tensor([0, 8]))
    replay.annotate(index, key=np.ones((2, LENGTH, 3), np.float16))
    before, size = everything(replay), replay.disk_bytes

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("wm_run.journal.zlib.crc32", full)
        with pytest.raises(ReplayError, match="free some disk space, then resume"):
            replay.annotate(index, deter=np.ones((2, LENGTH, 1), np.float16))
    assert_alike(everything(replay), before)
    assert sum(p.stat().st_size for p in tmp_path.glob("*.undo")) == size - 3 * chunk_bytes()
    replay.annotate(index, deter=np.ones((2, LENGTH, 1), np.float16))  # room again
    assert_alike(everything(reread(tmp_path, state)), everything(filled(None, 20)))


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


def as_format_2(folder: Path, state: dict[str, Any]) -> dict[str, Any]:
    """A folder and its state as wm-core wrote them when notes had bare names; the bytes are the same."""

    def older(described: dict[str, Any]) -> dict[str, Any]:
        entries = [{**entry, "key": entry["key"].removeprefix("/")} for entry in described["entries"]]
        return {**described, "format": 2, "entries": entries}

    schema, commit = folder / "schema.json", folder / "commit.json"
    schema.write_text(json.dumps(older(json.loads(schema.read_text()))))
    told = json.loads(commit.read_text())
    commit.write_text(json.dumps(told | {"rewritten": [key.removeprefix("/") for key in told["rewritten"]]}))
    return {**state, "format": 2, "schema": json.dumps(older(json.loads(state["schema"])))}


def test_a_folder_whose_notes_have_bare_names_is_gone_on_from(tmp_path: Path) -> None:
    """Twice: what is saved after the first time is in today's names, while the folder still has the old ones. What was
    written back after a commit is undone each time, and is what a checkpoint before the last one is spared to be."""
    stores = {"/key": 10, "/deter": 1}

    def named(t: int) -> dict[str, Any]:
        return {("/" + key if key in STORES else key): value for key, value in step(t).items()}

    replay = build(tmp_path, stores=stores)
    for t in range(20):
        replay.add(named(t))
    index = Index(torch.tensor([1]), torch.tensor([3]))
    replay.annotate(index, **{"/key": np.full((1, LENGTH, 3), 7, np.float16)})
    before = everything(replay)
    state = replay.state()
    replay.commit(state)
    replay.annotate(index, **{"/key": np.zeros((1, LENGTH, 3), np.float16)})
    state = old = as_format_2(tmp_path, state)
    for _ in range(2):
        again = build(tmp_path, stores=stores)
        assert again.load_state(state) == []
        assert_alike(everything(again), before)
        later = again.state()
        again.commit(later)
        again.annotate(index, **{"/deter": np.zeros((1, LENGTH, 1), np.float16)})
        assert json.loads((tmp_path / "commit.json").read_text())["rewritten"] == ["/deter", "/key"]
        state = later
    again.add(named(20))
    again.commit(again.state())
    assert build(tmp_path, stores=stores).load_state(old)[0].startswith("values of ['/deter', '/key'] stay")
