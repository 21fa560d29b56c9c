"""Milliseconds of an update and of an act, plain and as a graph, each beside its floor; the loop; the neighbour.

The floor of an update is its own matrix products and convolutions made again with random numbers of the same shapes, as
one graph: no launch waits for Python there. That of the loop is the environments alone.
"""

from __future__ import annotations

import importlib
import itertools
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench import cases, turns
from bench.products import Products, Replayed
from gpu_place import Failed, Left, Place
from wm_core.fast.capture import WARMUP
from wm_run import cli, loading
from wm_run.loop import Position, train
from wm_run.replay import Replay

ROWS = ("--batch", "16", "--length", "64", "--precision", "bf16")
PIXELS = ("--preset", "atari100k", "--task", "toy:catch", *ROWS)


def shapes(like: str) -> tuple[str, ...]:
    """The options of a team that has these shapes, and is none."""
    return ("--task", "zoo:gpu_teams", "--env.like", like, "--precision", "bf16")


CASES: dict[str, tuple[str, tuple[str, ...]]] = {
    "dreamer 1m, vectors": ("dreamer", ("--preset", "dmc_proprio", "--size", "1m", "--task", "gym:CartPole-v1", *ROWS)),
    "dreamer 12m, pixels": ("dreamer", ("--size", "12m", *PIXELS)),
    "dreamer 50m, pixels": ("dreamer", ("--size", "50m", *PIXELS)),
    "dreamer 200m, pixels": ("dreamer", ("--size", "200m", *PIXELS)),
    "po_dreamer, pixels": ("po_dreamer", PIXELS),
    "r2i, pixels": ("r2i", PIXELS),
    "storm, pixels": ("storm", PIXELS),
    # of the papers' sizes; catch shows what a maze does, 64 x 64 x 3
    "po_dreamer, maze": ("po_dreamer", ("--preset", "memory_maze", "--task", "toy:catch", "--precision", "bf16")),
    "r2i, maze": ("r2i", ("--preset", "memory_maze", "--task", "toy:catch", "--precision", "bf16")),
    "dmawm, 25 marines": ("dmawm", ("--preset", "paper", *shapes("smax:25m"))),
    "dmawm, coop_mining": ("dmawm", ("--preset", "paper", *shapes("meltingpot:coop_mining"))),
    "po_dreamer, 5 units": ("po_dreamer", ("--preset", "smac", *shapes("smax:smacv2_5_units"))),
}


def update(place: Place, name: str) -> dict[str, float]:
    """An update alone, on batches that lie on the device; and how many environment steps a second such updates allow."""
    app, options = CASES[name]
    place.as_on_a_gpu()
    case = cases.prepare(app, place.options(options))
    agent, batches = case.agent, cases.batches_of(case)
    repeat = 2 if place.rehearsal else 12

    def run() -> Any:
        return agent.update(*batches)

    eager = place.milliseconds(run, warmup=0 if place.rehearsal else 2, repeat=repeat)
    with Products() as seen:
        run()
    products = Replayed(seen.calls, place.device)
    products()
    _, again = place.recorder().record(products, [])
    floor = place.milliseconds(again, warmup=1, repeat=repeat)
    del products, again
    captured = recorded(place, agent, lambda: agent.updated(*batches), "_updating")
    graph = place.milliseconds(captured, warmup=1, repeat=repeat)
    replayed = case.config.batch * case.config.length
    numbers = {"eager_ms": eager, "graph_ms": graph, "floor_ms": floor, "flops": sum(one.flops for one in seen.calls)}
    numbers["steps_per_s"] = 1e3 / graph * replayed / case.config.train_ratio
    return numbers | {"parameters": agent.parameters_by_module()["total"], **memory(place)}


def act(place: Place, n: int) -> dict[str, float]:
    """An acting step of n environments, its observation from the host and its action to it."""
    app, options = CASES["dreamer 12m, pixels"]
    case = cases.prepare(app, place.options(options))
    agent, source = case.agent, cases.records(case, n)
    step, state = next(source), [agent.initial(n)]

    def run() -> None:
        state[0] = agent.act(state[0], step)[0]

    repeat = 2 if place.rehearsal else 50
    eager = place.milliseconds(run, warmup=2, repeat=repeat)
    with Products() as seen:
        run()
    products = Replayed(seen.calls, place.device)
    products()
    _, again = place.recorder().record(products, [])
    captured = recorded(place, agent, run, "_choosing")
    graph = place.milliseconds(captured, warmup=1, repeat=repeat)
    return {"eager_ms": eager, "graph_ms": graph, "floor_ms": place.milliseconds(again, warmup=1, repeat=repeat)}


def recorded(place: Place, agent: Any, run: Callable[[], Any], which: str) -> Callable[[], Any]:
    """The same call once it is recorded and has been compared."""
    said: list[str] = []
    agent.capture("graph", said.append, place.recorder())
    call = getattr(agent, which)
    call.otherwise = lambda: None  # compiling takes minutes
    for _ in range(WARMUP + 3):
        run()
    if said or call.recorded is None:
        raise Failed("; ".join(said) or "nothing was recorded")
    call.comparing = False
    return run


def memory(place: Place) -> dict[str, float]:
    return {} if place.rehearsal else {"peak_gpu_mb": torch.cuda.max_memory_allocated() / 1e6}


class Silent:
    """A log that nobody reads."""

    def metrics(self, step: int, values: Any) -> None: ...

    def score(self, step: int, score: float, length: int, /, **outcomes: float) -> None: ...


def loop(place: Place, n: int) -> dict[str, float]:
    """Acting, keeping, sampling and learning with n environments, an update every 8 rounds: as at train ratio 128, 16 x 64."""
    app, options = CASES["dreamer 12m, pixels"]
    found = importlib.import_module(f"{app}.cli").APP
    words = [*place.options(options), "--envs", str(n), "--workers", "0"]
    config = loading.runtime(cli.parse(found, ["info", *words]).config)
    every, rounds = (4, 12) if place.rehearsal else (8, 240)
    with closing(loading.environments(found, config, n)) as envs:
        agent = loading.build(found, config, envs)
        agent.capture("eager" if place.rehearsal else "graph", lambda sentence: None)
        kept: dict[str, Any] = {
            "stores": agent.stores,
            "limit_bytes": 2**34,
            "length": config.length,
            "online": agent.online,
        }
        replay, replayed = Replay(None, n, **kept), config.batch * config.length
        at = Position.begin(agent, envs, seed=0, train_ratio=replayed / (every * n), replayed=replayed)
        begin, made, marks = config.length + 8 * every, itertools.count(1), list[tuple[float, int, int]]()

        def go_on(at: Position) -> bool:
            now = next(made)
            if now in (begin, begin + rounds):
                place.wait()
                marks.append((time.perf_counter(), at.steps, int(agent.clock.updates)))
            return now < begin + rounds

        numbers: dict[str, Any] = {"log_every": 2**40, "learning_starts": n * config.length, "length": config.longest}
        train(agent, envs, replay, at, Silent(), **numbers, go_on=go_on)
        alone, rng = time.perf_counter(), np.random.default_rng(0)
        for _ in range(rounds):
            envs.step(cases.random_actions(envs.action_spec, n, rng))
        alone = time.perf_counter() - alone
    seconds, steps, updates = (b - a for a, b in zip(*marks, strict=True))
    return {
        "round_ms": 1e3 * seconds / rounds,
        "floor_ms": 1e3 * alone / rounds,
        "updates_per_s": updates / seconds,
        "actions_per_s": steps / envs.repeat / seconds,
    }


STAND_IN = """
import sys; sys.path.insert(0, {path!r})
import torch
from bench.turns import serve
serve("a stand-in for r2dreamer", lambda: torch.ones(64, 64) @ torch.ones(64, 64), parameters=1)
"""


def peer(place: Place) -> dict[str, float]:
    """An update of ours and of r2dreamer in turn, both 12m, 16 x 64, plain."""
    tools = Path(__file__).resolve().parent
    if place.peer is None and not place.rehearsal:
        raise Left("give --r2dreamer FOLDER, a checkout of it")
    _, options = CASES["dreamer 12m, pixels"]
    ours = [sys.executable, str(tools / "bench"), "serve", "--app", "dreamer", *place.options(options)]
    theirs = [sys.executable, "-c", STAND_IN.format(path=str(tools))]
    if not place.rehearsal:
        theirs = [sys.executable, str(tools / "bench"), "peer", "r2dreamer", str(place.peer)]
        theirs += ["--batch", "16", "--length", "64", "--device", "cuda", "--warmup", "3"]
    played = turns.play([[*ours, "--warmup", "3"], theirs], 2 if place.rehearsal else 10)
    ms = [1e3 * one["wall_s"] for one in played]
    return {"eager_ms": ms[0], "peer_ms": ms[1], "ratio": ms[0] / ms[1]}
