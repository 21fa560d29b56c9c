"""Environments in spawned processes over shared memory; a dead or hung process is replaced and its rows named."""

# a worker ("its process") holds the environments of some rows; a fault is a row's, a lost process is one for each of its

from __future__ import annotations

import multiprocessing as mp
import os
import pickle
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from typing import Any, cast

from gymnasium.vector.utils import CloudpickleWrapper

from env_adapters.errors import TaskError
from env_adapters.faults import Fault, fault_of, raised
from env_adapters.patience import Patience
from env_adapters.rows import SKIP, Layout, Runner, arrays, size_of
from env_adapters.step import Environment
from env_adapters.values import Notices

_START = 120.0  # seconds a process has to import everything and make its environments, if its patience is no longer
_RESTORE = 600.0  # re-executing long episodes takes its time
_DIED = Fault("died")
# What stops a run reaches every process of its terminal, or of its job; whether it stops is the parent's to decide.
_PARENTS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)
]


@contextmanager
def undisturbed() -> Iterator[None]:
    """Processes started inside begin with these signals held back until they have their handlers."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _PARENTS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)  # what came meanwhile is heard now


@contextmanager
def environ(variables: Mapping[str, str]) -> Iterator[None]:
    """Processes started inside begin with these environment variables; this one has them for that long.

    Some are read while a module is imported, and a spawned process imports the caller's script before anything of ours.
    """
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def leave_to_the_parent() -> None:
    """Hear the parent's signals and do nothing. A handler, unlike SIG_IGN, is not handed down to what is started here,
    so that a game or a simulator can still be ended by its environment."""
    for number in _PARENTS:
        signal.signal(number, lambda number, frame: None)
        signal.siginterrupt(number, False)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _PARENTS)


def serve(connection: Connection, factory: bytes, buffer: Any, plan: Layout, first: int, stop: int) -> None:
    """The worker's life: make the environments of rows first..stop-1, then answer until the other end is gone."""
    leave_to_the_parent()
    try:
        runner = Runner(pickle.loads(factory), range(first, stop), arrays(plan, buffer))
    except BaseException as error:  # noqa: BLE001  # whatever it is, the parent must hear of it; this is the end of the process
        connection.send(("error", fault_of(error)))
        return
    connection.send(("done", None))
    while True:
        try:
            verb, argument = connection.recv()
        except (EOFError, OSError):
            break
        reply: tuple[str, Any]
        try:
            reply = "done", runner.run() if verb == "run" else runner.ask(verb, argument)
        except Exception as error:  # noqa: BLE001  # a fault of ours, then: the runner catches what environments raise
            reply = "error", fault_of(error)
        try:
            connection.send(reply)
        except (BrokenPipeError, ConnectionResetError):  # the parent left while this one was at work
            break
    runner.close()


class Workers:
    """`count` processes that share n rows; `sentences` collects a sentence for each process and environment that was lost,
    `notices` what they took.

    timeout: seconds after which a process that does not answer counts as hung, from when its answer is waited for; while this
    process itself is stopped, none pass.
    variables: of the environment that the processes begin with, beside those of this process.
    TaskError where the environments cannot be made.
    """

    def __init__(
        self,
        factory: Callable[[int], Environment],
        plan: Layout,
        n: int,
        count: int,
        timeout: float,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.sentences: list[str] = []
        self.notices: Notices = {}
        self._out: tuple[list[int], dict[int, Fault]] = [], {}  # who carries commands out, and who cannot
        self._context = mp.get_context("spawn")
        # read where a worker can tell what it lacks; the wrapper is typed for factories without argument
        self._factory = CloudpickleWrapper(factory).__getstate__()  # type: ignore[arg-type]
        self._plan, self._timeout, self._variables = plan, timeout, variables or {}
        self._buffer = self._context.RawArray("B", size_of(plan))
        self.rows = arrays(plan, self._buffer)
        self._bounds = [(n * i // count, n * (i + 1) // count) for i in range(count)]
        self._processes: list[Any] = [None] * count
        self._ends: list[Connection | None] = [None] * count  # None for a process that could not be started again
        try:
            for worker in range(count):
                self._start(worker)
            failed = self._collect(list(range(count)), max(_START, timeout))[1]
            if failed:
                worker, fault = next(iter(failed.items()))
                raise TaskError(fault.reason if fault.final else f"{self._of(worker)} {_not_started(fault)}")
        except BaseException:
            self.close()
            raise

    def pids(self) -> list[int]:
        """Process id of each worker."""
        return [process.pid for process in self._processes]

    def begin(self) -> None:
        """Have the commands in the rows carried out. The rows are the workers' until `finish` returns."""
        commands = self.rows["/command"]
        busy = [worker for worker, (first, stop) in enumerate(self._bounds) if (commands[first:stop] != SKIP).any()]
        self._out = self._send(dict.fromkeys(busy, ("run", None)))

    def finish(self) -> dict[int, Fault]:
        """Wait until the commands are carried out; the rows that gave no record. Lost processes have been replaced."""
        (waiting, failed), self._out = self._out, ([], {})
        replies, faults = self._receive(waiting, failed, self._timeout)
        for raising, notices in replies.values():
            self.sentences += [raised(row, fault) for row, fault in raising.items()]
            self.notices |= notices
            faults |= raising
        return faults

    def ask(self, verb: str, arguments: dict[int, Any]) -> tuple[dict[int, Any], dict[int, Fault]]:
        """A verb of `Runner` for some rows; the answers, and the rows that gave none."""
        messages = {}
        for worker, (first, stop) in enumerate(self._bounds):
            part = {row: arguments[row] for row in range(first, stop) if row in arguments}
            if part:
                messages[worker] = (verb, part)
        replies, faults = self._receive(*self._send(messages), max(self._timeout, _RESTORE))
        answers: dict[int, Any] = {}
        for answered, raising in replies.values():
            self.sentences += [raised(row, fault) for row, fault in raising.items()]
            answers |= answered
            faults |= raising
        return answers, faults

    def close(self) -> None:
        """End the processes; one that does not leave within seconds is killed."""
        for end in self._ends:
            if end is not None:
                end.close()  # a worker leaves when its connection ends
        for process in self._processes:
            if process is not None and process.is_alive():
                process.join(5)
                if process.is_alive():
                    process.kill()
                    process.join()

    def _send(self, messages: dict[int, tuple[str, Any]]) -> tuple[list[int], dict[int, Fault]]:
        """Workers that will answer, and what became of the others."""
        failed = {}
        for worker, message in messages.items():
            end = self._ends[worker]
            if end is None:
                fault = self._restart(worker)
                if fault is not None:
                    self.sentences.append(f"{self._of(worker)} could not be started again: {fault.reason}")
                    failed[worker] = fault
                    continue
                end = self._ends[worker]
                assert end is not None
            try:
                end.send(message)
            except (BrokenPipeError, ConnectionResetError):
                failed[worker] = _DIED
        return [worker for worker in messages if worker not in failed], failed

    def _receive(
        self, waiting: list[int], failed: dict[int, Fault], timeout: float
    ) -> tuple[dict[int, Any], dict[int, Fault]]:
        """The answers by worker, and the rows of those that gave none, which are replaced."""
        replies, silent = self._collect(waiting, timeout)
        failed = failed | silent
        lost = {worker: self._replace(worker, fault) for worker, fault in failed.items()}
        return replies, {row: fault for worker, fault in sorted(lost.items()) for row in range(*self._bounds[worker])}

    def _collect(self, workers: list[int], timeout: float) -> tuple[dict[int, Any], dict[int, Fault]]:
        """Answers by worker, and what became of those that gave none."""
        waiting: dict[Any, int] = {self._ends[worker]: worker for worker in workers}
        replies: dict[int, Any] = {}
        failed: dict[int, Fault] = {}
        patience = Patience(timeout)
        while waiting:
            ready = patience.until(lambda seconds: wait(list(waiting), seconds))
            if not ready:
                silent = Fault(f"gave no answer within its timeout of {timeout:g} s")
                failed |= dict.fromkeys(waiting.values(), silent)
                break
            for end in cast("list[Connection]", ready):
                worker = waiting.pop(end)
                try:
                    kind, value = end.recv()
                except (EOFError, ConnectionResetError):
                    failed[worker] = _DIED
                    continue
                if kind == "error":
                    failed[worker] = value
                else:
                    replies[worker] = value
        return replies, failed

    def _start(self, worker: int) -> None:
        near, far = self._context.Pipe()
        process = self._context.Process(
            target=serve,
            args=(far, self._factory, self._buffer, self._plan, *self._bounds[worker]),
            name=f"env-worker-{worker}",
            daemon=True,
        )
        with undisturbed(), environ(self._variables):
            process.start()
        far.close()  # only the child holds it now, so that its death ends the connection
        self._processes[worker], self._ends[worker] = process, near

    def _replace(self, worker: int, fault: Fault) -> Fault:
        """End a process and start its like; what the rows of the lost one are told."""
        end = self._ends[worker]
        if end is None:  # it could not even be started, which is told
            return fault
        process = self._processes[worker]
        process.join(1 if fault == _DIED else 0)
        code = f" (exit code {process.exitcode})" if fault == _DIED else ""
        again = self._restart(worker)
        after = f"could not be started again: {again.reason}" if again else "was replaced"
        self.sentences.append(f"{self._of(worker)} {fault.reason}{code} and {after}")
        return Fault(f"its worker {fault.reason}{code}", fault.final)

    def _restart(self, worker: int) -> Fault | None:
        """Start a process in place of another; why it does not serve, if it does not."""
        self._stop(worker)
        try:
            self._start(worker)
        except OSError as error:  # no memory, no more processes
            return fault_of(error)
        fault = self._collect([worker], max(_START, self._timeout))[1].get(worker)
        if fault is not None:
            self._stop(worker)
        return fault

    def _stop(self, worker: int) -> None:
        """Let go of a process, whatever it does."""
        process, end = self._processes[worker], self._ends[worker]
        process.kill()
        process.join()
        if end is not None:
            end.close()
        self._ends[worker] = None

    def _of(self, worker: int) -> str:
        first, stop = self._bounds[worker]
        which = f"environment {first}" if stop == first + 1 else f"environments {first} to {stop - 1}"
        return f"worker {worker} ({which})"


def _not_started(fault: Fault) -> str:
    """What became of a process that never served."""
    if fault != _DIED:
        return f"could not be started: {fault.reason}"
    return "died while starting; if this is a script, put what it does under `if __name__ == '__main__':`, or pass workers=0"


def default_count(n: int) -> int:
    """Processes for n environments that are worth one: none for a single environment, else at most one per core."""
    return 0 if n == 1 else min(n, os.cpu_count() or 1)
