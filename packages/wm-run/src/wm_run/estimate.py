"""What a run takes: small updates and a few acts are made and measured, the rest is arithmetic."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from wm_core.fast.capture import WARMUP, Recorder
from wm_core.learner import Learner

from wm_run.config import RunConfig
from wm_run.cost import amounts, filled, size_of
from wm_run.loading import build
from wm_run.progress import duration
from wm_run.replay import Replay
from wm_run.rough import Rough
from wm_run.trials import STEPS, Cost, one_thread, shared, spend, tried, whole_update

if TYPE_CHECKING:
    from wm_run.app import App
    from wm_run.loop import Environments

UNRECORDED = WARMUP + 3  # calls until a recording is used: plain ones, and three that are compared
BUSY = 1.5  # a clock so much ahead of the thread's own time is told


def estimate(app: App, config: RunConfig, envs: Environments, recorder: Recorder | None = None) -> dict[str, Any]:
    """Updates, time, RAM, VRAM and disk of the whole run in config, on this machine.

    On a CPU updates of few rows and steps are made, and the whole one is predicted (wm_run.trials). `hours` is what a
    machine with nothing else to do takes, `hours_busy` what it takes if others go on computing as they did meanwhile.
    Networks that compile themselves say more than they will take. Where updates and acts are recorded as graphs, it is the
    recorded ones that are measured. device, precision and capture must be decided. recorder: another than CUDA's.
    """
    config = config.settled
    gpu, graph = config.device == "cuda", config.capture == "graph"

    def made(config: RunConfig) -> Learner:
        with Rough():
            return build(app, config, envs)

    small = config if gpu or graph else config.part(1, STEPS)
    step = {key: value[:1] for key, value in envs.reset(config.seed).items()}
    with nullcontext(1) if gpu or graph else one_thread() as threads:
        agent = made(small)
        carry, _, notes = agent.act(agent.initial(1), step)
        acting = spend(lambda: agent.act(carry, step), gpu=gpu, times=3)
        record = {**step, **notes}
        held = sum(p.numel() * p.element_size() for p in agent.parameters())
        if gpu or graph:
            replay = filled(record, agent, small.longest)
            update = tried(agent, replay, gpu=gpu)
        else:
            ready = [agent]  # of the smallest update, whose config is `small`

            def make(part: RunConfig) -> tuple[Learner, Replay]:
                agent = ready.pop() if ready and part == small else made(part)
                return agent, filled(record, agent, part.longest)

            update = whole_update(config, make, shared(threads))
    if graph:
        agent.capture("graph", lambda sentence: None, recorder)
        acting = _recorded(lambda: agent.act(carry, step), gpu=gpu)
        update = dataclasses.replace(update, cost=_recorded(lambda: agent.learn(replay), gpu=gpu))
    found = amounts(config, envs.repeat, held=held, kept=update.kept, record=size_of(record))
    acts = 0.0 if config.data else config.steps / envs.repeat / (config.envs * config.devices)
    total = update.cost * found["updates"] + acting * acts
    if gpu:
        found["vram_bytes"] = max(found["vram_bytes"], torch.cuda.max_memory_allocated())
    numbers = {
        "device": config.device,
        "updates": found.pop("updates"),
        "seconds_per_update": update.cost.quiet,
        "seconds_per_action": acting.quiet,
        "flops_per_update": update.flops,
        "hours": total.quiet / 3600,
        "hours_busy": total.busy / 3600,
        **found,
    }
    return numbers | dict(app.part("estimate")(config, numbers) if app.estimate else {})


def _recorded(call: Callable[[], object], *, gpu: bool) -> Cost:
    """What a call takes as soon as it is a graph that has been compared; where none can be recorded, the plain call."""
    for _ in range(UNRECORDED):
        call()
    return spend(call, gpu=gpu, times=3)


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


def sentence_or_reason(app: App, config: RunConfig, envs: Environments) -> str:
    """`sentence`, or why there is none: an estimate never stops a run."""
    try:
        return sentence(estimate(app, config, envs))
    except Exception as error:  # noqa: BLE001 - too little memory for the paper's networks is one of many reasons
        return f"what could not be measured here ({type(error).__name__}: {' '.join(str(error).split())[:120]})"
