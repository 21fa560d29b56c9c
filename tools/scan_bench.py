"""What a scan of wm-ssm costs by each method, over lengths, rows and states: time as ratios, and memory.

scan_bench.py                                        the table of wm-ssm's README
scan_bench.py --lengths 256 1024 --rows 4 --states 128 --device cuda

Each line is one problem; in one process after another, each method runs forward alone and forward with backward
(gradients of decay, input and start; one reset in 200 steps). Times are the least of some runs, of the process on a CPU
(one thread), of the wall on a GPU, and shown as multiples of the method `sequential` in the same line; only its own is
absolute. Memory is the most that forward and backward held beyond the arguments, as a multiple of the input.
`plain` is the loop through autograd; `doubling` the textbook parallel scan in log T passes over everything.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from wm_ssm import linear_scan, plain_scan

SEQUENTIAL = "sequential"


def doubling(decay: Tensor, input: Tensor, start: Tensor, reset: Tensor) -> Tensor:
    """log2 T passes: after pass k a step knows the 2^k steps before it. Not in wm-ssm; here to compare with.

    >>> reset = torch.tensor([[False], [False], [True], [False], [False]])
    >>> doubling(torch.tensor([2.0]), torch.ones(5, 1, 1), torch.tensor([1.0]), reset).flatten()
    tensor([ 3.,  7.,  3.,  7., 15.])
    """
    fresh = reset[..., None].clone()
    fresh[0] = True
    x = input + torch.where(fresh, decay * start, 0)
    a = torch.where(fresh, 0, decay.expand(input.shape))
    reach = 1
    while reach < len(x):
        x = torch.cat([x[:reach], a[reach:] * x[:-reach] + x[reach:]])
        a = torch.cat([a[:reach], a[reach:] * a[:-reach]])
        reach *= 2
    return x


def methods(device: str) -> dict[str, Callable[..., Tensor]]:
    """Name -> scan(decay, input, start, reset)."""
    ours = [SEQUENTIAL, "two_level", *(["triton"] if device == "cuda" else [])]
    scans: dict[str, Callable[..., Tensor]] = {"plain": plain_scan, "doubling": doubling}
    for name in ours:
        scans[name] = lambda *args, name=name: linear_scan(*args, method=name)
    return scans


def problem(length: int, rows: int, states: int, device: str) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    radius = 1 - 10 ** -(1 + 3 * torch.rand(states, generator=generator))
    decay = torch.polar(radius, torch.randn(states, generator=generator))
    given = torch.randn(length, rows, states, dtype=torch.complex64, generator=generator)
    start = torch.randn(states, dtype=torch.complex64, generator=generator)
    reset = torch.rand(length, rows, generator=generator) < 0.005
    leaves = [x.to(device).requires_grad_() for x in (decay, given, start)]
    return [*leaves, reset.to(device)]


def resident(name: str) -> int:
    """Of /proc/self/status, in bytes: VmRSS now, VmHWM at most."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise OSError("scan_bench reads memory from /proc, which only Linux has")


def measure(name: str, size: tuple[int, int, int], device: str, repeat: int, channel: Any) -> None:
    """In a process of its own: {"forward": s, "both": s, "memory": multiple of the input}."""
    torch.set_num_threads(1)
    scan, arguments = methods(device)[name], problem(*size, device)
    weights = torch.ones_like(arguments[1])
    cuda = device == "cuda"

    def forward() -> None:
        with torch.no_grad():
            scan(*arguments)

    def both() -> None:
        torch.autograd.grad(scan(*arguments), arguments[:3], weights)

    def least(run: Callable[[], None]) -> float:
        clock, took = time.perf_counter if cuda else time.process_time, []
        for _ in range(repeat):
            begun = clock()
            run()
            if cuda:
                torch.cuda.synchronize()
            took.append(clock() - begun)
        return min(took)

    if cuda:
        both()  # compiles
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        both()
        most = torch.cuda.max_memory_allocated() - before
    else:
        small = problem(8, 2, 4, device)
        torch.autograd.grad(scan(*small), small[:3], torch.ones_like(small[1]))  # what a first call loads
        before = resident("VmRSS")
        both()
        most = resident("VmHWM") - before
    channel.send({"forward": least(forward), "both": least(both), "memory": most / (arguments[1].numel() * 8)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[64, 256, 1024, 4096])
    parser.add_argument("--rows", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--states", type=int, nargs="+", default=[128])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--methods", nargs="+", help="all, unless named")
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="one JSON object a line, in seconds")
    args = parser.parse_args()
    names = args.methods or list(methods(args.device))
    context: Any = multiprocessing.get_context("spawn" if args.device == "cuda" else "fork")
    if not args.json:
        print(
            "T, rows, states | sequential, ms: forward, with backward | times sequential: forward, both | memory, inputs"
        )
    for states in args.states:
        for rows in args.rows:
            for length in args.lengths:
                found = {}
                for name in dict.fromkeys([SEQUENTIAL, *names]):
                    ours, theirs = context.Pipe()
                    size = (length, rows, states)
                    process = context.Process(target=measure, args=(name, size, args.device, args.repeat, theirs))
                    process.start()
                    theirs.close()
                    try:
                        found[name] = ours.recv()
                    except EOFError:
                        raise SystemExit(f"{name} died at {size}; is there memory enough?") from None
                    process.join()
                show(size, found, as_json=args.json)


def show(size: tuple[int, int, int], found: dict[str, dict[str, float]], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"size": size, "methods": found}), flush=True)
        return
    base = found[SEQUENTIAL]
    parts = [f"{name} {one['memory']:.1f}" for name, one in found.items()]
    ratios = [
        f"{name} {one['forward'] / base['forward']:.2f} {one['both'] / base['both']:.2f}"
        for name, one in found.items()
        if name != SEQUENTIAL
    ]
    label = ", ".join(map(str, size))
    print(
        f"{label} | {base['forward'] * 1e3:.2f} {base['both'] * 1e3:.2f} | {', '.join(ratios)} | {', '.join(parts)}",
        flush=True,
    )


if __name__ == "__main__":
    main()
