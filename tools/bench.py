"""What one update of an app costs, or one act: seconds, memory, FLOPs and calls into torch; where they go; who is faster.

bench.py update --app dreamer --preset atari100k --size 12m --batch 4 --length 64 --json
bench.py update --app po_dreamer --preset tiny               a table for people
bench.py update --app dreamer ... --against COMMAND          in turn with other implementations, as paired ratios
bench.py act --app dreamer --preset atari100k --size 12m     one acting step, of 1, 4 and 16 environments
bench.py parts --app dreamer --preset atari100k --size 12m   where `learn` spends it, against the floors of this CPU
bench.py scaling --app dreamer ... --length 16 64 256        how it grows with the option that has several values
bench.py loop --app dreamer --preset atari100k --envs 1 4 16 acting in real environments, and the emulator alone
bench.py overlap --app dreamer ... --envs 4 --workers 1      learning while the environments step, over one by one
bench.py calls [--write]                                     tests/calls.json, the counts that CI holds
bench.py serve --app dreamer ...  |  bench.py floor ...      ours as a COMMAND, and its products alone as one

--app --json --repeat --warmup --image --against --apart --rounds --out, and --envs --steps of loop, are the tool's own; every other option is one
of the app's `info`: --preset, --size, --ablation and any field of its config (--device, --precision, --threads, --task,
...). --threads is 1 unless named, for cpu_s counts what idle threads spin. Except by `loop` no environment is played:
frames and actions are random, the notes of the dynamics come from acting on such frames, and a real replay in memory
makes the batch exactly as the app's `learn` asks for it.

The numbers:
cpu_s, wall_s  medians over --repeat updates after warm-up, `update` alone (no sampling, no writing back); user and
               system time of all threads of the process.
peak_mb        peak resident memory of the process until then, torch and all, in 10^6 bytes. peak_gpu_mb on a GPU.
flops          of one whole update, forward and backward, by torch's FlopCounterMode: 2 for a multiply-add in products,
               convolutions and attention, nothing for the rest.
aten_calls     dispatcher calls of one whole eager update that compute something: see `bench_calls.Calls` for the rule.
aten_views     the other dispatcher calls: views and metadata.
parameters     trainable, all parts together, without the slow critic.
--against      COMMAND is any program that speaks the protocol of bench_turns.py; tools/bench_peers has some. May be
               repeated. One round is one update of each, in turn; a ratio is ours over theirs in the same round.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import math
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import bench_floor
import bench_loop
import bench_parts
import bench_record
import bench_scaling
import torch
from bench_app import Case, batches_of, fill, prepare, records
from bench_calls import Calls, count, eager
from bench_turns import against_table, compare, peak_mb, play, serve
from wm_core.types import Batch
from wm_run.folder import describe_environment

ENVS = (1, 4, 16)


class Seconds(NamedTuple):
    """Medians."""

    cpu_s: float
    wall_s: float


def clock(run: Callable[[], object], *, warmup: int, repeat: int, device: torch.device) -> Seconds:
    """Median CPU and wall seconds of running it."""
    cpu, wall = [], []
    for i in range(warmup + repeat):
        _wait(device)
        begin = time.process_time(), time.perf_counter()
        run()
        _wait(device)
        if i >= warmup:
            cpu.append(time.process_time() - begin[0])
            wall.append(time.perf_counter() - begin[1])
    return Seconds(statistics.median(cpu), statistics.median(wall))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def update(case: Case, *, warmup: int, repeat: int) -> tuple[dict[str, Any], Calls]:
    """The numbers of one update."""
    batches, agent = batches_of(case), case.agent
    seconds = clock(lambda: agent.update(*batches), warmup=warmup, repeat=repeat, device=agent.device)
    memory = {"peak_mb": peak_mb()}
    if agent.device.type == "cuda":
        memory["peak_gpu_mb"] = torch.cuda.max_memory_allocated(agent.device) / 1e6
    calls, flops = count(lambda: agent.update(*batches))
    numbers = {"flops": flops, "aten_calls": calls.computing, "aten_views": calls.other}
    return seconds._asdict() | memory | numbers, calls


def act(case: Case, *, warmup: int, repeat: int) -> tuple[dict[str, Any], Calls]:
    """The numbers of one acting step by the number of environments, and the calls of the last of them."""
    agent, found = case.agent, {}
    for n in ENVS:
        source, calls = records(case, n), Calls()
        carry = agent.initial(n)
        for _ in range(2):
            carry = agent.act(carry, next(source))[0]
        step = next(source)
        seconds = clock(lambda: agent.act(carry, step), warmup=warmup, repeat=repeat, device=agent.device)  # noqa: B023
        calls, flops = count(lambda: agent.act(carry, step))  # noqa: B023
        found[str(n)] = seconds._asdict() | {"flops": flops, "aten_calls": calls.computing, "aten_views": calls.other}
    return {"envs": found, "peak_mb": peak_mb()}, calls


def measure(
    command: str, app: str, options: list[str], *, image: int | None = None, warmup: int, repeat: int
) -> tuple[dict[str, Any], Calls]:
    """Everything that `update` or `act` print with --json, and the calls by name."""
    case = prepare(app, options, image)
    numbers, calls = {"update": update, "act": act}[command](case, warmup=warmup, repeat=repeat)
    return {"command": command, "repeat": repeat, "warmup": warmup} | about(case, app) | numbers, calls


def about(case: Case, app: str) -> dict[str, Any]:
    """What a number needs beside it to mean something."""
    here = describe_environment()
    return {
        "app": app,
        "task": case.config.task,
        "parameters": case.agent.parameters_by_module()["total"],
        "device": str(case.agent.device),
        "precision": case.agent.precision,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": here["python"],
        "platform": platform.platform(),
        "hardware": here["hardware"],
        "commit": here["commit"],
        "config": dataclasses.asdict(case.config),
    }


def table(result: Mapping[str, Any], calls: Calls) -> str:
    """The result of `update` or `act` for people."""
    rows = {"": result} if result["command"] == "update" else result["envs"]
    lines = [
        *head(result),
        "",
        f"{'envs':>4} {'cpu s':>10} {'wall s':>10} {'GFLOP':>10} {'aten calls':>11} {'views':>8}",
    ]
    for name, row in rows.items():
        lines.append(
            f"{name:>4} {row['cpu_s']:>10.4f} {row['wall_s']:>10.4f} {row['flops'] / 1e9:>10.3f} "
            f"{row['aten_calls']:>11,} {row['aten_views']:>8,}"
        )
    gpu = f", {result['peak_gpu_mb']:,.0f} MB on the GPU" if "peak_gpu_mb" in result else ""
    lines += ["", f"peak memory {result['peak_mb']:,.0f} MB{gpu}", "", "most frequent calls:"]
    width = max((math.floor(math.log10(n)) + 1 for n in calls.by_name.values()), default=1)
    lines += [f"  {n:>{width}} {name.removeprefix('aten::')}" for name, n in calls.by_name.most_common(12)]
    return "\n".join(lines)


def head(result: Mapping[str, Any]) -> list[str]:
    """What was measured, in two lines."""
    config = result["config"]
    size = "" if result["command"] == "act" else f"batch {config['batch']} x {config['length']}, "
    what = f"{result['app']} {result['command']} on {result['task']}: {size}{result['parameters']:,} parameters"
    where = f"{result['device']}, {result['precision']}, {result['threads']} threads, torch {result['torch']}"
    return [what, f"{where}, median of {result['repeat']} after {result['warmup']} warm-up, commit {result['commit']}"]


def show(args: argparse.Namespace, options: list[str]) -> str:
    """Run one command on one case, and what it has to say."""
    image = args.image[0] if args.image else None
    if args.command in ("update", "act"):
        result, calls = measure(args.command, args.app, options, image=image, warmup=args.warmup, repeat=args.repeat)
        return json.dumps(result) if args.json else table(result, calls)
    case = prepare(args.app, options, image)
    told = {"command": args.command, "repeat": args.repeat, "warmup": args.warmup} | about(case, args.app)
    replay = fill(case)
    for _ in range(1 + args.warmup):
        case.agent.learn(replay)
    parts, machine = bench_parts.measure(case.agent, replay, repeat=args.repeat), bench_floor.machine()
    result = told | {
        "machine": machine._asdict(),
        "parts": [key._asdict() | part._asdict() for key, part in parts.items()],
    }
    if args.json:
        return json.dumps(result)
    rates = ", ".join(f"{name} {getattr(machine, name) / 1e9:.0f}" for name in ("product", "onednn", "convolution"))
    speed = f"this CPU, one thread, GFLOP/s: {rates}; copies at {machine.bytes / 1e9:.1f} GB/s"
    return "\n".join([*head(result), speed, "", bench_parts.part_table(parts, machine)])


def take_turns(args: argparse.Namespace, options: list[str]) -> None:
    """Be a COMMAND: our update, or its products alone."""
    case = prepare(args.app, options, args.image[0] if args.image else None)
    batches, config, told = batches_of(case), case.config, about(case, args.app)
    name = f"{args.app} {config.batch}x{config.length}"
    if args.command == "serve":

        def run() -> None:
            case.agent.update(*batches)
            _wait(case.agent.device)

        serve(name, run, warmup=args.warmup, **told)
    else:
        calls = products(case, batches)
        replayed = bench_floor.Replayed(calls)
        del case, batches  # they are no part of its memory
        told |= {"flops": sum(one.flops for one in calls), "products": len(calls)}
        serve(f"products of {name}", replayed, warmup=args.warmup, **told)


def products(case: Case, batches: tuple[Batch, ...]) -> list[bench_floor.Product]:
    """Those of one update."""
    with eager(), bench_floor.Products() as seen:
        case.agent.update(*batches)
    return seen.calls


def against(args: argparse.Namespace, options: list[str]) -> str:
    """Ours in turn with the others."""
    image = ["--image", str(args.image[0])] if args.image else []
    warmup = ["--warmup", str(args.warmup)]
    ours = [sys.executable, __file__, "serve", "--app", args.app, *warmup, *image, *options]
    commands = [ours, *(shlex.split(command) for command in args.against)]
    played = play(commands, args.rounds, lambda words: print(words, file=sys.stderr, flush=True), apart=args.apart)
    return json.dumps({"compared": compare(played), "played": played}) if args.json else against_table(played)


REPEAT = {"act": 20}
COMMANDS = ("update", "act", "parts", "scaling", "loop", "overlap", "calls", "serve", "floor")


def main() -> None:
    ap = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    ap.add_argument("command", choices=COMMANDS)
    ap.add_argument("--app", default="dreamer", help="dreamer, po_dreamer, ...: its module")
    ap.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    ap.add_argument("--repeat", type=int, metavar="N", help="measured runs (default 3, for act 20)")
    ap.add_argument("--warmup", type=int, metavar="N", default=1, help="runs before them, beside the first (default 1)")
    ap.add_argument("--image", type=int, nargs="+", metavar="SIDE", help="side of images, instead of the task's")
    ap.add_argument("--against", action="append", metavar="COMMAND", help="another implementation, see bench_turns.py")
    ap.add_argument("--apart", action="store_true", help="of --against: never two of them in memory together; slower")
    ap.add_argument("--rounds", type=int, metavar="N", default=3, help="of --against, scaling and loop (default 3)")
    ap.add_argument("--envs", type=int, nargs="+", metavar="N", help="environments of loop (default 1 4 16)")
    ap.add_argument("--steps", type=int, metavar="N", help="steps of a block of loop (default 100)")
    ap.add_argument("--write", action="store_true", help="calls: renew the record")
    ap.add_argument("--out", metavar="FILE", help="scaling: add the rows to this file, and draw it beside")
    args, options = ap.parse_known_args()
    args.repeat = REPEAT.get(args.command, 3) if args.repeat is None else args.repeat
    if args.repeat < 1 or args.warmup < 0 or args.rounds < 1:
        ap.error("--repeat and --rounds must be at least 1 and --warmup at least 0")
    if importlib.util.find_spec(args.app) is None:
        ap.error(f"there is no app {args.app!r}: name its module, for example dreamer or po_dreamer")
    if args.command not in ("loop", "overlap"):  # there it is the app's, like every option that is not the tool's
        options += [word for name in ("envs", "steps") if (given := getattr(args, name)) for word in flag(name, given)]
    try:
        if args.command in ("serve", "floor"):
            take_turns(args, options)
        elif args.command == "calls":
            print(bench_record.renew() if args.write else bench_record.report())
        elif args.command == "scaling":
            side = flag("image", args.image) if args.image else []
            print(bench_scaling.run(args.app, [*options, *side], rounds=args.rounds, out=args.out))
        elif args.command in ("loop", "overlap"):
            print(
                {"loop": bench_loop.run, "overlap": bench_loop.overlap}[args.command](
                    args.app,
                    options,
                    counts=args.envs or ENVS,
                    steps=args.steps or 100,
                    rounds=args.rounds,
                    as_json=args.json,
                )
            )
        elif args.against:
            print(against(args, options))
        else:
            print(show(args, options))
    except ValueError as error:  # UserError, TurnError and TaskError are such, and say what to do in one sentence
        if not (getattr(error, "user_error", False) or type(error).__name__ == "TaskError"):
            raise
        ap.error(str(error))


def flag(name: str, value: Any) -> list[str]:
    """An option as words."""
    return [f"--{name}", *map(str, value if isinstance(value, list) else [value])]


if __name__ == "__main__":
    main()
