"""A replay's folder goes back to its last commit, whatever happened since."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
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
from wm_run.testing.replays import (
    CHUNK,
    LENGTH,
    STORES,
    STREAMS,
    build,
    chunk_bytes,
    committed,
    filled,
    reread,
    step,
)


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
