"""Steps of SMAX through `make_vec` beside its compiled step alone, whose outputs are looked at as NumPy arrays.

smax [--scenario 3m] [--envs 1 8 64] [--steps 100]

Battles are played once with random legal actions; then both take the same actions again and again, so that both do the
same work: `adapter` is `env.step(action)`; `bare` calls the compiled step with what the adapter handed it, and looks at
what it gives with `np.asarray`. `first over it` of `adapter` is the share of the bare step's speed that it has. CPU
seconds are of all threads of the process.
"""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from importlib.metadata import version
from typing import Any
from unittest import mock

import numpy as np
from env_adapters.smax import Smax
from env_adapters.team import choose

from bench.clock import COMPARED, compared
from bench.command import Command, add
from bench.rows import Row, here


def played(env: Smax, steps: int) -> tuple[list[Any], list[tuple[Any, ...]]]:
    """The actions (n, N, A) of so many steps after `reset(0)`, and what the compiled step was handed at each call."""
    noting = mock.Mock(wraps=env.program.step)
    with mock.patch.object(env, "program", replace(env.program, step=noting)):
        rng, step, actions = np.random.default_rng(0), env.reset(0), []
        for _ in range(steps):
            actions.append(choose(env.action_spec, rng.random(step["action_mask"].shape), step["action_mask"]))
            step = env.step(actions[-1])
    return actions, [call.args[1:] for call in noting.call_args_list]


def ways(env: Smax, steps: int, rounds: int) -> dict[str, list[dict[str, float]]]:
    """The cost of `steps` steps of each, in each round. They take turns at every step: a busy machine changes faster than
    a round lasts."""
    actions, handed = played(env, steps)
    found: dict[str, list[dict[str, float]]] = {"bare": [], "adapter": []}
    for _ in range(rounds):
        env.reset(0)
        carry, _ = env.program.step(env.program.blank(), *handed[0])
        at = [carry]

        def bare(inputs: tuple[Any, ...], at: list[Any] = at) -> None:
            at[0], shown = env.program.step(at[0], *inputs)
            for one in shown.values():
                np.asarray(one)

        totals = {name: np.zeros(2) for name in found}
        for k, (action, inputs) in enumerate(zip(actions, handed[1:], strict=True)):
            players: list[tuple[str, Callable[[Any], Any], Any]] = [
                ("bare", bare, inputs),
                ("adapter", env.step, action),
            ]
            for name, run, given in players[:: 1 if k % 2 else -1]:
                begin = time.process_time(), time.perf_counter()
                run(given)
                totals[name] += time.process_time() - begin[0], time.perf_counter() - begin[1]
        for name, (cpu, wall) in totals.items():
            found[name].append({"cpu_s": float(cpu), "wall_s": float(wall)})
    return found


def smax(args: Namespace, words: list[str]) -> Iterator[Row]:
    """Two rows for each number of environments."""
    for n in args.envs:
        with closing(Smax(args.scenario, n)) as env:
            about = {"scenario": args.scenario, "envs": n, "jax": version("jax"), "jaxmarl": version("jaxmarl")}
            found = ways(env, args.steps, args.warmup + args.rounds)
            for row in compared({name: costs[args.warmup :] for name, costs in found.items()}):
                rates = {f"steps_per_{kind}": n * args.steps / row[f"{kind}_s"] for kind in ("cpu", "wall")}
                yield here() | about | row | rates


def options(parser: ArgumentParser) -> None:
    add(parser, scenario="3m", envs=[1, 8, 64])
    parser.add_argument("--steps", type=int, default=100, help="of a turn (default 100)")


COLUMNS = {"scenario": "{scenario}", "envs": "{envs}", "steps/CPU s": "{steps_per_cpu:,.0f}"} | COMPARED
COMMANDS = {"smax": Command(smax, COLUMNS, options, app=False, rounds=30, key=("scenario", "envs", "name"))}
