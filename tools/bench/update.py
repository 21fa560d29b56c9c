"""One update of an app, or one act: what it costs alone, in turn with other implementations, or as one of them."""

from __future__ import annotations

import shlex
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from typing import Any

import torch

from bench import products
from bench.calls import count, eager
from bench.cases import Case, about, batches_of, prepare, records, waiting
from bench.clock import COMPARED, median
from bench.command import FOLDER, Command, add, say, words_of
from bench.rows import Row
from bench.turns import play, serve

ENVS = [1, 4, 16]


def costs(case: Case, run: Callable[[], object], *, rounds: int, warmup: int) -> dict[str, Any]:
    """Seconds, memory, FLOPs and calls of running it."""
    device = case.agent.device
    found = median(run, rounds, warmup=warmup, wait=waiting(device))
    if device.type == "cuda":
        found["peak_gpu_mb"] = torch.cuda.max_memory_allocated(device) / 1e6
    calls = count(run)
    found |= {"flops": calls.flops, "aten_calls": calls.computing, "aten_views": calls.other}
    return found | {"rounds": rounds, "calls": dict(calls.by_name.most_common())}


def measured(app: str, words: list[str], *, image: int | None = None, rounds: int, warmup: int) -> dict[str, Any]:
    """The row of an app's update."""
    case = prepare(app, words, image)
    batches = batches_of(case)
    return about(case, app) | costs(case, lambda: case.agent.update(*batches), rounds=rounds, warmup=warmup)


def update(args: Namespace, words: list[str]) -> Iterator[Row]:
    """One row, or one for everybody with --against."""
    if not args.against:
        yield measured(args.app, words, image=args.image, rounds=args.rounds, warmup=args.warmup)
        return
    ours = [*FOLDER, "serve", "--app", args.app, "--warmup", str(args.warmup), *words_of("image", args.image), *words]
    yield from play([ours, *map(shlex.split, args.against)], args.rounds, say, apart=args.apart)


def act(args: Namespace, words: list[str]) -> Iterator[Row]:
    """A row for each number of environments."""
    case = prepare(args.app, words, args.image)
    for n in args.envs:
        run = acting(case, n)
        yield about(case, args.app) | {"envs": n} | costs(case, run, rounds=args.rounds, warmup=args.warmup)


def acting(case: Case, n: int) -> Callable[[], object]:
    """One acting step of n environments, after two."""
    agent, source = case.agent, records(case, n)
    carry = agent.initial(n)
    for _ in range(2):
        carry = agent.act(carry, next(source))[0]
    step = next(source)
    return lambda: agent.act(carry, step)


def serving(args: Namespace, words: list[str]) -> Iterator[Row]:
    """Be a COMMAND: our update, or its products alone."""
    case = prepare(args.app, words, args.image)
    batches, wait, description = batches_of(case), waiting(case.agent.device), about(case, args.app)
    name = f"{args.app} {case.config.batch}x{case.config.length}"
    if args.command == "serve":
        serve(name, lambda: (case.agent.update(*batches), wait()), warmup=args.warmup, **description)
    else:
        with eager(), products.Products() as seen:
            case.agent.update(*batches)
        replayed = products.Replayed(seen.calls)
        description |= {"flops": seen.flops, "products": len(seen.calls)}
        del case, batches  # they are no part of its memory
        serve(f"products of {name}", replayed, warmup=args.warmup, **description)
    yield from ()


def frequent(rows: Any) -> str:
    """Which calls they are."""
    calls = [(n, name.removeprefix("aten::")) for name, n in rows[-1].get("calls", {}).items()][:12]
    return "most frequent calls: " + ", ".join(f"{n:,} {name}" for n, name in calls) if calls else ""


def against(parser: ArgumentParser) -> None:
    parser.add_argument("--against", action="append", metavar="COMMAND", help="another implementation, see turns.py")
    parser.add_argument("--apart", action="store_true", help="never two of them in memory together; slower")


def envs(parser: ArgumentParser) -> None:
    add(parser, envs=ENVS)


COUNTED = {"GFLOP": "{flops:G.3f}", "calls": "{aten_calls:,}", "views": "{aten_views:,}"}
COLUMNS = COMPARED | COUNTED | {"parameters": "{parameters:,}", "GPU MB": "{peak_gpu_mb:,.0f}"}
ACTS = {"envs": "{envs}", "CPU ms": "{cpu_s:m.2f}", "wall ms": "{wall_s:m.2f}", "peak MB": "{peak_mb:,.0f}"} | COUNTED
COMMANDS = {
    "update": Command(update, COLUMNS, against, after=frequent),
    "act": Command(act, ACTS, envs, rounds=20, key=("app", "task", "envs"), after=frequent),
    "serve": Command(serving, {}),
    "floor": Command(serving, {}),
}
