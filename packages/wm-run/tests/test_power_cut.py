"""What is on the disk when the power is cut, at any call to the system: a checkpoint that is named can be gone on from.

A disk is stood in for by what was handed to it: the bytes of a file when it was last synced, the names in a folder when
that was. Three of the ways in which a file system may keep more than that are tried: names later than what is in the
files (how config.toml came to 0 bytes), nothing but what was synced, and pages of the replay that the system wrote back
by itself.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from wm_run import checkpoint, commits, dreams
from wm_run.cli import main
from wm_run.configs import read_run
from wm_run.durable import lost
from wm_run.replay import Replay, ReplayError

WAYS = ("names only when synced", "names at once", "pages at once")


class Disk:
    """What os.fsync was given, of files and folders below `top`."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.files: dict[int, bytes] = {}
        self.folders: dict[int, dict[str, int]] = {}
        self.held: dict[int, int] = {}  # descriptors, so that no inode's number is given to another file

    def sync(self, descriptor: int) -> None:
        """Take note of a file or folder that is synced."""
        found, place = os.fstat(descriptor), f"/proc/self/fd/{descriptor}"
        if stat.S_ISDIR(found.st_mode):
            self.folders[found.st_ino] = {entry.name: entry.inode() for entry in os.scandir(place)}
        else:
            self.files[found.st_ino] = Path(place).read_bytes()
        if found.st_ino not in self.held:
            self.held[found.st_ino] = os.dup(descriptor)

    def cut(self, way: str, target: Path) -> None:
        """What a machine finds that is started again, in a folder of its own."""
        kinds = {entry.stat().st_ino: entry for entry in self.top.rglob("*")}
        self._put(self.top, os.stat(self.top).st_ino, way, target, kinds)

    def _put(self, source: Path, inode: int, way: str, target: Path, kinds: dict[int, Path]) -> None:
        target.mkdir()
        now = {entry.name: entry.inode() for entry in os.scandir(source)} if source.is_dir() else {}
        names = self.folders.get(inode, {}) if way == WAYS[0] else now
        for name, child in names.items():
            place = kinds.get(child)
            if child in self.folders or place is not None and place.is_dir():
                self._put(place or source / name, child, way, target / name, kinds)
            elif way == WAYS[2] and place is not None and place.suffix == ".chunk":
                (target / name).write_bytes(place.read_bytes())
            else:
                (target / name).write_bytes(self.files.get(child, b""))

    def close(self) -> None:
        for descriptor in self.held.values():
            os.close(descriptor)


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    monkeypatch.setattr(dreams, "videos", lambda session, step: [])
    top = tmp_path / "disk"
    top.mkdir()
    one, real = Disk(top), os.fsync

    def fsync(descriptor: int) -> None:
        real(descriptor)
        one.sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    yield one
    one.close()


def at_each_call(monkeypatch: pytest.MonkeyPatch, then: Callable[[], None]) -> None:
    """Do something after every call that syncs, renames or removes."""

    def wrap(real: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **options: Any) -> Any:
            result = real(*args, **options)
            then()
            return result

        return called

    for name in ("fsync", "replace", "rename", "unlink", "truncate"):
        monkeypatch.setattr(os, name, wrap(getattr(os, name)))


def resumable(app: Any, run: Path, way: str) -> int | None:
    """The step at which a run would go on, None where there is no checkpoint yet. Fails where something is missing."""
    path = checkpoint.latest(run)
    if path is None:
        return None
    assert checkpoint.damaged(run) == []
    for name in ("config.toml", "protocol.json", "env.json"):
        assert not lost(run / name), name
    saved = checkpoint.load(path, app=app.name)
    config, _ = read_run(app, run)
    for name, size in saved.state["run"].items():
        assert name == "step" or (run / name).stat().st_size >= size, name
    state = saved.state["replay"]
    held = Replay(
        run / "replay",
        state["streams"],
        stores={"deter": 1},
        limit_bytes=config.replay_bytes,
        chunk=state["chunk"],
        length=state["length"],
    )
    notices = held.load_state(state)
    assert not notices or way == WAYS[2] and "the machine was restarted" in notices[0]
    assert held.steps == (state["position"] - state["oldest"]) * state["streams"]
    return saved.step


OPTIONS = ["--preset", "tiny", "--chunk", "4", "--save-every", "40", "--replay-bytes", "16000", "--log-every", "40"]


def test_a_named_checkpoint_can_be_gone_on_from_after_a_power_cut_at_any_call(
    fakes: Any, disk: Disk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """At the start, in a save, in an eviction, in the commit; the machine's next start has another name."""
    cuts, steps = 0, set[int | None]()
    busy = False

    def look() -> None:
        nonlocal cuts, busy
        if busy:
            return
        busy = True  # what is done to look is not looked at
        for way in WAYS:
            cuts += 1
            target = tmp_path / f"cut-{cuts}"
            disk.cut(way, target)
            with monkeypatch.context() as restarted:
                restarted.setattr(commits, "boot", lambda: "another")
                steps.add(resumable(fakes.app, target / "D", way))
        busy = False

    with monkeypatch.context() as patch:
        at_each_call(patch, look)
        main(fakes.app, ["train", *OPTIONS, "--steps", "70", "--logdir", str(disk.top / "D")])
    state = checkpoint.load(checkpoint.latest(disk.top / "D") or disk.top).state["replay"]
    assert state["oldest"] > 0  # something was evicted
    assert cuts > 150 and len(steps) >= 3 and None in steps


@pytest.mark.parametrize("way", WAYS)
def test_a_run_goes_on_after_a_power_cut(
    fakes: Any, disk: Disk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any, way: str
) -> None:
    """Cut between two checkpoints, while the replay was written back to; cut again before the next checkpoint."""
    logdir = disk.top / "D"

    class Cut(BaseException):
        pass

    def power(*args: Any) -> None:
        raise Cut

    fakes.envs.events[30] = power
    with pytest.raises(Cut):
        main(fakes.app, ["train", *OPTIONS, "--steps", "400", "--logdir", str(logdir)])
    fakes.envs.events.clear()
    disk.cut(way, tmp_path / "once")
    monkeypatch.setattr(commits, "boot", lambda: "another")
    fakes.envs.events[2] = power
    run = tmp_path / "once" / "D"
    step = checkpoint.load(checkpoint.latest(run) or run).step
    for _ in range(2):
        capsys.readouterr()
        with pytest.raises(Cut):
            main(fakes.app, ["train", "--logdir", str(run)])
        said = capsys.readouterr().err
        assert f"resuming {run} at step {step}" in said
        assert ("the machine was restarted: values of ['deter'] stay" in said) == (way == WAYS[2])
    fakes.envs.events.clear()
    main(fakes.app, ["train", "--logdir", str(run)])
    assert checkpoint.load(checkpoint.latest(run) or run).step >= 400
    rows = [json.loads(line)["step"] for line in (run / "scores.jsonl").read_text().splitlines()]
    assert rows == sorted(rows)


def test_values_that_differ_are_damage_where_the_machine_was_not_restarted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what was never written back to is damage in any case."""
    made = Replay(tmp_path, 1, stores={"deter": 1}, limit_bytes=10**6, chunk=8, length=2)
    for t in range(12):
        step = {"action": np.zeros((1, 2), np.float32), "first": np.full(1, t == 0)}
        made.add(step | {"deter": np.full((1, 3), t, np.float32), "seen": np.full((1, 2), t, np.uint8)})
    batch = made.sample(2, 2, past=1)
    made.annotate(batch.index, deter=batch.steps["deter"] + 1)
    made.flush()
    state = made.state()
    made.commit(state)
    made.annotate(batch.index, deter=batch.steps["deter"] + 7)
    next(tmp_path.glob("*.undo")).unlink()

    def again() -> list[str]:
        other = Replay(tmp_path, 1, stores={"deter": 1}, limit_bytes=10**6, chunk=8, length=2)
        return other.load_state(state)

    with pytest.raises(ReplayError, match="checksum of 'deter' differs"):
        again()
    monkeypatch.setattr(commits, "boot", lambda: "another")
    said = ["the machine was restarted: values of ['deter'] stay as later updates left them"]
    assert again() == said and again() == said  # until the next commit
    chunk = tmp_path / "00000000.chunk"
    data = bytearray(chunk.read_bytes())
    at = data.index(bytes([1, 1, 2, 2, 3, 3]))  # of `seen`
    data[at] ^= 1
    chunk.write_bytes(data)
    with pytest.raises(ReplayError, match="checksum of 'seen' differs"):
        again()
