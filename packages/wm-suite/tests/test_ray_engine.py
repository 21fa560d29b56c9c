"""The Ray engine keeps the protocol of engines, before a stand-in for Ray; tests/integration has the real one."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from wm_suite import ray_engine
from wm_suite.engines import Engine
from wm_suite.errors import SuiteError
from wm_suite.job import Job, Outcome
from wm_suite.worker import Halt

Make = Callable[..., Job]


class RayError(Exception):
    """Of Ray's."""


class TaskCancelledError(RayError):
    """Of a task that was cancelled."""


class Stand:
    """Tasks are functions that are called when somebody waits for them; a cancelled one never is."""

    exceptions = SimpleNamespace(RayError=RayError, TaskCancelledError=TaskCancelledError)

    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}
        self.resources: dict[str, Any] = {}
        self.calls: dict[int, Callable[[], Any]] = {}
        self.most = 0
        self.gpus = 0.0
        self.dying = False
        self.starts = self.busy = 0

    def init(self, **asked: Any) -> None:
        if asked.get("address") == "ray://nowhere:1":
            raise ConnectionError("ray client connection timeout")
        self.starts += 1
        if self.dying or self.starts <= self.busy:
            raise Exception("The current node timed out during startup.")  # noqa: TRY002 - as it does
        self.asked = asked

    def shutdown(self) -> None:
        """Of what has not started."""

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 4, "GPU": self.gpus}

    def remote(self, **resources: Any) -> Callable[..., Any]:
        self.resources = resources

        def of(function: Callable[..., Any]) -> Any:
            def call(*words: Any) -> int:
                number = len(self.calls)
                self.calls[number] = lambda: function(*words)
                return number

            return SimpleNamespace(remote=call)

        return of

    def wait(self, references: list[int], timeout: float) -> tuple[list[int], list[int]]:
        self.most = max(self.most, len(references))
        return references[-1:], references[:-1]

    def cancel(self, reference: int, force: bool, recursive: bool) -> None:
        assert not force

        def cancelled() -> None:
            raise TaskCancelledError

        self.calls[reference] = cancelled

    def get(self, reference: int) -> Any:
        call = self.calls.pop(reference)
        self.calls[len(self.calls) + 100] = call  # numbers are not used twice
        if self.dying:
            raise RayError("The worker died unexpectedly.\n\tout of memory\n")
        return call()


@pytest.fixture
def stand(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stand]:
    one = Stand()
    monkeypatch.setitem(sys.modules, "ray", one)
    yield one


def test_runs_are_tasks_and_outcomes_come_as_they_end(stand: Stand, job: Make) -> None:
    engine: Engine = ray_engine.Ray("ray", slots=2, cpus=3)
    jobs = [job(seed) for seed in range(3)]
    found = list(engine.carry_out(jobs, Halt()))
    assert [one.state for one in found] == ["done"] * 3 and {one.cell.seed for one in found} == {0, 1, 2}
    assert all(one.row and one.row["trained"] for one in found)
    assert stand.most == 2
    assert stand.asked["num_cpus"] == 6 and stand.resources == {"num_cpus": 3, "num_gpus": 0.0, "max_retries": 2}


def test_a_card_is_shared_as_it_is_asked(stand: Stand) -> None:
    stand.gpus = 2
    ray_engine.Ray("ray://head:10001")
    assert stand.asked["address"] == "ray://head:10001" and stand.resources["num_gpus"] == 1.0
    ray_engine.Ray("ray://head:10001", gpus=0.25)
    assert stand.resources["num_gpus"] == 0.25


@pytest.mark.parametrize(("given", "kept"), [(None, "0"), ("1", "1")])
def test_begun_by_uv_run_it_sends_no_working_folder_to_its_workers(
    stand: Stand, given: str | None, kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray reads it when it is imported; who wants a folder to be sent says so."""
    name, found = "RAY_ENABLE_UV_RUN_RUNTIME_ENV", list[str | None]()
    monkeypatch.setenv(name, given or "")
    if given is None:
        monkeypatch.delenv(name)

    def imported(module: str) -> Stand:
        found.append(os.environ.get(name))
        return stand

    monkeypatch.setattr(ray_engine.importlib, "import_module", imported)
    ray_engine.Ray("ray")
    assert found == [kept]


def test_a_cluster_that_begins_no_task_is_waited_for_and_says_so(
    stand: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Where its workers die Ray itself says nothing, and its calls neither come back nor let other threads run."""
    monkeypatch.setattr(ray_engine, "LATE", 0.05)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    said, get = list[str](), stand.get

    def stuck(reference: int) -> Any:
        until = time.monotonic() + 30
        while not "".join(said):
            assert time.monotonic() < until
            said.append(capfd.readouterr().err)
        return get(reference)

    monkeypatch.setattr(stand, "get", stuck)
    assert ray_engine.Ray("ray").slots == 1
    told = "".join(said)
    assert "begun no task for 0 seconds" in told and f"{tmp_path}/ray/session_latest/logs/raylet.err says why" in told
    monkeypatch.setattr(stand, "get", get)
    monkeypatch.setattr(ray_engine, "LATE", 0.5)
    ray_engine.Ray("ray")
    time.sleep(0.7)
    assert not capfd.readouterr().err  # nobody is told of what came in time


def test_a_signal_is_heard_by_who_asked_for_it(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray puts a handler of its own in the place of SIGTERM's."""
    heard, init, before = list[int](), stand.init, signal.getsignal(signal.SIGTERM)

    def takes_it(**asked: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        init(**asked)

    monkeypatch.setattr(stand, "init", takes_it)
    try:
        signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
        ray_engine.Ray("ray")
        signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]


@pytest.mark.parametrize(
    ("temporary", "given", "kept"), [("env/tmp", None, "/tmp"), ("env/tmp", "mine", "mine"), ("tmp", None, None)]
)
def test_its_files_are_not_in_the_virtual_environment(
    stand: Stand,
    temporary: str,
    given: str | None,
    kept: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where nox has its temporary files; Ray's workers refuse such a folder."""
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path / "env"))
    monkeypatch.setattr(ray_engine.tempfile, "gettempdir", lambda: str(tmp_path / temporary))
    monkeypatch.setenv("RAY_TMPDIR", given or "")
    if given is None:
        monkeypatch.delenv("RAY_TMPDIR")
    ray_engine.Ray("ray")
    assert os.environ.get("RAY_TMPDIR") == kept


def test_a_cluster_that_is_late_is_started_again(stand: Stand) -> None:
    stand.busy = 2
    assert ray_engine.Ray("ray").slots == 1 and stand.starts == 3


def test_halting_cancels_what_is_under_way_and_begins_no_more(stand: Stand, job: Make) -> None:
    engine, halt = ray_engine.Ray("ray", slots=2), Halt()
    outcomes = engine.carry_out([job(seed) for seed in range(4)], halt)
    assert next(outcomes).state == "done"
    halt.set()
    rest = list(outcomes)
    assert [one.state for one in rest] == ["stopped"] * 3 and len({one.cell.seed for one in rest}) == 3


def test_what_ray_cannot_carry_out_is_a_sentence(stand: Stand, job: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, stand.dying = ray_engine.Ray("ray"), True
    (one,) = engine.carry_out([job()], Halt())
    assert one.state == "failed" and one.sentence.endswith("Ray could not carry it out: out of memory")
    with pytest.raises(SuiteError, match=r"no Ray cluster answers at ray://nowhere:1: ray client connection timeout"):
        ray_engine.Ray("ray://nowhere:1")
    with pytest.raises(SuiteError, match=r"no Ray cluster answers at ray: The current node timed out"):
        ray_engine.Ray("ray")  # Ray's own error is a bare one
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SuiteError, match=r"install wm-suite\[ray\]"):
        ray_engine.Ray("ray")


def test_a_cluster_that_carries_out_no_task_is_a_sentence(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(reference: int) -> Any:
        raise RayError("The worker died unexpectedly.\n\tout of memory\n")

    monkeypatch.setattr(stand, "get", dies)
    with pytest.raises(SuiteError, match=r"carries out no task: The worker died unexpectedly. out of memory"):
        ray_engine.Ray("ray")


def test_a_cancelled_task_lets_its_run_save(job: Make, comes_to: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray raises KeyboardInterrupt where a task is cancelled."""
    one, join = job(steps=100, pace=0.02), threading.Thread.join

    def interrupted(thread: threading.Thread, timeout: float | None = None) -> None:
        until = time.monotonic() + 30
        while not (one.folder / "config.toml").exists():
            assert time.monotonic() < until
            time.sleep(0.02)
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "join", interrupted)
    found = ray_engine.attended(one.to_json())
    assert isinstance(found, Outcome) and found.state == "stopped" and join is threading.Thread.join
    assert Path(one.folder / "state.json").exists()
