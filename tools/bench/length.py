"""What a row's length costs R2I and the same agent with Dreamer's RSSM in place of its state-space model.

length --out docs/results/r2i-scaling.jsonl                                   vectors, rows of 64 to 4096 steps
length --length 64 256 1024 --task atari100k_pong --preset atari100k --out docs/results/r2i-scaling.jsonl         images
length --what update --dream-last 64                                          and dreams cut short
parts --app bench.rssm ... and parts --app r2i ... tell where an update of either goes

Both agents are apps/r2i's of size 12m with encoder, decoder, heads, policy, critic, losses and optimiser alike; one has
Parallel(S5Stack), the other the 12m RSSM (deter 2048), see rssm/cli.py. Both read (h, z). Three things are timed, each
forward and backward: `sequence`, the dynamics and its KL on given embeddings; `world`, encoder, dynamics, decoder and
heads, without imagination and optimiser; `update`, all of what `learn` does with a batch. A ratio is RSSM / R2I.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from typing import Any

import torch
from wm_core import draws
from wm_core.optim import averages
from wm_core.types import Batch

from bench.cases import about, batches_of, prepare, waiting
from bench.clock import COMPARED, ways
from bench.command import Command, add, say
from bench.rows import Picture, Row

WHAT = ("sequence", "world", "update")
APPS = {"rssm": "bench.rssm", "r2i": "r2i"}
# what the two have in common, before the options that are given
NETS = "--size 12m --stoch 32 --classes 16 --encoder-units 256 --encoder-layers 3 --policy-input output --batch 4"
COMMON = {"--preset": "dmc_proprio", "--task": "dmc_walker_walk", "--horizon": "15"}


def runs(one: Any, given: Batch) -> dict[str, Callable[[], object]]:
    """The three things, of one agent."""
    world, steps, rows = one.world, given.steps, len(given.steps["first"])
    with torch.no_grad():
        embed = {"obs": world.encoder(steps)["obs"].detach().requires_grad_()}

    def sequence() -> None:
        one.train()
        with draws.drawing(one.source), one.computing():
            trace = world.dynamics.observe(world.prefill(None, rows), embed, steps["action"], steps["reset"])
            kl, _ = world.kl(trace.post, trace.prior, steps["weight"])
            # the decoder's gradient too reaches h and z
            loss = torch.stack([*averages(kl).values(), trace.latent.deter.mean(), trace.latent.stoch.mean()]).sum()
        torch.autograd.grad(loss, [embed["obs"], *world.dynamics.parameters()], allow_unused=True)

    def whole() -> None:
        one.train()
        with draws.drawing(one.source), one.computing():
            losses, _ = world.losses(world.prefill(None, rows), steps)
        loss = torch.stack([*averages(losses).values()]).sum()
        torch.autograd.grad(loss, list(world.parameters()), allow_unused=True)

    return {"sequence": sequence, "world": whole, "update": lambda: one.update(given)}


def length(args: Namespace, words: list[str]) -> Iterator[Row]:
    """Two rows for each length and thing: the RSSM's, and R2I's with the ratio."""
    common = [word for name, value in COMMON.items() if name not in words for word in (name, value)]
    for steps in args.length:
        cases = {
            kind: prepare(app, [*common, *NETS.split(), "--length", str(steps), *words]) for kind, app in APPS.items()
        }
        (given,) = batches_of(cases["r2i"])
        made = {kind: runs(case.agent, given) for kind, case in cases.items()}
        config = cases["r2i"].config
        sizes = {"length": steps, "batch": config.batch, "horizon": config.horizon, "dream_last": config.dream_last}
        for what in args.what:
            each = {kind: run[what] for kind, run in made.items()}
            found = ways(args.rounds, each, warmup=args.warmup, wait=waiting(cases["r2i"].agent.device))
            for row in found:
                observed = "image" if any(len(space.shape) == 3 for space in cases["r2i"].spaces.values()) else "vector"
                yield about(cases[row["name"]], APPS[row["name"]]) | sizes | {"observed": observed, "what": what} | row
            say(f"{steps} {what}: {found[1]['ratio_cpu_s']:.2f}")


def options(parser: ArgumentParser) -> None:
    add(parser, length=[64, 256, 1024, 4096])
    parser.add_argument("--what", nargs="+", choices=WHAT, default=list(WHAT))


COLUMNS = {"observed": "{observed}", "T": "{length}", "what": "{what}"} | COMPARED
PICTURE = Picture(
    "{observed}s, 4 rows, steps of a row",
    "{length}",
    {"cpu_s": "CPU s, forward and backward", "ratio_cpu_s": "RSSM over it"},
    "{what}, {name}",
)
KEY = ("observed", "length", "what", "name")
COMMANDS = {"length": Command(length, COLUMNS, options, key=KEY, picture=PICTURE)}
