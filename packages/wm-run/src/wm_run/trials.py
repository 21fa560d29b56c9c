"""Small updates, made and measured -> what the whole one takes: no update of the run's own size is made for an estimate.

An update's seconds are those that do not depend on its size (the optimiser's, calls of a dream), those of calls that follow
each other along a row, and those of computing: t = a + b * length + c * rows * length. Three updates give a, b and c: of
one row, of a longer one, and of more rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from wm_core.learner import Learner

from wm_run.config import RunConfig
from wm_run.cost import Flops
from wm_run.replay import Replay
from wm_run.retained import Retained

STEPS = 4  # of a row of the small updates
LONGER = 16  # of a longer one, where updates are quick
SLOW = 0.15  # seconds of the smallest update: from there on calls do not count
ROOM = (
    5.0  # seconds for the update of more rows, were it to cost as much a row as that of one: it costs a third or less
)
SIDE, TRIES = 512, 20  # of the product; of its tries, milliseconds each
Make = Callable[[RunConfig], tuple[Learner, Replay]]


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


@contextmanager
def one_thread() -> Iterator[int]:
    """Inside, torch computes in one thread; gives how many it had."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


def shared(threads: int) -> float:
    """Of the seconds that one thread takes for a product, what so many take together: the least of many short tries, some of
    which find every core free.

    >>> shared(1)
    1.0
    """
    if threads == 1:
        return 1.0
    matrix = torch.ones(SIDE, SIDE)

    def least(count: int) -> float:
        torch.set_num_threads(count)
        return spend(lambda: matrix @ matrix, times=TRIES).busy

    with one_thread():
        alone, together = least(1), least(threads)
    return min(1.0, max(together / alone, 1 / threads))


@dataclass(frozen=True)
class Measured:
    """An update that was made, with what it took."""

    cost: Cost
    flops: int
    kept: int
    """The most bytes that are kept at once for a backward pass."""


@dataclass(frozen=True)
class Trial:
    """A small update: how long its rows were, with how many steps it computed, and what it took."""

    length: int
    computed: int
    took: Measured


def tried(agent: Learner, replay: Replay, *, gpu: bool = False, times: int = 1) -> Measured:
    """The first update counts and allocates, and is not timed where others follow."""
    flops, kept = 0, 0

    def first() -> None:
        nonlocal flops, kept
        flops, kept = _first_update(agent, replay)

    cost = spend(first, gpu=gpu)
    if times:
        cost = spend(lambda: agent.learn(replay), gpu=gpu, times=times)
    return Measured(cost, flops, kept)


def whole_update(config: RunConfig, make: Make, share: float = 1.0) -> Measured:
    """What an update of this size takes on a CPU. make: an agent of a config, and what it is to learn from. share: of one
    thread's seconds what the run's threads take together, where much is computed at once."""

    past = 0

    def trial(batch: int, length: int, times: int) -> Trial:
        nonlocal past
        part = config.part(batch, length)
        agent, replay = make(part)
        past = max(agent.stores.values(), default=0)
        return Trial(part.length, part.computed, tried(agent, replay, times=times))

    one = trial(1, STEPS, 1)
    seconds = max(one.took.cost.quiet, 1e-9)
    quick = seconds < SLOW
    again, length = (2, max(STEPS, min(LONGER, config.length // 2))) if quick else (1, STEPS)
    rows = min(config.batch, max(2, int(ROOM * STEPS / length / seconds)))
    longer = trial(1, length, again) if quick or rows == 1 else None
    wider = trial(rows, length, again) if rows > 1 else None
    found = predicted(one, longer if longer and longer.computed > one.computed else None, wider, config, share)
    return found if past < config.length else with_past(found, trial(1, config.length, 0).took, config.batch)


def with_past(found: Measured, row: Measured, rows: int) -> Measured:
    """`found`, with the amounts of so many rows like this one, and its seconds in proportion.

    A row brings as much of the past with it however short it is, and a short one may take another way through it: recall
    gathers for few queries. So amounts are not a matter of steps there, while a single row's seconds say little of many's.

    >>> with_past(Measured(Cost(6.0, 12.0), 300, 50), Measured(Cost(1.0, 1.0), 50, 10), rows=4)
    Measured(cost=Cost(quiet=4.0, busy=8.0), flops=200, kept=40)
    """
    flops = rows * row.flops
    return Measured(found.cost * (flops / max(found.flops, 1)), flops, rows * row.kept)


def predicted(one: Trial, longer: Trial | None, wider: Trial | None, whole: RunConfig, share: float = 1.0) -> Measured:
    """The whole update from that of one row, that of a longer row, and that of more rows as long as the longer one, or as
    the one where there is no longer one.

    >>> def trial(rows, length):
    ...     seconds = 2.0 + 0.25 * length + 0.5 * rows * length
    ...     return Trial(length, rows * length, Measured(Cost(seconds, 2 * seconds), 10 * rows * length, 3))
    >>> predicted(trial(1, 4), trial(1, 16), trial(3, 16), RunConfig(batch=16, length=64))
    Measured(cost=Cost(quiet=530.0, busy=1060.0), flops=10240, kept=3)
    """
    low, high = (longer or one, wider) if wider else (one, longer or one)

    def slope(of: Callable[[Measured], float]) -> float:
        """Per step that is computed, at most so much that nothing of the smaller update is left."""
        more = high.computed - low.computed
        return min(max((of(high.took) - of(low.took)) / more, 0.0), of(low.took) / low.computed) if more else 0.0

    def seconds(of: Callable[[Measured], float]) -> float:
        step, calls = slope(of), 0.0
        if wider and longer and longer.length > one.length:
            rest = of(longer.took) - of(one.took) - step * (longer.computed - one.computed)
            calls = max(rest / (longer.length - one.length), 0.0)
        computing = step * (share * whole.computed - high.computed)
        return max(of(high.took) + computing + calls * (whole.length - high.length), 0.0)

    def amount(of: Callable[[Measured], float]) -> int:
        return round(of(high.took) + slope(of) * (whole.computed - high.computed))

    cost = Cost(seconds(lambda took: took.cost.quiet), seconds(lambda took: took.cost.busy))
    return Measured(cost, amount(lambda took: took.flops), amount(lambda took: took.kept))


def _first_update(agent: Learner, replay: Replay) -> tuple[int, int]:
    """FLOPs of an update, and the most bytes that are kept at once for backward passes."""
    retained = Retained(agent.parameters())
    with Flops() as counter, retained.hooks():
        agent.learn(replay)
    return counter.total, retained.most
