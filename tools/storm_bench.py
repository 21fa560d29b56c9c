"""Imagination with the transformer: 1024 rollouts of 16 steps after a context of 8, from the cache and by recomputation.

    OMP_NUM_THREADS=1 python tools/storm_bench.py            # STORM's sizes
    OMP_NUM_THREADS=1 python tools/storm_bench.py --rollouts 128 --rounds 5 --json

Both ways run the same tokens in turn, round by round; the ratio of each round is taken, so that a machine that others
use moves both. CPU seconds of this process are given beside wall seconds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from wm_tssm import TransformerStack


def cached(stack: TransformerStack, context: Tensor, dream: Tensor) -> Tensor:
    """The last output of a dream that computes one token a step."""
    never = torch.zeros(context.shape[:2], dtype=torch.bool, device=context.device)
    _, _, _, each = stack(stack.initial(len(context)), context, never)
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


def timed(run: Callable[..., Tensor], *args: object) -> tuple[float, float]:
    """Wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    run(*args)
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
    one, other = [], []
    for _ in range(rounds):
        one.append(timed(cached, *args))
        other.append(timed(recomputed, *args))
    names = ("wall", "cpu")
    found = {f"cached_{name}_s": statistics.median(t[i] for t in one) for i, name in enumerate(names)}
    found |= {f"recomputed_{name}_s": statistics.median(t[i] for t in other) for i, name in enumerate(names)}
    for i, name in enumerate(names):
        found[f"ratio_{name}"] = statistics.median(b[i] / a[i] for a, b in zip(one, other, strict=True))
    return found | {"largest_difference": gap}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rollouts", type=int, default=1024)
    parser.add_argument("--horizon", type=int, default=16)
    parser.add_argument("--context", type=int, default=8)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found = measure(args.rollouts, args.horizon, args.context, args.width, args.rounds, args.device)
    if args.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:<20} {value:.4g}")


if __name__ == "__main__":
    main()
