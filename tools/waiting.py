"""A device that waits, for a machine without one: it takes its time, computes nothing, and the host is free meanwhile.

python tools/waiting.py [--ms 10] [--updates 60] [--rounds 5]      the loop's updates with and without a lane to it
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from wm_core.contracts import Experience
from wm_core.types import Batch, moved
from wm_run import feed
from wm_run.feed import Feed
from wm_run.replay import Replay


class Device:
    """One thing after the other, each for some seconds: it is known when each will be done, and nobody works meanwhile."""

    def __init__(self) -> None:
        self._free = 0.0

    def begin(self, seconds: float) -> Callable[[], None]:
        """Tell it something; what is returned waits until that is done."""
        self._free = done = max(self._free, time.perf_counter()) + seconds
        return lambda: time.sleep(max(0.0, done - time.perf_counter()))


class Lane:
    """A `wm_run.feed.Lane` to such a device: what comes back is waited for, and holds what was there when it was sent."""

    def __init__(self, seconds: float = 1e-3) -> None:
        self.device, self.seconds = Device(), seconds

    def upload(self, batch: Batch) -> Callable[[], Batch]:
        sent = moved(batch, torch.clone)
        return lambda: sent

    def download(self, notes: Mapping[str, Tensor]) -> Callable[[], Mapping[str, Tensor]]:
        fetched, done = {name: value.clone() for name, value in notes.items()}, self.device.begin(self.seconds)

        def take() -> Mapping[str, Tensor]:
            done()
            return fetched

        return take


def install() -> None:
    """Runs of this process have such a lane."""
    feed.lane_to = lambda device: Lane()


# ---- what the lane is for


class Learner:
    """An update that only waits: 16 rows of 64 frames down, their latents back."""

    def __init__(self, lane: Lane, seconds: float, rows: int, length: int) -> None:
        self.lane, self.seconds, self.rows, self.length = lane, seconds, rows, length

    def learn(self, experience: Experience) -> None:
        batch = experience.sample(self.rows, self.length, past=1)
        done = self.lane.device.begin(self.seconds)
        if getattr(experience, "lane", None) is None:
            done()  # what fetching a note from a device does
        experience.annotate(batch.index, deter=batch.steps["deter"])


def replay_of(streams: int, steps: int, deter: int) -> Replay:
    """Random frames and latents, in memory."""
    rng = np.random.default_rng(0)
    replay = Replay(None, streams, stores={"deter": 1}, limit_bytes=2**34, chunk=512, length=64)
    for t in range(steps):
        replay.add(
            {
                "action": np.zeros((streams, 6), np.float32),
                "first": np.full(streams, t == 0),
                "image": rng.integers(0, 256, (streams, 64, 64, 3), dtype=np.uint8),
                "deter": np.zeros((streams, deter), np.float16),
            }
        )
    return replay


def measure(ms: float, updates: int, *, ahead: bool, rows: int = 16, length: int = 64) -> tuple[float, float]:
    """Wall and CPU milliseconds an update."""
    lane, replay = Lane(), replay_of(2, 1024, 2048)
    learner, source = Learner(lane, ms / 1e3, rows, length), Feed(replay, lane if ahead else None)
    for i in range(updates + 5):
        if i == 5:
            begin = time.perf_counter(), time.process_time()
        learner.learn(source)
        source.advance()
    return 1e3 * (time.perf_counter() - begin[0]) / updates, 1e3 * (time.process_time() - begin[1]) / updates


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--ms", type=float, default=10.0, help="that the device takes for an update")
    ap.add_argument("--updates", type=int, default=60)
    ap.add_argument("--rounds", type=int, default=5)
    args = ap.parse_args()
    torch.set_num_threads(1)
    found: dict[bool, list[Any]] = {False: [], True: []}
    for _ in range(args.rounds):
        for ahead, rows in found.items():
            rows.append(measure(args.ms, args.updates, ahead=ahead))
    for ahead, rows in found.items():
        wall, cpu = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"{'ahead and late' if ahead else 'one by one':15} wall {wall:6.1f} ms, CPU {cpu:5.1f} ms an update")


if __name__ == "__main__":
    main()
