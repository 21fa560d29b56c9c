"""Replay at full size: does it keep to its budget on disk and in memory, and does sampling stay as fast?

replay budget                1,000,000 steps of 64x64x3 under 2 GiB, with write-backs, commits and evictions
replay flat                  a 16x65 sample of vector steps, at 1e4 to 5e6 steps held
replay budget --steps 100000 --bytes 300000000 --folder DIR

`budget` adds the steps of --envs streams, samples and writes back now and then, commits every --commit steps and
whenever the replay is crowded, and looks at the folder after each of these: bytes on disk against the budget and one
chunk, and the process's anonymous memory against that at the first sample. Then it times samples of 16 rows of 65
steps by the clock and in CPU time, on pages that were touched before.

`flat` fills a replay of small vector steps and times the same sample at each size. Times are medians; compare ratios.
"""

from __future__ import annotations

import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from wm_run.replay import Replay

from bench.clock import cost, median, memory_mb
from bench.command import Command
from bench.rows import Row, here

ROWS, LENGTH = 16, 65


def on_disk(folder: Path) -> int:
    """Bytes of the blocks that the folder's files take."""
    return sum(path.stat().st_blocks * 512 for path in folder.iterdir())


def steps_of(envs: int, actions: int, **observed: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """One step of all streams."""
    flags = {name: np.zeros(envs, np.bool_) for name in ("first", "last", "terminal")}
    return {"action": np.zeros((envs, actions), np.float32), "reward": np.zeros(envs, np.float32), **flags, **observed}


def budget(folder: Path, args: Namespace) -> Iterator[Row]:
    """Many steps of images through a small replay."""
    envs, limit = args.envs, args.bytes
    replay = Replay(folder, envs, stores={"deter": 1}, limit_bytes=limit, length=64)
    frames = np.random.default_rng(0).integers(0, 256, (64, envs, 64, 64, 3), np.uint8)
    fixed = steps_of(envs, 18, deter=np.zeros((envs, 64), np.float16))
    found = {"most_on_disk": 0, "commits": 0}
    before = peak = 0.0

    def fill() -> None:
        nonlocal before, peak
        for t in range(args.steps // envs):
            replay.add({**fixed, "image": frames[t % 64]})
            if t % 64 == 63 and replay.ready(LENGTH):
                batch = replay.sample(ROWS, LENGTH, past=1)
                replay.annotate(batch.index, deter=np.full((ROWS, LENGTH, 64), t % 100, np.float16))
                before = before or memory_mb("RssAnon")
                peak = max(peak, memory_mb("RssAnon"))
            if t % 64 == 63:
                found["most_on_disk"] = max(found["most_on_disk"], on_disk(folder))
            if t % (args.commit // envs) == 0 or replay.crowded:
                replay.commit(replay.state())
                found["commits"] += 1

    took = cost(fill)
    for _ in range(60):  # the pages of every chunk are mapped, as far as the machine's memory allows
        replay.sample(256, LENGTH)
    sample = median(lambda: replay.sample(ROWS, LENGTH, past=1), 100, warmup=1)
    chunk = replay.step_bytes * replay.chunk * envs
    within = found["most_on_disk"] <= limit + chunk + 4096 * 4  # two small JSON files and a folder
    held = {"steps": args.steps, "held": replay.steps, "step_bytes": replay.step_bytes, "budget": limit, "chunk": chunk}
    times = {"seconds": took["wall_s"], "sample_s": sample["wall_s"], "sample_cpu_s": sample["cpu_s"]}
    yield here() | {"what": "budget"} | held | found | {"within": within, "anonymous_growth_mb": peak - before} | times


def flat(folder: Path, args: Namespace) -> Iterator[Row]:
    """The same sample from more and more steps."""
    envs = 50
    replay = Replay(folder, envs, stores={}, limit_bytes=2**40, length=64, online=False)
    step = steps_of(envs, 6, vector=np.ones((envs, 24), np.float32))
    for size in args.sizes:
        while replay.steps < size:
            replay.add(step)
        replay.sample(20_000, LENGTH)  # every page is touched
        add = median(lambda: replay.add(step), 200, warmup=1)
        sample = median(lambda: replay.sample(ROWS, LENGTH), 200, warmup=1)
        held = {"what": "flat", "steps": size, "held": replay.steps, "step_bytes": replay.step_bytes}
        yield here() | held | {"sample_s": sample["wall_s"], "sample_cpu_s": sample["cpu_s"], "add_s": add["wall_s"]}


def replays(args: Namespace, words: list[str]) -> Iterator[Row]:
    """In a folder that goes afterwards."""
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        yield from {"budget": budget, "flat": flat}[args.what](Path(name) / "replay", args)


def options(parser: ArgumentParser) -> None:
    parser.add_argument("what", choices=("budget", "flat"))
    parser.add_argument("--steps", type=int, default=1_000_000, help="of all streams together (default 1,000,000)")
    parser.add_argument("--bytes", type=int, default=2 * 2**30, help="budget of the replay (default 2 GiB)")
    parser.add_argument("--envs", type=int, default=8, help="streams (default 8)")
    parser.add_argument("--commit", type=int, default=20_000, help="steps between two commits (default 20,000)")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10**4, 10**5, 10**6, 5 * 10**6], help="of `flat`")
    parser.add_argument("--folder", type=Path, help="where the replay goes for the while (default: a temporary folder)")


COLUMNS = {
    "steps": "{steps:,}",
    "held": "{held:,}",
    "bytes a step": "{step_bytes:,}",
    "budget": "{budget:,}",
    "most on disk": "{most_on_disk:,}",
    "within it and a chunk": "{within}",
    "growth of anonymous memory, MB": "{anonymous_growth_mb:.1f}",
    "commits": "{commits}",
    "sample ms": "{sample_s:m.3f}",
    "in CPU ms": "{sample_cpu_s:m.3f}",
    "add ms": "{add_s:m.4f}",
}
COMMANDS = {"replay": Command(replays, COLUMNS, options, app=False, key=("what", "steps"))}
