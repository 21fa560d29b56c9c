"""Replay at full size: does it keep to its budget on disk and in memory, and does sampling stay as fast?

replay_bench.py budget                1,000,000 steps of 64x64x3 under 2 GiB, with write-backs, commits and evictions
replay_bench.py flat                  a 16x65 sample of vector steps, at 1e4 to 5e6 steps held
replay_bench.py budget --steps 100000 --bytes 300000000 --folder DIR

`budget` adds the steps of --envs streams, samples and writes back now and then, commits every --commit steps and
whenever the replay is crowded, and looks at the folder after each of these: bytes on disk against the budget and one
chunk, and the process's anonymous memory against that at the first sample. Then it times samples of 16 rows of 65
steps by the clock and in CPU time, on pages that were touched before, and prints JSON.

`flat` fills a replay of small vector steps and times the same sample at each size. Times are medians; compare ratios.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from wm_run.replay import Replay

ROWS, LENGTH = 16, 65
CLOCKS = (time.perf_counter, time.process_time)  # a busy machine makes the first one wait


def anonymous() -> int:
    """Bytes of this process that no file stands behind."""
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["RssAnon"].split()[0]) * 1024


def on_disk(folder: Path) -> int:
    """Bytes of the blocks that the folder's files take."""
    return sum(path.stat().st_blocks * 512 for path in folder.iterdir())


def median_ms(call: Callable[[], Any], times: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """Of that many calls, after one that is not counted."""
    call()
    spent = []
    for _ in range(times):
        begin = clock()
        call()
        spent.append(clock() - begin)
    return statistics.median(spent) * 1000


def budget(folder: Path, steps: int, limit: int, envs: int, every: int) -> dict[str, Any]:
    """Many steps of images through a small replay."""
    replay = Replay(folder, envs, stores={"deter": 1}, limit_bytes=limit, length=64)
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (64, envs, 64, 64, 3), np.uint8)
    fixed = {
        "action": np.zeros((envs, 18), np.float32),
        "reward": np.zeros(envs, np.float32),
        "first": np.zeros(envs, np.bool_),
        "last": np.zeros(envs, np.bool_),
        "terminal": np.zeros(envs, np.bool_),
        "deter": np.zeros((envs, 64), np.float16),
    }
    most, before, peak, commits, begin = 0, 0, 0, 0, time.perf_counter()
    for t in range(steps // envs):
        replay.add({**fixed, "image": frames[t % 64]})
        if t % 64 == 63 and replay.ready(LENGTH):
            batch = replay.sample(ROWS, LENGTH, past=1)
            replay.annotate(batch.index, deter=np.full((ROWS, LENGTH, 64), t % 100, np.float16))
            before = before or anonymous()
            peak = max(peak, anonymous())
        if t % 64 == 63:
            most = max(most, on_disk(folder))
        if t % (every // envs) == 0 or replay.crowded:
            replay.commit(replay.state())
            commits += 1
    seconds = time.perf_counter() - begin
    for _ in range(60):  # the pages of every chunk are mapped, as far as the machine's memory allows
        replay.sample(256, LENGTH)
    resident, cpu = (median_ms(lambda: replay.sample(ROWS, LENGTH, past=1), 100, clock) for clock in CLOCKS)
    return {
        "steps": steps,
        "steps_held": replay.steps,
        "step_bytes": replay.step_bytes,
        "budget": limit,
        "budget_and_a_chunk": limit + replay.step_bytes * replay.chunk * envs,
        "most_on_disk": most,
        "within": most
        <= limit + replay.step_bytes * replay.chunk * envs + 4096 * 4,  # two small JSON files and a folder
        "anonymous_growth": peak - before,
        "commits": commits,
        "seconds": round(seconds, 1),
        "sample_ms": round(resident, 3),
        "sample_cpu_ms": round(cpu, 3),
    }


def flat(folder: Path, sizes: list[int]) -> dict[str, Any]:
    """The same sample from more and more steps."""
    envs = 50
    replay = Replay(folder, envs, stores={}, limit_bytes=2**40, length=64, online=False)
    step = {
        "action": np.zeros((envs, 6), np.float32),
        "reward": np.zeros(envs, np.float32),
        "first": np.zeros(envs, np.bool_),
        "vector": np.ones((envs, 24), np.float32),
    }
    found = {}
    for size in sizes:
        while replay.steps < size:
            replay.add(step)
        replay.sample(20_000, LENGTH)  # every page is touched
        add = median_ms(lambda: replay.add(step), 200)
        found[size] = {
            "sample_ms": round(median_ms(lambda: replay.sample(ROWS, LENGTH), 200), 3),
            "add_ms": round(add, 4),
        }
    return {"step_bytes": replay.step_bytes, "by_steps": found}


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("what", choices=("budget", "flat"))
    ap.add_argument("--steps", type=int, default=1_000_000, help="of all streams together (default 1,000,000)")
    ap.add_argument("--bytes", type=int, default=2 * 2**30, help="budget of the replay (default 2 GiB)")
    ap.add_argument("--envs", type=int, default=8, help="streams (default 8)")
    ap.add_argument("--commit", type=int, default=20_000, help="steps between two commits (default 20,000)")
    ap.add_argument("--sizes", type=int, nargs="+", default=[10**4, 10**5, 10**6, 5 * 10**6], help="of `flat`")
    ap.add_argument("--folder", type=Path, help="where the replay goes for the while (default: a temporary folder)")
    args = ap.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name) / "replay"
        if args.what == "budget":
            found = budget(folder, args.steps, args.bytes, args.envs, args.commit)
        else:
            found = flat(folder, args.sizes)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
