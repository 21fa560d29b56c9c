"""What a scan of wm-ssm costs by each method, over lengths, rows and states: time as ratios, and memory.

scan                                                 the table of wm-ssm's README
scan --lengths 256 1024 --rows 4 --states 128 --device cuda

Each line is one problem by one method, in a process of its own: forward alone, and forward with backward (gradients of
decay, input and start; one reset in 200 steps). Times are the least of the rounds, of the process on a CPU (one thread),
of the wall on a GPU; ratios are over the method `sequential` of the same problem. Memory is the most that forward and
backward held beyond the arguments, as a multiple of the input.
`plain` is the loop through autograd; `doubling` the textbook parallel scan in log T passes over everything.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from itertools import product

import torch
from torch import Tensor
from wm_ssm import linear_scan, plain_scan

from bench.cases import waiting
from bench.clock import cost, interleaved, memory_mb
from bench.command import Command, add
from bench.processes import alone
from bench.rows import Row, here

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


def measure(name: str, size: tuple[int, int, int], device: str, rounds: int, warmup: int) -> dict[str, float]:
    """One method on one problem: forward_s, both_s, and memory as a multiple of the input."""
    torch.set_num_threads(1)
    cuda, wait = device == "cuda", waiting(torch.device(device))
    scan, arguments = methods(device)[name], problem(*size, device)
    weights = torch.ones_like(arguments[1])

    def forward() -> None:
        with torch.no_grad():
            scan(*arguments)

    def both() -> None:
        torch.autograd.grad(scan(*arguments), arguments[:3], weights)

    if cuda:
        both()  # compiles
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        both()
        most = (torch.cuda.max_memory_allocated() - before) / 1e6
    else:
        small = problem(8, 2, 4, device)
        torch.autograd.grad(scan(*small), small[:3], torch.ones_like(small[1]))  # what a first call loads
        before_mb = memory_mb("VmRSS")
        both()
        most = memory_mb() - before_mb
    found = interleaved(
        {"forward_s": lambda: cost(forward, wait), "both_s": lambda: cost(both, wait)}, rounds, warmup=warmup
    )
    least = {what: min(one["wall_s" if cuda else "cpu_s"] for one in each) for what, each in found.items()}
    return least | {"memory": most * 1e6 / (arguments[1].numel() * 8)}


def scans(args: Namespace, words: list[str]) -> Iterator[Row]:
    """A row for each problem and method. Raises OSError where a process dies."""
    for states, rows, length in product(args.states, args.rows, args.lengths):
        first: dict[str, float] = {}
        for name in dict.fromkeys([SEQUENTIAL, *(args.methods or methods(args.device))]):
            found = alone(measure, name, (length, rows, states), args.device, args.rounds, args.warmup)
            first = first or found
            about = here() | {"method": name, "length": length, "rows": rows, "states": states, "device": args.device}
            yield about | found | {f"{what}_ratio": found[what] / first[what] for what in ("forward_s", "both_s")}


def options(parser: ArgumentParser) -> None:
    add(parser, lengths=[64, 256, 1024, 4096], rows=[4, 16], states=[128])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--methods", nargs="+", help="all, unless named")


COLUMNS = {
    "T": "{length}",
    "rows": "{rows}",
    "states": "{states}",
    "method": "{method}",
    "forward ms": "{forward_s:m.2f}",
    "with backward": "{both_s:m.2f}",
    "forward over sequential": "{forward_s_ratio:.2f}",
    "with backward over it": "{both_s_ratio:.2f}",
    "memory, inputs": "{memory:.1f}",
}
KEY = ("device", "states", "rows", "length", "method")
COMMANDS = {"scan": Command(scans, COLUMNS, options, app=False, rounds=7, warmup=0, key=KEY)}
