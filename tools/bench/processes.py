"""A measurement in a process of its own, whose peak of memory is its alone."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

# a server that has imported everything once and forks: each is a process of its own, without the seconds of imports
TOOLS = str(Path(__file__).resolve().parents[1])
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["bench.update", "bench.scan"])


def alone(measure: Callable[..., Any], *args: Any) -> Any:
    """What it gives for these, in a process of its own. Raises what it raises, and OSError where the process dies."""
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, (TOOLS, os.environ.get("PYTHONPATH")))
    )  # the server's only way
    try:
        with ProcessPoolExecutor(1, mp_context=FORKS) as pool:
            return pool.submit(measure, *args).result()
    except BrokenProcessPool:
        raise OSError(f"the process of {args} died; is there memory enough?") from None
