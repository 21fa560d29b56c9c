"""What STORM's parts cost: imagination from a cache against recomputation, and its encoder in pieces and at once.

dream                       1024 rollouts of 16 after 8, STORM's sizes
dream --rollouts 128 --rounds 5 --json
encoder --frames 1024       frames of contexts

Value alignment is a field: update --app storm --var True --against "python tools/bench serve --app storm --var False".
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator

import torch
from torch import Tensor
from wm_tssm import TransformerStack

from bench.cases import waiting
from bench.clock import COMPARED, ways
from bench.command import Command, add
from bench.rows import Row, here


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


@torch.no_grad()
def dream(args: Namespace, words: list[str]) -> Iterator[Row]:
    """Both ways of a dream; largest_difference is between what they give."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    with torch.device(args.device):
        stack = TransformerStack(args.width, layers=2, heads=8, hidden=2 * args.width, room=args.horizon).eval()
        tokens = torch.randn(args.rollouts, args.context + args.horizon, args.width)
    given = stack, tokens[:, : args.context], tokens[:, args.context :]
    sizes = {name: getattr(args, name) for name in ("rollouts", "horizon", "context", "width", "device")}
    sizes["largest_difference"] = (cached(*given) - recomputed(*given)).abs().max().item()
    both = {"recomputed": lambda: recomputed(*given), "cached": lambda: cached(*given)}
    for row in ways(args.rounds, both, warmup=args.warmup, wait=waiting(torch.device(args.device))):
        yield here() | sizes | row


@torch.no_grad()
def encoder(args: Namespace, words: list[str]) -> Iterator[Row]:
    """STORM's encoder on frames of 64 x 64 where nothing is learned: as it works, and all of them at once."""
    from storm.layers import Encoder

    torch.manual_seed(0)
    torch.set_num_threads(1)
    net = Encoder((64, 64, 3), depth=32).eval()
    images = torch.randint(256, (args.frames, 64, 64, 3), dtype=torch.uint8)
    at_once = images.permute(0, 3, 1, 2)
    both = {"pieces": lambda: net(images), "at once": lambda: net.convs(at_once / 255)}
    for row in ways(args.rounds, both, warmup=args.warmup):
        yield here() | {"frames": args.frames} | row


def dreams(parser: ArgumentParser) -> None:
    add(parser, rollouts=1024, horizon=16, context=8, width=512, device="cpu")


def frames(parser: ArgumentParser) -> None:
    add(parser, frames=1024)


COMMANDS = {
    "dream": Command(
        dream, COMPARED | {"largest difference": "{largest_difference:.1e}"}, dreams, app=False, warmup=0, key=("name",)
    ),
    "encoder": Command(encoder, COMPARED, frames, app=False, warmup=0, key=("name", "frames")),
}
