"""What a run's updates compute and what a run takes of memory and disk, from shapes alone: nothing of an update is computed,
so that the papers' largest networks are counted anywhere, in seconds."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: PLC2701 - torch documents it, and has no other door
from torch.utils.flop_counter import flop_registry
from wm_core import distributions, draws, optim, twohot
from wm_core.errors import UserError
from wm_core.learner import Learner
from wm_core.types import Batch

from wm_run.config import RunConfig
from wm_run.loading import build
from wm_run.replay import Replay
from wm_run.retained import Retained

if TYPE_CHECKING:
    from wm_run.app import App
    from wm_run.loop import Environments

KEPT: tuple[tuple[Any, str], ...] = ((distributions, "one_hots"), (optim, "_constant"), (twohot, "_twohot_bins"))
BASE_BYTES = 1_500_000_000  # of a process that has imported torch and made its environments, roughly


def cost(app: App, config: RunConfig, envs: Environments) -> dict[str, Any]:
    """Updates, FLOPs of an update and of acting once in one environment, memory and disk of the whole run in config.

    The update is made of fake tensors, which have shapes and no numbers, as eager code on a CPU makes it; FLOPs are those
    of products, convolutions and attention. Raises UserError for an update that asks its numbers anything.
    """
    config = config.settled
    agent = build(app, dataclasses.replace(config, device="cpu"), envs)
    step = {key: value[:1] for key, value in envs.reset(config.seed).items()}
    with Flops() as acting:
        _, _, notes = agent.act(agent.initial(1), step)
    record = {**step, **notes}
    flops, kept = count(agent, *handed(agent, filled(record, agent, config.longest)))
    held = sum(p.numel() * p.element_size() for p in agent.parameters())
    return {
        "device": config.device,
        "parameters": agent.parameters_by_module()["total"],
        "flops_per_update": flops,
        "flops_per_action": acting.total,
        **amounts(config, envs.repeat, held=held, kept=kept, record=size_of(record)),
    }


def amounts(config: RunConfig, repeat: int, *, held: int, kept: int, record: int) -> dict[str, Any]:
    """Updates of a run, and bytes of memory and disk. held: bytes of the weights; kept: the most that
    an update keeps at once for its backward passes; record: those of one step of one environment."""
    actions = config.steps / repeat
    # actions while it learns, near enough: reset records count as well; from a recording it learns from the start
    learning = actions if config.data else actions - config.before_learning
    replayed = config.replayed * config.devices
    updates = (
        config.first_updates * (not config.data) + learning * config.train_ratio / replayed
        if learning > 0 < config.train_ratio
        else 0.0
    )
    model = 4 * held + kept  # weights, gradients, two moments
    return {
        "updates": round(updates),
        "ram_bytes": BASE_BYTES + (0 if config.device == "cuda" else model),
        "vram_bytes": model,
        "disk_bytes": min(config.replay_bytes, round(actions * record)) + 2 * 3 * held,  # two checkpoints with moments
    }


@contextmanager
def handing(agent: Learner) -> Iterator[list[tuple[Batch, ...]]]:
    """Inside, what `learn` would update from is kept instead, and nothing is learned."""
    kept: list[tuple[Batch, ...]] = []

    def keep(*batches: Batch) -> Any:
        kept.append(batches)
        raise _Handed

    agent.updated = keep  # type: ignore[method-assign]
    try:
        yield kept
    except _Handed:
        pass
    finally:
        del agent.updated


class _Handed(Exception):
    """`learn` has come as far as it was to come."""


def handed(agent: Learner, replay: Replay) -> tuple[Batch, ...]:
    """What an agent's `learn` hands to its `update`."""
    with handing(agent) as batches:
        agent.learn(replay)
    return batches[0]


def count(agent: Learner, *batches: Batch) -> tuple[int, int]:
    """FLOPs of an update, and the most bytes that are kept at once for backward passes. The agent draws no more afterwards:
    throw it away. Raises UserError for an update that asks its numbers anything."""
    from torch._subclasses.fake_tensor import (  # noqa: PLC2701 - torch documents it, and has no other door
        DataDependentOutputException,
        DynamicOutputShapeException,
        FakeTensorMode,
        UnsupportedOperatorException,
    )

    fixed: Any = draws.Fixed()  # generators have no fake numbers
    agent.source = fixed
    agent.sources = dict.fromkeys(agent.sources, fixed)
    every: list[Any] = list(agent.modules())
    for module in every:
        if getattr(module, "probed", None) is False:
            module.probed = True  # value alignment's look at its critic asks numbers, and here are none
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    retained = Retained(agent.parameters())
    try:
        with _unpacked(), _unkept(), fake, retained.hooks(), _Undrawn(), Flops() as counter:
            agent.updating(*(_fake(fake, batch) for batch in batches))
    except (DataDependentOutputException, DynamicOutputShapeException, UnsupportedOperatorException) as error:
        raise UserError(f"an update of this agent asks its numbers something ({error}): leave --count out") from error
    return counter.total, retained.most


@contextmanager
def _unpacked() -> Iterator[None]:
    """Without oneDNN, whose packed weights have no fake ones."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of TF32, which is set beside it
        with torch.backends.mkldnn.flags(enabled=False):
            yield


@contextmanager
def _unkept() -> Iterator[None]:
    """Without the constants that wm-core keeps for the whole process: made in here they would be fake from then on, and so
    would be, without a word, all that is computed with them."""
    before = [(module, name, getattr(module, name)) for module, name in KEPT]
    try:
        for module, name, function in before:
            setattr(module, name, function.__wrapped__)
        yield
    finally:
        for module, name, function in before:
            setattr(module, name, function)


def _fake(mode: Any, value: Any) -> Any:
    """The same with fake tensors, whatever holds them."""
    if isinstance(value, Tensor):
        return mode.from_tensor(value)
    if isinstance(value, Mapping):
        return {name: _fake(mode, one) for name, one in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(_fake(mode, one) for one in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {one.name: _fake(mode, getattr(value, one.name)) for one in dataclasses.fields(value)}
        return dataclasses.replace(value, **parts)
    return value


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


class _Undrawn(TorchDispatchMode):
    """Draws without the generator that was given: fake numbers come from none, and torch refuses one for some of them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = dict(kwargs or {})
        return func(*args, **(given | {"generator": None} if "generator" in given else given))


def filled(record: Mapping[str, Any], agent: Learner, length: int) -> Replay:
    """A replay in memory that holds one row and a step, all alike."""
    stores = agent.stores
    replay = Replay(None, 1, stores=stores, limit_bytes=2**40, chunk=length + 1, length=length)
    later = {**record, "first": np.zeros(1, np.bool_)}
    for t in range(length + 1):
        replay.add(later if t else record)
    return replay


def size_of(record: Mapping[str, Any]) -> int:
    """Bytes of a record."""
    return sum(map(_bytes, record.values()))


def _bytes(value: Any) -> int:
    return int(value.numel() * value.element_size() if isinstance(value, Tensor) else np.asarray(value).nbytes)
