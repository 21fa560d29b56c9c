"""Where an update's time goes: CPU seconds, calls, FLOPs and bytes of each part, forward and backward.

Forward, a part is a method or a module of the agent, replaced for a while by one that says when it begins and ends;
time belongs to the innermost. Backward, a part is what its forward made: autograd numbers its nodes in the order in
which they are made and runs them in the reverse, so that the number of a node names its part.
"""

from __future__ import annotations

import statistics
import time
from argparse import Namespace
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import nn
from torch._C._autograd import _get_sequence_nr  # noqa: PLC2701 - autograd's counter has no public name
from torch.autograd.graph import Node

from bench.calls import eager
from bench.cases import about, fill, prepare
from bench.clock import memory_mb
from bench.command import Command
from bench.products import Product, Products, machine, seconds
from bench.rows import Row


class Key(NamedTuple):
    """A part's name, and whether this is its backward pass."""

    part: str
    backward: bool


REST = Key("rest", False)
# path from the agent -> part, and its name where it happens within a dream. What an agent lacks is left out.
PARTS: tuple[tuple[str, str, str | None], ...] = (
    ("world.prefill", "past", None),
    ("world.losses", "losses", None),
    ("world.encoder", "encoder", None),
    ("world.dynamics.observe", "posterior scan", None),
    ("world.dynamics.memory", "recall", None),
    ("world.decoder", "decoder", None),
    ("world.heads.*", "heads", "heads on dreams"),
    ("world.dream", "imagination", None),
    ("behaviour.policy", "policy", "policy in dreams"),
    ("behaviour.evaluate", "behaviour", None),
    ("behaviour.losses", "behaviour", None),
    ("behaviour.replay_value", "replay value", None),
    ("optimiser.step", "optimiser", None),
    ("behaviour.follow", "slow critic", None),
    ("world.metrics", "metrics", None),
    ("behaviour.metrics", "metrics", None),
    ("world.dynamics.stored", "notes", None),
)


class Track:
    """Charges what `read` counts upwards to the part that is under way.

    >>> now = [0.0]
    >>> track = Track(lambda: now)
    >>> with track.inside("encoder"):
    ...     now[0] += 2.0
    ...     with track.inside("heads"):
    ...         now[0] += 1.0
    >>> track.close()
    >>> {key.part: charge for key, charge in track.charged.items()}
    {'rest': [0.0], 'encoder': [2.0], 'heads': [1.0]}
    """

    def __init__(self, read: Callable[[], Sequence[float]], note: Callable[[Key], None] | None = None) -> None:
        self.read, self.note, self.stack = read, note, [REST]
        self.last = list(read())
        self.charged: dict[Key, list[float]] = defaultdict(lambda: [0.0] * len(read()))
        self.marks: list[tuple[int, str]] = [(0, REST.part)]  # from this number on, autograd's nodes are of that part

    @property
    def now(self) -> Key:
        """The part under way."""
        return self.stack[-1]

    def close(self) -> None:
        """Charge what has come together since the last change."""
        here = list(self.read())
        mine = self.charged[self.now]
        for i, (new, old) in enumerate(zip(here, self.last, strict=True)):
            mine[i] += new - old
        if self.note is not None:
            self.note(self.now)
        self.last = list(self.read())

    @contextmanager
    def inside(self, part: str, dreamt: str | None = None) -> Iterator[None]:
        """What happens inside belongs to the part, by its other name within a dream."""
        dream = any(key.part == "imagination" for key in self.stack)
        with self.under_way(Key(dreamt if dream and dreamt else part, False)):
            self.marks.append((_get_sequence_nr(), self.now.part))
            yield
        self.marks.append((_get_sequence_nr(), self.now.part))

    @contextmanager
    def under_way(self, key: Key) -> Iterator[None]:
        """What comes together inside is charged to the part."""
        self.close()
        self.stack.append(key)
        try:
            yield
        finally:
            self.close()
            self.stack.pop()

    def of(self, node: Node) -> Key:
        """Whose forward made a node."""
        at = bisect_right(self.marks, node._sequence_nr(), key=lambda mark: mark[0]) - 1  # noqa: SLF001
        return Key(self.marks[at][1], True)

    @contextmanager
    def backward(self, roots: Sequence[torch.Tensor]) -> Iterator[None]:
        """A backward pass from these happens inside."""
        with ExitStack() as hooks:
            for node in nodes([root.grad_fn for root in roots if root.grad_fn is not None]):
                hooks.callback(node.register_prehook(self.turning(self.of(node))).remove)
            with self.under_way(self.now):
                yield

    def turning(self, key: Key) -> Callable[[object], None]:
        """A hook: backward goes on with this part."""

        def hook(_: object) -> None:
            if key != self.now:
                self.close()
                self.stack[-1] = key

        return hook


def nodes(roots: Sequence[Node]) -> Iterator[Node]:
    """The graph behind these, each node once; without those that only receive a weight's gradient."""
    seen, todo = set(roots), list(roots)
    while todo:
        node = todo.pop()
        if node.name() != "torch::autograd::AccumulateGrad":
            yield node
        for inner, _ in node.next_functions:
            if inner is not None and inner not in seen:
                seen.add(inner)
                todo.append(inner)


@contextmanager
def tracked(agent: Any, track: Track, replay: Any = None) -> Iterator[None]:
    """The agent's parts, every backward pass, and the replay's reads and writes report to `track` inside."""
    with ExitStack() as undo:
        for name in ("sample", "annotate") if replay is not None else ():
            undo.enter_context(reporting(replay, name, track, name, None))
        for path, part, dreamt in PARTS:
            for owner, name in places(agent, path):
                undo.enter_context(reporting(owner, name, track, part, dreamt))

        def through(inner: Callable[..., Any]) -> Callable[..., Any]:
            def call(outputs: Any, *args: Any, **kwargs: Any) -> Any:
                with track.backward([outputs] if isinstance(outputs, torch.Tensor) else list(outputs)):
                    return inner(outputs, *args, **kwargs)

            return call

        for name in ("grad", "backward"):
            undo.enter_context(mock.patch.object(torch.autograd, name, through(getattr(torch.autograd, name))))
        yield


def places(agent: Any, path: str) -> list[tuple[Any, str]]:
    """Owners and attributes that a path names: a method, or a module's `forward`; `*` is every child."""
    owners, (*steps, name) = [agent], path.split(".")
    for step in steps:
        owners = [getattr(owner, step) for owner in owners if hasattr(owner, step)]
    if name == "*":
        return [(child, "forward") for owner in owners for child in owner.children()]
    found = [(owner, name) for owner in owners if hasattr(owner, name)]
    return [(getattr(o, n), "forward") if isinstance(getattr(o, n), nn.Module) else (o, n) for o, n in found]


def reporting(owner: Any, name: str, track: Track, part: str, dreamt: str | None) -> AbstractContextManager[Any]:
    """One method that reports inside."""
    inner = getattr(owner, name)

    def report(*args: Any, **kwargs: Any) -> Any:
        with track.inside(part, dreamt):
            return inner(*args, **kwargs)

    return mock.patch.object(owner, name, report)


def measure(agent: Any, replay: Any, *, rounds: int) -> list[dict[str, Any]]:
    """A row for every part of one `learn`; the caller has warmed it up. CPU seconds are medians.

    products_s: its products alone, replayed. peak_mb: of the process while it was under way, 0 where the system cannot
    tell. back_s: of its backward pass; the other numbers are of both.
    """
    clocked = [followed(agent, replay, Track(lambda: [time.process_time()])) for _ in range(rounds)]
    runs = [{key: charge[0] for key, charge in run.items()} for run in clocked]
    peaks = _peaks(agent, replay)
    counts, products = counted(agent, replay)
    by_part: dict[str, list[Product]] = defaultdict(list)
    for product in products:
        by_part[product.part.part].append(product)
    nothing = [0, 0, 0]

    def one(part: str) -> dict[str, Any]:
        keys = Key(part, False), Key(part, True)
        there, back = (statistics.median(run.get(key, 0.0) for run in runs) for key in keys)
        calls, flops, moved = (int(a + b) for a, b in zip(*(counts.get(key, nothing) for key in keys), strict=True))
        numbers = {"part": part, "cpu_s": there, "back_s": back, "aten_calls": calls, "flops": flops, "bytes": moved}
        alone = seconds(by_part[part], rounds) if by_part[part] else 0.0
        return numbers | {"products_s": alone, "peak_mb": max(peaks.get(key, 0) for key in keys)}

    parts = dict.fromkeys(key.part for key in [*counts, *(key for run in runs for key in run)])
    rows = sorted(map(one, parts), key=lambda row: -row["cpu_s"] - row["back_s"])
    sums = {name: sum(row[name] for row in rows) for name in rows[0] if name != "part"}
    return [*rows, sums | {"part": "all", "peak_mb": max(row["peak_mb"] for row in rows)}]


def followed(agent: Any, replay: Any, track: Track) -> dict[Key, list[float]]:
    """What each part is charged for one `learn`."""
    with tracked(agent, track, replay):
        agent.learn(replay)
    track.close()
    return track.charged


def counted(agent: Any, replay: Any) -> tuple[dict[Key, list[float]], list[Product]]:
    """Calls, FLOPs and bytes of each part, and the products."""
    products = Products(lambda: track.now)
    track = Track(lambda: [products.computing, products.flops, products.bytes])
    with eager(), products:
        return followed(agent, replay, track), products.calls


def _peaks(agent: Any, replay: Any) -> dict[Key, float]:
    """Peak memory while each part was under way, in 10^6 bytes; Linux alone can set its peak back."""
    peaks: dict[Key, float] = defaultdict(float)
    switch = Path("/proc/self/clear_refs")

    def note(key: Key) -> None:
        peaks[key] = max(peaks[key], memory_mb())
        switch.write_text("5")

    try:
        switch.write_text("5")
    except OSError:
        return peaks
    followed(agent, replay, Track(lambda: [0.0], note))
    return peaks


def parts(args: Namespace, words: list[str]) -> Iterator[Row]:
    """A row for each part, and one for all, against the floors of this CPU."""
    case = prepare(args.app, words, args.image)
    replay = fill(case)
    for _ in range(1 + args.warmup):
        case.agent.learn(replay)
    rows, speed = measure(case.agent, replay, rounds=args.rounds), machine()
    for row in rows:
        floors = {"at_peak_s": row["flops"] / speed.flops, "copied_s": row["bytes"] / speed.bytes}
        yield about(case, args.app) | {"machine": speed._asdict()} | row | floors


def floors(rows: Sequence[Row]) -> str:
    """What this CPU can do."""
    speed = rows[0]["machine"]
    rates = ", ".join(f"{name} {speed[name] / 1e9:.0f}" for name in ("product", "onednn", "convolution"))
    return f"this CPU, one thread, GFLOP/s: {rates}; copies at {speed['bytes'] / 1e9:.1f} GB/s"


COLUMNS = {
    "part": "{part}",
    "CPU s forward": "{cpu_s:.3f}",
    "backward": "{back_s:.3f}",
    "products alone": "{products_s:.3f}",
    "at peak FLOP/s": "{at_peak_s:.3f}",
    "bytes at copy speed": "{copied_s:.3f}",
    "calls": "{aten_calls:,}",
    "GFLOP": "{flops:G.1f}",
    "GB": "{bytes:G.2f}",
    "peak MB": "{peak_mb:,.0f}",
}
COMMANDS = {"parts": Command(parts, COLUMNS, key=("app", "task", "part"), after=floors)}
