"""`train --devices N`: N processes on this machine that learn one agent, started and watched by the one typed.

Each is the same command, told by torchrun's environment variables (RANK, WORLD_SIZE, ...) who it is.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from torch import distributed
from wm_core.errors import UserError
from wm_core.ranks import Alone, Group, Ranks, learning_with

from wm_run import durable, typed
from wm_run.stop import handled, say

LAUNCHER = "WM_RUN_LAUNCHER"  # of a process that was started here: who started it
LOOK = 1.0  # seconds between two looks whether that one is still there
REFUSED = 2  # the exit code of a process that has told the user what to do otherwise
GRACE = 20.0  # seconds that the others have to stop by themselves after one has failed


def inside() -> bool:
    """Whether this process is one of several already."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Learn with the other processes of this run inside; alone where there are none."""
    if not inside():
        yield Alone()
        return
    _outlive_no_launcher()
    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    distributed.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        group = Group()
        with learning_with(group):
            yield group
    finally:
        distributed.destroy_process_group()


def _outlive_no_launcher() -> None:
    """Have this process asked to end, as by SIGTERM, when the one that started it is gone: nobody else would ask it."""
    launcher = int(os.environ.get(LAUNCHER, "0"))  # none where torchrun started it, which watches by itself

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(LOOK)
        say(f"the process that started this one ({launcher}) is gone: this one ends, too")
        os.kill(os.getpid(), signal.SIGTERM)

    if launcher and os.name == "posix":  # elsewhere a process has the parent it had
        threading.Thread(target=watch, name="launcher", daemon=True).start()


def launch(start: Sequence[str], argv: Sequence[str], devices: int, logdir: Path, says: str = "") -> int:
    """Run `python *start *argv` as `devices` processes; gives the first exit code that is not 0.

    says: the command of which they speak to the user, which is not their own. Signals that ask to end are passed
    on. Where one fails the others are ended. The first process speaks; what the others say is in
    LOGDIR/rank-<i>/said.log.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {typed.PROGRAM: says, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(devices)}
    others: list[subprocess.Popen[bytes]] = []
    made = [folder for folder in (logdir, *logdir.parents) if not folder.exists()]
    with handled(lambda number, _: _tell(others, number)):
        for rank in range(devices):
            said = None
            if rank:
                folder = logdir / f"rank-{rank}"
                durable.make_folder(folder)
                said = (folder / "said.log").open("ab")
            env = os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank), LAUNCHER: str(os.getpid())}
            command = [sys.executable, *start, *argv]
            others.append(subprocess.Popen(command, env=env, stdout=said, stderr=said, start_new_session=True))
        failed = _wait(others)
    if others[0].returncode == REFUSED:  # it said why, and what the others say is the same
        _clear(logdir, devices, made)
    elif failed and 0 < others[failed].returncode < 128:
        say(f"process {failed} of {devices} failed: see {logdir}/rank-{failed}/said.log")
    return next((one.returncode for one in (others[failed], *others) if one.returncode), 0)


def _clear(logdir: Path, devices: int, made: Sequence[Path]) -> None:
    """Take away what holds nothing but what processes said that were refused, and the folders `made` for it."""
    for rank in range(1, devices):
        folder = logdir / f"rank-{rank}"
        if folder.is_dir() and {path.name for path in folder.iterdir()} <= {"said.log", ".lock"}:
            for path in folder.iterdir():
                path.unlink()
            folder.rmdir()
    with suppress(OSError):  # it holds a run
        for folder in made:
            folder.rmdir()


def _wait(others: list[subprocess.Popen[bytes]]) -> int:
    """Until all have ended, those that are left by force some time after one has failed; the number of that one, else 0."""
    failed, deadline = 0, float("inf")
    while any(other.poll() is None for other in others):
        gone = [rank for rank, other in enumerate(others) if other.returncode]
        if gone and deadline == float("inf"):
            failed, deadline = gone[0], time.monotonic() + GRACE
        if time.monotonic() > deadline:
            _tell(others, signal.SIGKILL)
        time.sleep(0.1)
    return failed or next((rank for rank, other in enumerate(others) if other.returncode), 0)


def _tell(others: list[subprocess.Popen[bytes]], number: int) -> None:
    for other in others:
        if other.poll() is None:
            other.send_signal(number)


def check(devices: int, device: str) -> None:
    """Raises UserError for more GPUs than there are, or for a number of processes that is not this run's."""
    if inside() and int(os.environ["WORLD_SIZE"]) != devices:
        raise UserError(f"--devices {devices} was given, but {os.environ['WORLD_SIZE']} processes were started")
    if device == "cuda" and devices > torch.cuda.device_count():
        raise UserError(f"--devices {devices} was asked for, but torch sees {torch.cuda.device_count()} GPUs")
