"""Ray: each run is a task, placed by the CPUs and the share of a GPU that it asks for; several small runs share a card.

A task is `carry_out`, as everywhere: Ray places it and starts it again where its worker or its node has died, and the run
goes on from what it had saved. The folder of runs has to be the same on all machines. Needs wm-suite[ray].
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from wm_suite.errors import SuiteError
from wm_suite.job import Job, Outcome
from wm_suite.worker import Halt, carry_out

RETRIES = 2  # of a task whose worker has died
STARTS = 3  # of a cluster of one's own
LATE = 60.0  # seconds without a task, after which the user is told
TELLER = """import os, sys, time
who, seconds, sentence = sys.argv[1:]
time.sleep(float(seconds))
if os.getppid() == int(who):
    print(sentence, file=sys.stderr)
"""
LOOK = 0.5  # seconds between looks at whether to halt


class Ray:
    """Runs on a Ray cluster.

    address: "ray" for a cluster of this machine alone that lives as long as the driver; ray://host:port, or host:port of one
    that is there. slots: runs at a time. gpus: the share of a card that a run takes, 0 for none; None for a whole one where
    the cluster has cards. cpus: of a run.

    Raises SuiteError where Ray is not installed or the cluster does not answer.
    """

    def __init__(self, address: str = "ray", slots: int = 1, gpus: float | None = None, cpus: int = 1) -> None:
        # else Ray, begun under `uv run`, sends the working folder to every worker, recordings and runs with it, or refuses one that
        # holds no pyproject.toml; read when Ray is imported
        os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
        if _in_environment(_temporary()):
            # where nox has it; Ray's workers refuse a folder there, and its driver would wait for them for ever
            os.environ.setdefault("RAY_TMPDIR", os.path.join(os.sep, "tmp"))
        try:
            ray: Any = importlib.import_module("ray")
        except ImportError as error:
            raise SuiteError("--on ray needs the package ray: install wm-suite[ray]") from error
        self._ray = ray
        os.environ.setdefault("RAY_worker_niceness", "0")  # else 15: runs would wait for whatever else the machine does
        where = {"num_cpus": slots * cpus, "include_dashboard": False} if address == "ray" else {"address": address}
        with _heard(), _late() if address == "ray" else nullcontext():  # of another's cluster the queue may be long
            _start(ray, address, where)
            if address == "ray":
                _try(ray, cpus)
        if gpus is None:
            gpus = 1.0 if ray.cluster_resources().get("GPU") else 0.0
        self._slots = slots
        self._task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES)(attended)

    @property
    def slots(self) -> int:
        """How many at a time."""
        return self._slots

    def carry_out(self, jobs: Sequence[Job], halt: Halt) -> Iterator[Outcome]:
        """See `wm_suite.engines.Engine`."""
        ray, waiting, cancelled = self._ray, list(jobs), False
        under_way: dict[Any, Job] = {}
        while waiting or under_way:
            while waiting and len(under_way) < self._slots and not halt:
                job = waiting.pop(0)
                under_way[self._task.remote(job.to_json())] = job
            if halt and not cancelled:
                cancelled = True
                for reference in under_way:
                    ray.cancel(reference, force=False, recursive=False)
            if halt:
                yield from (_stopped(job) for job in waiting)
                waiting = []
            ended, _ = ray.wait(list(under_way), timeout=LOOK) if under_way else ([], [])
            for reference in ended:
                yield self._outcome(reference, under_way.pop(reference))

    def _outcome(self, reference: Any, job: Job) -> Outcome:
        ray = self._ray
        try:
            found: Outcome = ray.get(reference)
        except ray.exceptions.TaskCancelledError:
            return _stopped(job)
        except ray.exceptions.RayError as error:
            lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
            return Outcome(
                job.cell, "failed", f"{job.cell.name}: Ray could not carry it out: {lines[-1].strip()[:300]}"
            )
        return found


def _temporary() -> Path:
    """Where Ray keeps the files of a cluster of one's own, as it finds that itself."""
    usual = os.path.join(os.sep, "tmp") if sys.platform == "darwin" else tempfile.gettempdir()
    return Path(os.environ.get("RAY_TMPDIR") or usual)


def _in_environment(folder: Path) -> bool:
    """Whether a folder lies in the virtual environment of this process."""
    environment = os.environ.get("VIRTUAL_ENV")
    return bool(environment) and folder.resolve().is_relative_to(Path(str(environment)).resolve())


def _start(ray: Any, address: str, where: Mapping[str, Any]) -> None:
    """Connect. Raises SuiteError. A cluster of one's own that has not started within Ray's 30 seconds, as on a machine that
    is busy, is tried again."""
    for left in reversed(range(STARTS if address == "ray" else 1)):
        try:
            ray.init(**where, log_to_driver=False, configure_logging=False)
        except Exception as error:  # a bare one where it does not start in time
            ray.shutdown()
            if not left:
                raise SuiteError(
                    f"no Ray cluster answers at {address}: {' '.join(str(error).split())[:200]}"
                ) from error
        else:
            return


def _try(ray: Any, cpus: int) -> None:
    """Wait for a task of a cluster that has just started. Raises SuiteError where it fails."""
    try:
        ray.get(ray.remote(num_cpus=cpus)(begun).remote())
    except ray.exceptions.RayError as error:
        ray.shutdown()
        raise SuiteError(f"Ray starts and carries out no task: {' '.join(str(error).split())[:300]}") from error


@contextmanager
def _late() -> Iterator[None]:
    """Told where what is done here takes long: where its workers die as they start, Ray tries for ever and says nothing. By
    another process, since no thread of this one comes to its turn then."""
    log = _temporary() / "ray" / "session_latest" / "logs" / "raylet.err"
    sentence = (
        f"Ray has begun no task for {LATE:.0f} seconds, and is waited for; where its workers die as they start {log} says why. "
        "`--on local` needs no Ray."
    )
    teller = subprocess.Popen([sys.executable, "-c", TELLER, str(os.getpid()), str(LATE), sentence])
    try:
        yield
    finally:
        teller.kill()
        teller.wait()


@contextmanager
def _heard() -> Iterator[None]:
    """Who is told of a signal stays told of it: Ray takes SIGTERM for itself, and would end at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def begun() -> None:
    """A task that shows that tasks are carried out."""


def attended(text: str) -> Outcome:
    """A job, by a task that may be cancelled: the run saves then."""
    halt, found = Halt(), list[Outcome]()
    thread = threading.Thread(target=lambda: found.append(carry_out(Job.from_json(text), halt)))
    thread.start()
    while thread.is_alive():
        try:
            thread.join(LOOK)
        except KeyboardInterrupt:  # as Ray cancels a task
            halt.set()
    return found[0]


def _stopped(job: Job) -> Outcome:
    return Outcome(job.cell, "stopped", f"{job.cell.name}: stopped, and goes on from there")
