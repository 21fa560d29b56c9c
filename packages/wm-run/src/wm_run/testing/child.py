"""The process that imports an app once; every training process is a fork of it that has done nothing else yet.

python -m wm_run.testing.child APP [SETUP]: SETUP is Python that runs first. A line of standard input is a run: a JSON list
of its folder, the file for its stderr, a place, a number and its argv. The app gets SIGKILL before the n-th operation on a
file of the run folder (of those that Python opens; the weights are written by safetensors, which is not seen), or before
the n-th line of wm_run's inside certain functions. Standard output tells the fork's id, and then how it ended.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

OURS = f"{os.sep}wm_run{os.sep}"
KINDS = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "shutil.rmtree"}
# place -> the functions inside whose lines it lies
FUNCTIONS: dict[str, list[tuple[str, str]]] = {
    "save": [("session:Session", "save")],
    "checkpoint": [("checkpoint", "save")],
    "load": [("session:Session", "load")],
    "annotate": [("replay:Replay", "annotate")],
    "evict": [("replay:Replay", "_evict"), ("chunks:Chunks", "allocate")],
    "log": [("folder:Run", "metrics"), ("folder:Run", "score")],
    "raise": [("folder:Run", "protocol"), ("folder:Run", "environment")],
}


class Fate:
    """Counts what happens at every place, and ends the process at the n-th of one."""

    def __init__(self, folder: str, place: str, fatal: int) -> None:
        self.folder, self.place, self.fatal = folder, place, fatal
        self.seen: Counter[str] = Counter()

    def count(self, kind: str, what: str) -> None:
        """One more; it may be the last."""
        self.seen[kind] += 1
        if kind == self.place and self.seen[kind] == self.fatal:
            os.write(2, f"KILLED before {what}\n".encode())
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self, event: str, args: Any) -> None:
        """An audit hook."""
        if event not in KINDS or not isinstance(args[0], (str, os.PathLike)):
            return
        path = os.fspath(args[0])
        inside = isinstance(path, str) and path.startswith(self.folder)
        deeper = event in ("os.remove", "os.rmdir") and not os.path.isabs(path)  # of a tree that is being removed
        if inside or deeper:
            self.count("file", f"{event} {os.path.relpath(path, self.folder) if inside else path}")

    def trace(self, owner: Any, name: str, kind: str) -> None:
        """Count the lines inside a function from now on."""
        real = getattr(owner, name)

        def tracer(frame: FrameType, event: str, argument: Any) -> Callable[..., Any] | None:
            code = frame.f_code
            if OURS not in code.co_filename or code.co_filename == __file__:
                return None
            if event == "line":
                file = os.path.basename(code.co_filename)
                self.count(kind, f"line {frame.f_lineno} of {file} ({code.co_name})")
            return tracer

        def traced(*args: Any, **options: Any) -> Any:
            outer = sys.gettrace()
            sys.settrace(tracer)
            try:
                return real(*args, **options)
            finally:
                sys.settrace(outer)
                if kind == self.place == "load":  # nobody knows beforehand how many lines it has
                    self.seen[kind] = self.fatal - 1
                    self.count(kind, "the first step after it")

        setattr(owner, name, traced)


def named(owner: str) -> Any:
    """`module:Class` or a module of wm_run."""
    module, _, kind = owner.partition(":")
    found = importlib.import_module(f"wm_run.{module}")
    return getattr(found, kind) if kind else found


def live(main: Callable[[], object], fate: Fate, log: str) -> None:
    """Be the run, to its end."""
    os.setsid()
    out = os.open(os.devnull, os.O_WRONLY)
    err = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0), os.dup2(out, 1), os.dup2(err, 2)
    sys.addaudithook(fate.watch)
    for kind, functions in FUNCTIONS.items():
        for owner, name in functions if fate.place in (kind, "count") else ():
            fate.trace(named(owner), name, kind)
    try:
        main()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:  # noqa: BLE001 - whatever it is belongs to the run, not to this process
        traceback.print_exc()
        code = 1
    os.write(2, f"COUNTED {json.dumps(fate.seen)}\n".encode())
    os._exit(code)


def serve(app: str, setup: str = "") -> None:
    """Import everything, then fork for every line."""
    exec(setup, {})
    main = importlib.import_module(f"{app}.cli").main
    for module in (f"{app}.agent", "wm_run.commands", "tyro", "rich.progress"):
        importlib.import_module(module)
    with suppress(ModuleNotFoundError):  # where an app takes its environments from elsewhere
        importlib.import_module("env_adapters")
    for functions in FUNCTIONS.values():
        for owner, _ in functions:
            named(owner)
    for line in sys.stdin:
        folder, log, place, fatal, sys.argv = json.loads(line)
        if (child := os.fork()) == 0:
            live(main, Fate(folder, place, fatal), log)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    serve(*sys.argv[1:])
