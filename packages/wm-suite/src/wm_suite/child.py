"""What a worker starts, in a process of its own: an app's command line, or a measure. It ends politely when the worker is gone.

child.py PIPE app MODULE WORDS...                      as `python -m MODULE WORDS...`
child.py PIPE measure MODULE:FUNCTION LOGDIR CELL OUT  FUNCTION(Path(LOGDIR), CELL as a dict), its dict as JSON in OUT

PIPE is the number of a descriptor whose other end the worker holds and nobody writes to. However the worker ends, the
system closes that end; then this process is asked to end (SIGTERM), at which a run saves. This file is run by its path and
imports nothing of this package, so that it works in an environment that has none of it.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import signal
import sys
import threading
from pathlib import Path


def leash(pipe: int) -> None:
    """SIGTERM to this process when the other end of the pipe is closed."""

    def watch() -> None:
        os.read(pipe, 1)  # returns when there is nobody who could write
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def app(module: str, words: list[str]) -> None:
    """As `python -m module words...`, of which the app may speak and which it may start again."""
    sys.argv[1:] = words
    sys.orig_argv[:] = [sys.executable, "-m", module, *words]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def measure(function: str, logdir: str, cell: str, out: str) -> None:
    """What the function finds, as JSON in a file."""
    module, _, name = function.partition(":")
    found = getattr(importlib.import_module(module), name)(Path(logdir), json.loads(cell))
    Path(out).write_text(json.dumps(found))


def main(words: list[str]) -> None:
    """See the head of this file."""
    here = os.path.dirname(os.path.abspath(__file__))
    if sys.path and os.path.abspath(sys.path[0]) == here:
        sys.path[0] = os.getcwd()  # as with -m: modules of this folder would hide those of Python
    leash(int(words[0]))
    if words[1] == "app":
        app(words[2], words[3:])
    else:
        measure(*words[2:])


if __name__ == "__main__":
    main(sys.argv[1:])
