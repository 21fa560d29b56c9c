"""Foreign files in a run folder, other users, disks that fail, folders that go: one sentence, and nothing of it is lost."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from wm_core.errors import UserError
from wm_run import checkpoint, places
from wm_run.alarm import NotFinite, dump
from wm_run.cli import main
from wm_run.lock import locked
from wm_run.replay import Replay

pytestmark = pytest.mark.usefixtures("quiet")


TRAIN = ["train", "--preset", "tiny", "--chunk", "8", "--logdir", "D", "--steps"]


def digest(*paths: Path) -> list[str]:
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]


# ---- foreign files


def test_foreign_files_among_the_chunks_are_neither_read_nor_touched(fakes: Any) -> None:
    main(fakes.app, [*TRAIN, "100"])
    replay = Path("D/replay")
    names = (
        "._00000000.chunk",
        "00000000 copy.chunk",
        "00000000.chunk.icloud",
        "x.undo",
        "._000000000004-00000000.undo",
    )
    foreign = [replay / name for name in names]
    for path in foreign:
        path.write_bytes(path.name.encode())
    folders = [replay / "99999999.chunk", replay / "000000000004-00000000.undo"]
    for path in folders:
        path.mkdir()
    before = digest(*foreign)
    main(fakes.app, ["train", "--logdir", "D", "--steps", "180"])
    assert digest(*foreign) == before and all(path.is_dir() for path in folders)
    shutil.rmtree("D/checkpoint")  # begun anew: the chunks go
    main(fakes.app, ["train", "--logdir", "D", "--steps", "60"])
    assert digest(*foreign) == before and all(path.is_dir() for path in folders)


def test_a_folder_where_a_chunk_should_be_is_one_sentence(fakes: Any, capsys: Any) -> None:
    main(fakes.app, [*TRAIN, "100"])
    last = max(int(path.stem) for path in Path("D/replay").glob("*.chunk"))
    stranger = Path(f"D/replay/{last + 1:08d}.chunk")
    stranger.mkdir()
    kept = checkpoint.latest("D")
    said = fakes.refused(capsys, "train --logdir D --steps 240")
    assert f"{stranger} is a folder where a file should be: move it away" in said and checkpoint.latest("D") == kept
    stranger.rmdir()
    main(fakes.app, ["train", "--logdir", "D", "--steps", "240"])


@pytest.mark.parametrize("how", ["file", "link"])
def test_what_is_no_folder_for_checkpoints_is_told_at_once(fakes: Any, capsys: Any, how: str) -> None:
    main(fakes.app, [*TRAIN, "60"])
    shutil.rmtree("D/checkpoint")
    Path("D/checkpoint").write_text("x") if how == "file" else Path("D/checkpoint").symlink_to("nowhere")
    logs = digest(Path("D/scores.jsonl"), Path("D/metrics.jsonl"))
    said = fakes.refused(capsys, "train --logdir D --steps 100")
    assert "D/checkpoint is no folder, and the checkpoints go there: move it away" in said
    assert digest(Path("D/scores.jsonl"), Path("D/metrics.jsonl")) == logs


@pytest.mark.parametrize("dangling", [False, True])
def test_a_checkpoint_that_is_a_link_is_pruned_as_a_link(tmp_path: Path, dangling: bool) -> None:
    def save(step: int) -> Path:
        return checkpoint.save(tmp_path, step, weights={"w": torch.ones(1)}, state={}, meta={}, keep=1)

    path = save(10)
    away = tmp_path / "away"
    path.rename(away)
    path.symlink_to(away, target_is_directory=True)
    stale = tmp_path / "checkpoint/.removing-3"
    stale.symlink_to(away, target_is_directory=True)
    if dangling:
        shutil.rmtree(away)
        assert save(10) == checkpoint.latest(tmp_path)  # at the link's own step: the link is set aside
        return
    assert save(10) == path and not path.is_symlink()
    shutil.rmtree(path)
    path.symlink_to(away, target_is_directory=True)
    assert save(20) == checkpoint.latest(tmp_path) and not os.path.lexists(path)
    assert (away / "manifest.json").is_file()  # what the link showed is somebody's own


# ---- the lock


def test_without_its_lock_file_a_second_process_stays_out(tmp_path: Path) -> None:
    with locked(tmp_path):
        (tmp_path / ".lock").unlink()
        for _ in range(2):  # the second try finds the first one's file
            with pytest.raises(UserError, match="is training in"), locked(tmp_path):
                pass
    with locked(tmp_path):
        pass


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (os.mkfifo, "a pipe or a device"),
        (os.mkdir, "a folder"),
        (lambda path: path.symlink_to("/nowhere/at/all"), "a link to nowhere"),
    ],
)
def test_what_is_no_lock_file_is_one_sentence(tmp_path: Path, make, what) -> None:
    make(tmp_path / ".lock")
    with pytest.raises(UserError, match=f"{what} where a file should be: remove it"), locked(tmp_path):
        pass


def test_a_folder_that_was_made_for_nothing_goes(tmp_path: Path) -> None:
    with locked(tmp_path / "a/b"):
        (tmp_path / "a/b/metrics.jsonl").touch()
    assert not (tmp_path / "a").exists()
    with locked(tmp_path / "a/b"):
        (tmp_path / "a/b/metrics.jsonl").write_text("{}")
    assert (tmp_path / "a/b/metrics.jsonl").exists()
    (tmp_path / "mine").mkdir()
    with locked(tmp_path / "mine"):
        pass
    assert (tmp_path / "mine").is_dir()


# ---- other users


@pytest.mark.parametrize("umask, mode", [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_every_file_of_a_run_follows_the_umask(fakes: Any, tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        main(fakes.app, [*TRAIN, "100"])
        main(fakes.app, ["eval", "D", "--episodes", "1"])
        dump(NotFinite({"loss": float("nan")}, [_batch()]), Path("D/alarm-1"), {})
    finally:
        os.umask(before)
    modes = {str(path): path.stat().st_mode & 0o777 for path in Path("D").rglob("*") if path.is_file()}
    assert any("model.safetensors" in name for name in modes) and any("batch.safetensors" in name for name in modes)
    assert {name: oct(found) for name, found in modes.items() if found != mode} == {}


def _batch() -> Any:
    replay = Replay(None, 1, stores={}, limit_bytes=10**6, chunk=8, length=2)
    for _ in range(3):
        replay.add({"action": torch.zeros(1, 2), "first": torch.zeros(1, dtype=torch.bool)})
    return replay.sample(1, 2)


def test_who_may_not_read_a_file_is_not_told_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    path.touch()
    error = PermissionError(errno.EACCES, "Permission denied", str(path))
    monkeypatch.setattr(os, "access", lambda name, mode: mode != os.R_OK)  # root may read everything
    said = places.sentence(error, "eval")
    assert said is not None and "cannot read" in said and "chmod a+rX" in said and "writable" not in said


# ---- disks and folders


@pytest.mark.parametrize(
    "number, says",
    [
        (errno.EIO, "the disk failed at"),
        (errno.ESTALE, "mend that"),
        (errno.EFBIG, "mend that"),
    ],
)
def test_a_disk_that_fails_under_a_run_is_one_sentence(
    fakes: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch, number: int, says: str
) -> None:
    main(fakes.app, [*TRAIN, "100"])
    kept = checkpoint.latest("D")
    error = OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        fakes.envs.events[3] = lambda: patch.setattr("wm_run.durable.os.fsync", Mock(side_effect=error))
        said = fakes.refused(capsys, "train --logdir D --steps 240")
    assert says in said and os.strerror(number) in said and checkpoint.latest("D") == kept
    fakes.envs.events.clear()
    main(fakes.app, ["train", "--logdir", "D", "--steps", "240"])


@pytest.mark.parametrize("number, says", [(errno.EIO, "mend that"), (errno.EACCES, "writable"), (errno.ENOSPC, "free")])
def test_a_save_that_fails_says_what_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, says: str
) -> None:
    monkeypatch.setattr(checkpoint, "_manifest_file", Mock(side_effect=OSError(number, os.strerror(number))))
    with pytest.raises(checkpoint.CheckpointError) as raised:
        checkpoint.save(tmp_path, 1, weights={}, state={}, meta={})
    assert says in str(raised.value) and ("free some disk" in str(raised.value)) == (number == errno.ENOSPC)


@pytest.mark.parametrize("leave", [lambda: shutil.rmtree("D"), lambda: Path("D").rename("E")])
def test_a_run_folder_that_is_removed_or_moved_meanwhile_is_one_sentence(
    fakes: Any, capsys: Any, leave: Callable[[], None]
) -> None:
    fakes.envs.events[9] = leave
    said = fakes.refused(capsys, " ".join([*TRAIN, "240"]))
    assert "is gone: where it or its folder was removed or moved meanwhile, put it back" in said
    assert not Path("D").exists()  # none is begun in its place


@pytest.mark.parametrize("command", ["train --preset tiny --logdir", "eval", "plot", "train --preset tiny --init-from"])
def test_a_path_that_is_too_long_is_one_sentence(fakes: Any, capsys: Any, command: str) -> None:
    said = fakes.refused(capsys, f"{command} {'x' * 5000}")
    assert "too long" in said and len(said) < 300


def test_an_error_of_an_environment_keeps_its_traceback() -> None:
    def play() -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file", "assets/map.png")

    try:
        play()
    except OSError as error:
        assert places.sentence(error) is None


SCRIPT = """
import os, sys, traceback
from pathlib import Path
from wm_run.app import App
from wm_run.cli import main
from wm_run.config import RunConfig
app = App("fakeapp", "fake", "1", RunConfig, Path("none"), {}, lambda: None, lambda: None)
told = "ended"
try:
    main(app, sys.argv[2:])
except SystemExit as stop:
    told = f"exit {stop.code}"
except BaseException:
    told = traceback.format_exc()
next_file = os.open(os.devnull, os.O_RDONLY)
Path(sys.argv[1]).write_text(f"{told}, the next file is {next_file}")
"""


@pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("line, ends", [("eval nowhere", "exit 2"), ("--version", "ended")])
def test_closed_streams_are_no_traceback_and_no_number_of_a_file(
    tmp_path: Path, closed: str, line: str, ends: str
) -> None:
    """The file that is opened next would become what the libraries below Python write into."""
    (tmp_path / "script.py").write_text(SCRIPT)
    words = f"{sys.executable} {tmp_path / 'script.py'} {tmp_path / 'out'} {line} {closed}"
    subprocess.run(["sh", "-c", words], check=False, timeout=60, capture_output=True)
    told, number = (tmp_path / "out").read_text().split(", the next file is ")
    assert told == ends and int(number) > 2


@pytest.mark.parametrize("line, trusted", [("info --preset tiny", None), ("info --preset tiny --trust", "1")])
def test_trust_is_said_where_modules_are_imported(
    fakes: Any, monkeypatch: pytest.MonkeyPatch, line: str, trusted: str | None
) -> None:
    monkeypatch.setenv("ENV_ADAPTERS_TRUST", "0")  # so that it is put back
    monkeypatch.delenv("ENV_ADAPTERS_TRUST")
    main(fakes.app, line.split())
    assert os.environ.get("ENV_ADAPTERS_TRUST") == trusted
