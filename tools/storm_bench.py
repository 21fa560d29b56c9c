"""What STORM's parts cost: imagination from a cache against recomputation, an update with and without Var, the encoder.

    OMP_NUM_THREADS=1 python tools/storm_bench.py                       # 1024 rollouts of 16 after 8, STORM's sizes
    OMP_NUM_THREADS=1 python tools/storm_bench.py --rollouts 128 --rounds 5 --json
    OMP_NUM_THREADS=1 python tools/storm_bench.py --what var --preset cpu --rounds 10
    OMP_NUM_THREADS=1 python tools/storm_bench.py --what encoder       # frames of contexts, in pieces and at once

Both ways run in turn, round by round; the ratio of each round is taken, so that a machine that others use moves both.
CPU seconds of this process are given beside wall seconds.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from wm_tssm import TransformerStack


def cached(stack: TransformerStack, context: Tensor, dream: Tensor) -> Tensor:
    """The last output of a dream that computes one token a step."""
    never = torch.zeros(context.shape[:2], dtype=torch.bool, device=context.device)
    _, _, _, each = stack(stack.initial(len(context)), context, never)
    assert each is not None
    cache = stack.starts(each, 1)
    for token in dream.split(1, 1):
        out, _, cache, _ = stack(cache, token, never[:, :1])
    return out


def recomputed(stack: TransformerStack, context: Tensor, dream: Tensor) -> Tensor:
    """The same, every step computing all tokens so far."""
    for t in range(dream.shape[1]):
        whole = torch.cat([context, dream[:, : t + 1]], 1)
        never = torch.zeros(whole.shape[:2], dtype=torch.bool, device=whole.device)
        out = stack(stack.initial(len(whole)), whole, never)[0][:, -1:]
    return out


def timed(run: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - cpu


@torch.no_grad()
def measure(rollouts: int, horizon: int, context: int, width: int, rounds: int, device: str) -> dict[str, float]:
    """Seconds of both ways (medians) and the median of the rounds' ratios, after one round that does not count."""
    torch.manual_seed(0)
    with torch.device(device):
        stack = TransformerStack(width, layers=2, heads=8, hidden=2 * width, room=horizon).eval()
        tokens = torch.randn(rollouts, context + horizon, width)
    args = (stack, tokens[:, :context], tokens[:, context:])
    gap = (cached(*args) - recomputed(*args)).abs().max().item()
    found = compared(rounds, cached=lambda: cached(*args), recomputed=lambda: recomputed(*args))
    return found | {"largest_difference": gap}


def compared(rounds: int, **ways: Callable[[], object]) -> dict[str, float]:
    """Median seconds of two ways that take turns, and the median of the rounds' ratios, second by first."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for turn in range(rounds):
        order = list(ways) if turn % 2 == 0 else list(ways)[::-1]
        for name in order:
            times[name].append(timed(ways[name]))
    found: dict[str, float] = {}
    one, other = times.values()
    for i, unit in enumerate(("wall", "cpu")):
        found |= {f"{name}_{unit}_s": statistics.median(t[i] for t in each) for name, each in times.items()}
        found[f"ratio_{unit}"] = statistics.median(b[i] / a[i] for a, b in zip(one, other, strict=True))
    return found


def measure_var(preset: str, rounds: int, device: str) -> dict[str, float]:
    """An update of apps/storm without Var and with it, on the same made-up rows."""
    from env_adapters import ActionSpec
    from gymnasium import spaces
    from storm.agent import Storm, build
    from storm.cli import APP
    from storm.config import Config
    from wm_core.types import Batch, Index
    from wm_run.cli import resolve

    config = resolve(APP, preset)
    assert isinstance(config, Config)
    space = spaces.Dict({"image": spaces.Box(0, 255, (64, 64, 3), np.uint8)})

    def agent(var: bool) -> Storm:
        precision = "bf16" if device == "cuda" else "fp32"
        numbers = {"device": device, "precision": precision, "var": var, "var_warmup": -1}
        return build(dataclasses.replace(config, **numbers), space, ActionSpec((6,), 0))  # type: ignore[arg-type]

    def batch(rows: int, length: int) -> Batch:
        never = torch.zeros(rows, length, dtype=torch.bool)
        steps = {
            "image": torch.randint(256, (rows, length, 64, 64, 3), dtype=torch.uint8),
            "action": torch.nn.functional.one_hot(torch.randint(6, (rows, length)), 6).float(),
            "reward": torch.randn(rows, length),
            "weight": torch.ones(rows, length),
        }
        steps |= dict.fromkeys(("first", "last", "terminal", "reset"), never)
        nowhere = torch.zeros(rows, dtype=torch.int64)
        return Batch({name: value.to(device) for name, value in steps.items()}, None, Index(nowhere, nowhere))

    agents = {"without": agent(False), "with": agent(True)}
    long, short = batch(config.batch, config.length + 1), batch(config.dreams, config.dream_context + 1)
    peak = {}
    for name, one in agents.items():
        for _ in range(2):
            one.update(long, short)
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            one.update(long, short)
            peak[f"{name}_peak_gb"] = torch.cuda.max_memory_allocated() / 1e9
    ways = {name: lambda one=one: one.update(long, short) for name, one in agents.items()}
    return compared(rounds, **ways) | peak


@torch.no_grad()
def measure_encoder(frames: int, rounds: int) -> dict[str, float]:
    """STORM's encoder on frames of 64 x 64 where nothing is learned: as it works, and all of them at once."""
    from storm.layers import Encoder

    torch.manual_seed(0)
    encoder = Encoder((64, 64, 3), depth=32).eval()
    images = torch.randint(256, (frames, 64, 64, 3), dtype=torch.uint8)
    at_once = images.permute(0, 3, 1, 2)
    return compared(rounds, pieces=lambda: encoder(images), at_once=lambda: encoder.convs(at_once / 255))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--what", choices=("imagination", "var", "encoder"), default="imagination")
    parser.add_argument("--preset", default="cpu", help="of apps/storm, for --what var")
    parser.add_argument("--rollouts", type=int, default=1024)
    parser.add_argument("--frames", type=int, default=1024, help="of --what encoder")
    parser.add_argument("--horizon", type=int, default=16)
    parser.add_argument("--context", type=int, default=8)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.what == "var":
        found = measure_var(args.preset, args.rounds, args.device)
    elif args.what == "encoder":
        found = measure_encoder(args.frames, args.rounds)
    else:
        found = measure(args.rollouts, args.horizon, args.context, args.width, args.rounds, args.device)
    if args.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:<20} {value:.4g}")


if __name__ == "__main__":
    main()
