"""What a run takes: one update and a few acts are made and measured, the rest is arithmetic."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: PLC2701 - torch documents it, and has no other door
from torch.utils.flop_counter import flop_registry

from wm_core.agent import Agent
from wm_core.replay import Replay
from wm_core.run.config import RunConfig
from wm_core.run.folder import duration
from wm_core.run.loading import build

if TYPE_CHECKING:
    from wm_core.run.cli import App
    from wm_core.run.loop import Environments

BASE_BYTES = 1_500_000_000  # of a process that has imported torch and made its environments, roughly


def estimate(app: App, config: RunConfig, envs: Environments) -> dict[str, Any]:
    """Updates, time, RAM, VRAM and disk of the whole run in config, on this machine.

    On a CPU one row of 16 steps stands for the batch: time, FLOPs and activations grow with the steps. Measured, so a
    busy machine says more; networks that compile themselves say more than they will take. device and precision must be
    decided.
    """
    gpu = config.device == "cuda"
    small = config if gpu else dataclasses.replace(config, batch=1, length=min(16, config.length))
    scale = config.batch * config.length / (small.batch * small.length)
    agent = build(app, small, envs)
    step = {key: value[:1] for key, value in envs.reset(config.seed).items()}
    carry = agent.initial(1)
    acting = []
    for _ in range(3):
        begin = time.monotonic()
        carry, _, notes = agent.act(carry, step)
        acting.append(time.monotonic() - begin)
    record = {**step, **notes}
    record_bytes = sum(_bytes(value) for value in record.values())
    replay = _filled(record, agent, small.length)
    begin = time.monotonic()
    flops, activations = _first_update(agent, replay)
    update = time.monotonic() - begin
    if gpu or update < 2:  # else counting costs little beside computing, and nobody wants to wait for a second one
        begin = time.monotonic()
        agent.learn(replay)
        if gpu:
            torch.cuda.synchronize()
        update = time.monotonic() - begin
    update *= scale
    actions = config.steps / envs.repeat
    updates = actions * config.train_ratio / (config.batch * config.length)
    held = sum(p.numel() * p.element_size() for p in agent.parameters())
    model = 4 * held + round(activations * scale)  # weights, gradients, two moments
    replay_bytes = min(config.replay_bytes, round(actions * record_bytes))
    numbers = {
        "device": config.device,
        "updates": round(updates),
        "seconds_per_update": update,
        "seconds_per_action": min(acting),
        "flops_per_update": round(flops * scale),
        "hours": (updates * update + actions / config.envs * min(acting)) / 3600,
        "ram_bytes": BASE_BYTES + (0 if gpu else model),
        "vram_bytes": max(model, torch.cuda.max_memory_allocated()) if gpu else model,
        "disk_bytes": replay_bytes + 2 * 3 * held,  # two checkpoints of weights and moments
    }
    return numbers | dict(app.part("estimate")(config, numbers) if app.estimate else {})


def sentence(numbers: Mapping[str, Any]) -> str:
    """The estimate in words."""
    span = duration(numbers["hours"] * 3600)
    updates, disk = f"{numbers['updates']:,} updates", f"{numbers['disk_bytes'] / 1e9:.1f} GB of disk"
    here = "this GPU" if numbers["device"] == "cuda" else "this CPU"
    memory = f"{numbers['vram_bytes'] / 1e9:.1f} GB for the networks"
    return f"about {span} on {here} ({updates}, {memory}, {disk})"


def _filled(record: Mapping[str, Any], agent: Agent, length: int) -> Replay:
    """A replay in memory that holds one row and a step, all alike."""
    stores = agent.stores
    replay = Replay(None, 1, stores=stores, limit_bytes=2**40, chunk=length + 1, length=length)
    later = {**record, "first": np.zeros(1, np.bool_)}
    for t in range(length + 1):
        replay.add(later if t else record)
    return replay


class Flops(TorchDispatchMode):
    """Counts the FLOPs of products, convolutions and attention inside. torch's own counter also follows modules, and
    stumbles over modules that run without gradient.

    >>> with Flops() as counter:
    ...     _ = torch.ones(2, 3) @ torch.ones(3, 4)
    >>> counter.total
    48
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:  # else the first operation inside imports the whole compiler: seconds
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)  # noqa: SLF001 - the registry is keyed by it
        if formula is not None:
            self.total += int(formula(*args, **(kwargs or {}), out_val=out))
        return out


def _first_update(agent: Agent, replay: Replay) -> tuple[int, int]:
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


def _bytes(value: Any) -> int:
    return int(value.numel() * value.element_size() if isinstance(value, Tensor) else np.asarray(value).nbytes)
