"""What a run takes: one update and a few acts are made and measured, the rest is arithmetic."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from wm_core.fast.capture import WARMUP, Recorder
from wm_core.learner import Learner

from wm_run.config import RunConfig
from wm_run.cost import Flops, amounts, filled, size_of
from wm_run.loading import build
from wm_run.progress import duration
from wm_run.replay import Replay

if TYPE_CHECKING:
    from wm_run.app import App
    from wm_run.loop import Environments

SLOW, QUICK = 3.0, 0.3  # seconds of a short update: too slow to be repeated; cheap enough to be tried at full length
LONG = 128  # steps; from there on an update is as good as proportional to them
ROWS = 3  # of the second try
UNRECORDED = WARMUP + 3  # calls until a recording is used: plain ones, and three that are compared
BUSY = 1.5  # a clock so much ahead of the thread's own time is told


@dataclass(frozen=True)
class Cost:
    """Seconds of one thing: `busy` by the clock, `quiet` as the thread itself was running.

    On a CPU both are alike while nobody else computes, for this thread takes part in whatever torch does; where others
    do, the clock counts their time too. A GPU's time is the clock's.
    """

    quiet: float
    busy: float

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.quiet + other.quiet, self.busy + other.busy)

    def __mul__(self, times: float) -> Cost:
        return Cost(self.quiet * times, self.busy * times)


def spend(run: Callable[[], object], *, gpu: bool = False, times: int = 1) -> Cost:
    """The least of some tries."""
    tries = []
    for _ in range(times):
        clock, own = time.monotonic(), time.thread_time()
        run()
        if gpu:
            torch.cuda.synchronize()
        busy = time.monotonic() - clock
        tries.append(Cost(busy if gpu else min(busy, time.thread_time() - own), busy))
    return Cost(min(one.quiet for one in tries), min(one.busy for one in tries))


@dataclass(frozen=True)
class Measured:
    """An update that was made, with what it took."""

    spent: Cost
    flops: int
    kept: int
    """Bytes that its forward pass keeps for the backward pass."""


def extrapolate(one: Measured, more: Measured, times: float, size: float) -> Measured:
    """An update `size` times as large as `one`, from it and from one `times` as large: a fixed part, such as dreams that
    start elsewhere, and one that grows.

    >>> extrapolate(Measured(Cost(3.0, 3.0), 8, 4), Measured(Cost(5.0, 9.0), 10, 12), times=3, size=16)
    Measured(spent=Cost(quiet=18.0, busy=48.0), flops=23, kept=64)
    """

    def line(low: float, high: float) -> float:
        slope = min(max((high - low) / (times - 1), 0.0), low)  # the fixed part is not below nothing
        return low + slope * (size - 1)

    spent = Cost(line(one.spent.quiet, more.spent.quiet), line(one.spent.busy, more.spent.busy))
    return Measured(spent, round(line(one.flops, more.flops)), round(line(one.kept, more.kept)))


def estimate(app: App, config: RunConfig, envs: Environments, recorder: Recorder | None = None) -> dict[str, Any]:
    """Updates, time, RAM, VRAM and disk of the whole run in config, on this machine.

    On a CPU one and a few rows stand for the batch, of 16 steps where an update is slow. `hours` is what a machine with
    nothing else to do takes, `hours_busy` what it takes if others go on computing as they did while this was measured.
    Networks that compile themselves say more than they will take. Where updates and acts are recorded as graphs, it is the
    recorded ones that are measured. device, precision and capture must be decided. recorder: another than CUDA's.
    """
    config = config.settled
    gpu, graph = config.device == "cuda", config.capture == "graph"
    small = config if gpu or graph else dataclasses.replace(config, batch=1, length=min(16, config.length))
    agent = build(app, small, envs)
    step = {key: value[:1] for key, value in envs.reset(config.seed).items()}
    carry, _, notes = agent.act(agent.initial(1), step)
    acting = spend(lambda: agent.act(carry, step), gpu=gpu, times=3)
    record = {**step, **notes}
    held = sum(p.numel() * p.element_size() for p in agent.parameters())
    replay = filled(record, agent, small.longest)
    update = _tried(agent, replay, gpu=gpu)
    if graph:
        agent.capture("graph", lambda told: None, recorder)
        acting = _recorded(lambda: agent.act(carry, step), gpu=gpu)
        update = dataclasses.replace(update, spent=_recorded(lambda: agent.learn(replay), gpu=gpu))
    elif not gpu:
        update = _whole_update(app, config, envs, record, update)
    found = amounts(config, envs.repeat, held=held, kept=update.kept, record=size_of(record))
    acts = 0.0 if config.data else config.steps / envs.repeat / (config.envs * config.devices)
    total = update.spent * found["updates"] + acting * acts
    if gpu:
        found["vram_bytes"] = max(found["vram_bytes"], torch.cuda.max_memory_allocated())
    numbers = {
        "device": config.device,
        "updates": found.pop("updates"),
        "seconds_per_update": update.spent.quiet,
        "seconds_per_action": acting.quiet,
        "flops_per_update": update.flops,
        "hours": total.quiet / 3600,
        "hours_busy": total.busy / 3600,
        **found,
    }
    return numbers | dict(app.part("estimate")(config, numbers) if app.estimate else {})


def _tried(agent: Learner, replay: Replay, *, gpu: bool = False, times: int = 1) -> Measured:
    """The first update counts and allocates. Its time stands only where it is slow: counting costs little beside so much
    computing, and nobody wants to wait again."""
    flops, kept = 0, 0

    def first() -> None:
        nonlocal flops, kept
        flops, kept = _first_update(agent, replay)

    spent = spend(first, gpu=gpu)
    if gpu or spent.quiet < SLOW:
        spent = spend(lambda: agent.learn(replay), gpu=gpu, times=times)
    return Measured(spent, flops, kept)


def _recorded(call: Callable[[], object], *, gpu: bool) -> Cost:
    """What a call takes as soon as it is a graph that has been compared; where none can be recorded, the plain call."""
    for _ in range(UNRECORDED):
        call()
    return spend(call, gpu=gpu, times=3)


def _whole_update(
    app: App, config: RunConfig, envs: Environments, record: Mapping[str, Any], short: Measured
) -> Measured:
    """An update of the whole batch on a CPU; `short` was one of a single row of at most 16 steps.

    A quick update is tried at the run's own length, up to LONG, for much of it is calls, one step after the other. In a
    slower one calls do not count, and steps are alike, whether they make rows longer or more.
    """
    quick = short.spent.quiet < QUICK
    length = min(LONG if quick else 16, config.length)

    def of(rows: int) -> Measured:
        part = dataclasses.replace(config, batch=rows, length=length)
        agent = build(app, part, envs)
        return _tried(agent, filled(record, agent, part.longest), times=2 if quick else 1)

    if quick:
        whole = extrapolate(of(1), of(ROWS), ROWS, config.batch)
        longer = config.length / length
        return Measured(whole.spent * longer, round(whole.flops * longer), round(whole.kept * longer))
    return extrapolate(short, of(ROWS), ROWS, config.batch * config.length / length)


def sentence(numbers: Mapping[str, Any]) -> str:
    """The estimate in words; a span where the machine has other things to do.

    >>> numbers = {"device": "cpu", "updates": 10, "vram_bytes": 1e8, "disk_bytes": 1e9, "hours": 2.0, "hours_busy": 2.1}
    >>> sentence(numbers)
    'about 2h 0m on this CPU (10 updates, 0.1 GB for the networks, 1.0 GB of disk)'
    >>> sentence(numbers | {"hours_busy": 10.0})[:76]
    'between 2h 0m and 10h 0m on this CPU, which has other things to do just now '
    >>> sentence({"device": "cpu", "updates": 10, "vram_bytes": 1e8, "disk_bytes": 1e9, "flops_per_update": 2e12})
    '10 updates of 2,000 GFLOP each, 0.1 GB for the networks, 1.0 GB of disk; in hours nothing was measured'
    """
    updates, disk = f"{numbers['updates']:,} updates", f"{numbers['disk_bytes'] / 1e9:.1f} GB of disk"
    here = "this GPU" if numbers["device"] == "cuda" else "this CPU"
    memory = f"{numbers['vram_bytes'] / 1e9:.1f} GB for the networks"
    if "hours" not in numbers:
        each = f"{numbers['flops_per_update'] / 1e9:,.4g} GFLOP each"
        return f"{updates} of {each}, {memory}, {disk}; in hours nothing was measured"
    low, high = numbers["hours"], numbers.get("hours_busy", numbers["hours"])
    span = f"about {duration(low * 3600)} on {here}"
    if high > BUSY * low:
        span = f"between {duration(low * 3600)} and {duration(high * 3600)} on {here}, which has other things to do just now"
    return f"{span} ({updates}, {memory}, {disk})"


def told(app: App, config: RunConfig, envs: Environments) -> str:
    """`sentence`, or why there is none: an estimate never stops a run."""
    try:
        return sentence(estimate(app, config, envs))
    except Exception as error:  # noqa: BLE001 - too little memory for the paper's networks is one of many reasons
        return f"what could not be measured here ({type(error).__name__}: {' '.join(str(error).split())[:120]})"


def _first_update(agent: Learner, replay: Replay) -> tuple[int, int]:
    """FLOPs of an update, and bytes that its forward pass keeps for the backward pass."""
    kept: dict[int, int] = {}
    own = {p.untyped_storage().data_ptr() for p in agent.parameters()}

    def pack(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return value

    with Flops() as counter, torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        agent.learn(replay)
    return counter.total, sum(kept.values())
