"""Environments in spawned processes over shared memory; a dead or hung process is replaced and its rows named."""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any, cast

from gymnasium.vector.utils import CloudpickleWrapper

from env_adapters.errors import TaskError
from env_adapters.rows import SKIP, Layout, Runner, arrays, size_of
from env_adapters.step import Environment

_START = 120.0  # seconds a process has to import everything and make its environments
_RESTORE = 600.0  # re-executing long episodes takes its time


def serve(connection: Connection, factory: Any, buffer: Any, plan: Layout, first: int, stop: int) -> None:
    """The worker's life: make the environments of rows first..stop-1, then answer until the other end is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    try:
        runner = Runner([factory.fn(row) for row in range(first, stop)], arrays(plan, buffer), first)
    except Exception as error:  # noqa: BLE001  # whatever it is, the parent must hear of it; this is the end of the process
        connection.send(("error", (isinstance(error, TaskError), str(error), traceback.format_exc())))
        return
    connection.send(("done", None))
    while True:
        try:
            verb, argument = connection.recv()
        except (EOFError, OSError):
            break
        reply: tuple[str, Any]
        try:
            reply = "done", serve_one(runner, verb, argument)
        except Exception as error:  # noqa: BLE001  # the same: an environment's own error is raised in the parent
            reply = "error", (isinstance(error, TaskError), str(error), traceback.format_exc())
        try:
            connection.send(reply)
        except (BrokenPipeError, ConnectionResetError):  # the parent left while this one was at work
            break
    runner.close()


def serve_one(runner: Runner, verb: str, argument: Any) -> dict[int, Any]:
    """Carry out one message; "run" answers through the shared rows."""
    if verb == "run":
        runner.run()
        return {}
    return runner.ask(verb, argument)


class Workers:
    """`count` processes that share n rows; `faults` collects a sentence for each process that was lost.

    timeout: seconds after which a process that does not answer counts as hung, from when its answer is waited for.
    """

    def __init__(self, factory: Callable[[int], Environment], plan: Layout, n: int, count: int, timeout: float) -> None:
        self.faults: list[str] = []
        self._out: tuple[list[int], dict[int, str]] = [], {}  # who carries commands out, and who cannot
        self._context = mp.get_context("spawn")
        self._factory: Any = CloudpickleWrapper(factory)  # type: ignore[arg-type]  # typed for factories without argument
        self._plan, self._timeout = plan, timeout
        self._buffer = self._context.RawArray("B", size_of(plan))
        self.rows = arrays(plan, self._buffer)
        self._bounds = [(n * i // count, n * (i + 1) // count) for i in range(count)]
        self._processes: list[Any] = [None] * count
        self._ends: list[Connection] = [None] * count  # type: ignore[list-item]
        try:
            for worker in range(count):
                self._start(worker)
            _, failed = self._collect(range(count), _START)
            if failed:
                raise RuntimeError(_died_starting(failed))
        except BaseException:
            self.close()
            raise

    def pids(self) -> list[int]:
        """Process id of each worker."""
        return [process.pid for process in self._processes]

    def begin(self) -> None:
        """Have the commands in the rows carried out. The rows are the workers' until `finish` returns."""
        commands = self.rows["in/command"]
        busy = [worker for worker, (first, stop) in enumerate(self._bounds) if (commands[first:stop] != SKIP).any()]
        self._out = self._send(dict.fromkeys(busy, ("run", None)))

    def finish(self) -> list[int]:
        """Wait until the commands are carried out; the rows of lost workers, which have been replaced."""
        (waiting, failed), self._out = self._out, ([], {})
        return self._receive(waiting, failed, self._timeout)[1]

    def ask(self, verb: str, arguments: dict[int, Any]) -> tuple[dict[int, Any], list[int]]:
        """A verb of `Runner` for some rows; the answers, and the rows of lost workers."""
        messages = {}
        for worker, (first, stop) in enumerate(self._bounds):
            part = {row: arguments[row] for row in range(first, stop) if row in arguments}
            if part:
                messages[worker] = (verb, part)
        replies, lost = self._receive(*self._send(messages), max(self._timeout, _RESTORE))
        return {row: answer for reply in replies.values() for row, answer in reply.items()}, lost

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

    def _send(self, messages: dict[int, tuple[str, Any]]) -> tuple[list[int], dict[int, str]]:
        """Workers that will answer, and what became of the others."""
        failed = {}
        for worker, message in messages.items():
            try:
                self._ends[worker].send(message)
            except (BrokenPipeError, ConnectionResetError):
                failed[worker] = "died"
        return [worker for worker in messages if worker not in failed], failed

    def _receive(self, waiting: list[int], failed: dict[int, str], timeout: float) -> tuple[dict[int, Any], list[int]]:
        """The answers, and the rows of those that gave none, which are replaced."""
        replies, silent = self._collect(waiting, timeout)
        failed = failed | silent
        for worker, reason in failed.items():
            self._replace(worker, reason)
        return replies, [row for worker in sorted(failed) for row in range(*self._bounds[worker])]

    def _collect(self, workers: Any, timeout: float) -> tuple[dict[int, Any], dict[int, str]]:
        """Answers by worker, and what became of those that gave none; raises what an environment raised."""
        waiting: dict[Any, int] = {self._ends[worker]: worker for worker in workers}
        replies: dict[int, Any] = {}
        failed: dict[int, str] = {}
        errors: list[tuple[int, tuple[bool, str, str]]] = []
        deadline = time.monotonic() + timeout
        while waiting:
            ready = wait(list(waiting), max(0.0, deadline - time.monotonic()))
            if not ready:
                failed |= dict.fromkeys(waiting.values(), f"gave no answer for {timeout:g} s")
                break
            for end in cast("list[Connection]", ready):
                worker = waiting.pop(end)
                try:
                    kind, value = end.recv()
                except (EOFError, ConnectionResetError):
                    failed[worker] = "died"
                    continue
                if kind == "error":
                    errors.append((worker, value))
                else:
                    replies[worker] = value
        if errors:  # only now, when no answer is left in a pipe
            worker, (users, text, trace) = errors[0]
            if users:
                raise TaskError(text)
            raise RuntimeError(f"an environment of worker {worker} raised:\n{trace}")
        return replies, failed

    def _start(self, worker: int) -> None:
        near, far = self._context.Pipe()
        process = self._context.Process(
            target=serve,
            args=(far, self._factory, self._buffer, self._plan, *self._bounds[worker]),
            name=f"env-worker-{worker}",
            daemon=True,
        )
        process.start()
        far.close()  # only the child holds it now, so that its death ends the connection
        self._processes[worker], self._ends[worker] = process, near

    def _replace(self, worker: int, reason: str) -> None:
        process = self._processes[worker]
        process.join(1 if reason == "died" else 0)
        code = f" (exit code {process.exitcode})" if reason == "died" else ""
        process.kill()
        process.join()
        self._ends[worker].close()
        self._start(worker)
        _, failed = self._collect([worker], _START)
        if failed:
            raise RuntimeError(_died_starting(failed))
        first, stop = self._bounds[worker]
        which = f"environment {first}" if stop == first + 1 else f"environments {first} to {stop - 1}"
        self.faults.append(f"worker {worker} ({which}) {reason}{code} and was replaced")


def _died_starting(failed: dict[int, str]) -> str:
    worker, reason = next(iter(failed.items()))
    return (
        f"worker {worker} {reason} while starting; if this is a script, put what it does under "
        "`if __name__ == '__main__':`, or pass workers=0"
    )


def default_count(n: int) -> int:
    """Processes for n environments that are worth one: none for a single environment, else at most one per core."""
    return 0 if n == 1 else min(n, os.cpu_count() or 1)
