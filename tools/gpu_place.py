"""Where the GPU's parts run: on the card, or, as a rehearsal, on a CPU with stand-ins and tiny networks."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from wm_core.dispatched import Dispatched
from wm_core.fast.capture import CudaGraphs, Recorder

TINY = ("--preset", "tiny", "--task", "toy:catch")
TINY_TEAM = ("--preset", "tiny", "--task", "toy:leavers")


@dataclass(frozen=True)
class Place:
    """A device and what stands for CUDA on it. peer: the folder of r2dreamer, if there is one."""

    rehearsal: bool
    peer: Path | None = None

    @property
    def device(self) -> torch.device:
        return torch.device("cpu" if self.rehearsal else "cuda:0")

    def recorder(self) -> Recorder:
        """What records: CUDA graphs, or torch's operations."""
        return Dispatched() if self.rehearsal else CudaGraphs(self.device)

    def options(self, real: tuple[str, ...]) -> list[str]:
        """Options of an app: those of the real thing, or the tiny preset's, of a team where the real thing is one."""
        tiny = TINY_TEAM if "zoo:gpu_teams" in real else TINY
        return [*(tiny if self.rehearsal else real), "--device", self.device.type]

    def as_on_a_gpu(self) -> None:
        """A CPU is asked for numbers where a GPU is not; a recording would freeze the answers."""
        if self.rehearsal:
            for part in ("loops", "scan"):
                importlib.import_module(f"wm_ssm.{part}").waits = lambda x: True  # type: ignore[attr-defined]

    def wait(self) -> None:
        if not self.rehearsal:
            torch.cuda.synchronize()

    def milliseconds(self, run: Callable[[], Any], *, warmup: int, repeat: int) -> float:
        """The median of some runs, each waited for."""
        taken = []
        for i in range(warmup + repeat):
            self.wait()
            begin = time.perf_counter()
            run()
            self.wait()
            if i >= warmup:
                taken.append(1e3 * (time.perf_counter() - begin))
        return median(taken)


class Failed(Exception):
    """A check that did not hold, in a sentence."""


class Left(Exception):
    """A part that cannot be tried here, in a sentence."""
