"""What a row's length costs R2I and the same agent with Dreamer's RSSM in place of its state-space model.

    OMP_NUM_THREADS=1 python tools/r2i_bench.py --out docs/results/r2i-scaling.jsonl             # vectors, 64 to 4096
    OMP_NUM_THREADS=1 python tools/r2i_bench.py --image --lengths 64 256 1024 --out docs/results/r2i-scaling.jsonl
    OMP_NUM_THREADS=1 python tools/r2i_bench.py --what update --dream-last 64                    # and dreams cut short
    OMP_NUM_THREADS=1 python tools/r2i_bench.py --parts --lengths 1024                           # where an update goes

Both agents are apps/r2i's of size 12m with encoder, decoder, heads, policy, critic, losses and optimiser alike; one has
Parallel(S5Stack), the other the 12m RSSM (deter 2048). Both read (h, z). Three things are timed, each forward and backward:
`sequence`, the dynamics and its KL on given embeddings; `world`, encoder, dynamics, decoder and heads, without imagination
and optimiser; `update`, all of what `learn` does with a batch. The two take turns, round by round, in one process with one
thread; seconds are CPU seconds (of the wall on a GPU), medians; a ratio is the median of the rounds' RSSM / R2I.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import r2i.agent
import torch
from env_adapters import ActionSpec
from gymnasium import spaces
from r2i.cli import APP
from torch import Tensor
from wm_core import draws
from wm_core.optim import averages
from wm_core.rssm import RSSM
from wm_core.types import Batch, Index
from wm_run.allocator import keep_pages
from wm_run.cli import resolve

ROWS, ACTIONS = 4, 6
NETS = {"stoch": 32, "classes": 16, "encoder_units": 256, "encoder_layers": 3, "policy_input": "output"}
DETER, HIDDEN, BLOCKS = 2048, 256, 8  # of the 12m RSSM
KINDS = ("r2i", "rssm")
WHAT = ("sequence", "world", "update")


def agent(kind: str, length: int, args: argparse.Namespace) -> Any:
    """apps/r2i's, or the same with an RSSM."""
    config: Any = resolve(APP, "dmc_proprio", "12m")
    precision = "bf16" if args.device == "cuda" else "fp32"
    numbers = {"device": args.device, "precision": precision, "length": length, "batch": ROWS}
    config = dataclasses.replace(config, **NETS, **numbers, horizon=args.horizon, dream_last=args.dream_last)
    shown = spaces.Box(0, 255, (64, 64, 3), np.uint8) if args.image else spaces.Box(-1, 1, (24,), np.float32)
    space = spaces.Dict({"image" if args.image else "vector": shown})
    spec = ActionSpec((ACTIONS,), 0) if args.image else ActionSpec((), ACTIONS)
    if kind == "r2i":
        return r2i.agent.build(config, space, spec)

    def recurrent(config: Any, embed: int, action: int) -> RSSM:
        sizes = {"deter": DETER, "hidden": HIDDEN, "blocks": BLOCKS, "embed": embed, "action": action}
        return RSSM(stoch=(config.stoch, config.classes), **sizes)  # type: ignore[arg-type]

    with (
        mock.patch.object(r2i.agent, "sequence_model", recurrent),
        mock.patch.object(r2i.agent, "by_name", return_value={}),  # no S5 tensors, hence no rules of their own
    ):
        made = r2i.agent.build(config, space, spec)
    made.radius = dict  # type: ignore[method-assign] # there is no spectrum
    return made


def batch(length: int, image: bool, device: str) -> Batch:
    """Random rows; an episode begins at about one step in 100."""
    rng = np.random.default_rng(0)
    first = rng.random((ROWS, length)) < 0.01
    reset = first.copy()
    reset[:, 0] = True
    shape = (ROWS, length)
    if image:
        steps: dict[str, Any] = {"image": rng.integers(0, 256, (*shape, 64, 64, 3), np.uint8)}
        steps["action"] = np.eye(ACTIONS, dtype=np.float32)[rng.integers(ACTIONS, size=shape)]
    else:
        steps = {"vector": rng.standard_normal((*shape, 24), np.float32)}
        steps["action"] = rng.uniform(-1, 1, (*shape, ACTIONS)).astype(np.float32)
    steps |= {"reward": rng.standard_normal(shape, np.float32), "weight": np.ones(shape, np.float32)}
    steps |= {"first": first, "reset": reset, "last": np.roll(first, -1, 1), "terminal": np.zeros(shape, bool)}
    nowhere = torch.zeros(ROWS, dtype=torch.int64)
    return Batch({name: torch.as_tensor(x).to(device) for name, x in steps.items()}, None, Index(nowhere, nowhere))


def ways(one: Any, given: Batch) -> dict[str, Callable[[], object]]:
    """The three things, of one agent."""
    world, steps = one.world, given.steps
    with torch.no_grad():
        embed = {"obs": world.encoder(steps)["obs"].detach()}
    embed["obs"].requires_grad_()

    def sequence() -> None:
        one.train()
        with draws.drawing(one.source), one.computing():
            trace = world.dynamics.observe(world.prefill(None, ROWS), embed, steps["action"], steps["reset"])
            kl, _ = world.kl(trace.post, trace.prior, steps["weight"])
            # the decoder's gradient too reaches h and z
            loss = torch.stack([*averages(kl).values(), trace.latent.deter.mean(), trace.latent.stoch.mean()]).sum()
        torch.autograd.grad(loss, [embed["obs"], *world.dynamics.parameters()], allow_unused=True)

    def whole() -> None:
        one.train()
        with draws.drawing(one.source), one.computing():
            losses, _ = world.losses(world.prefill(None, ROWS), steps)
        loss = torch.stack([*averages(losses).values()]).sum()
        torch.autograd.grad(loss, list(world.parameters()), allow_unused=True)

    return {"sequence": sequence, "world": whole, "update": lambda: one.update(given)}


def timed(run: Callable[[], object], device: str) -> float:
    clock = time.process_time if device == "cpu" else time.perf_counter
    if device == "cuda":
        torch.cuda.synchronize()
    begun = clock()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - begun


def measure(length: int, args: argparse.Namespace) -> dict[str, Any]:
    """A row: both agents at one length."""
    torch.manual_seed(0)
    given = batch(length, args.image, args.device)
    agents = {kind: agent(kind, length, args) for kind in KINDS}
    found: dict[str, Any] = {
        "observed": "image" if args.image else "vector",
        "rows": ROWS,
        "length": length,
        "horizon": args.horizon,
        "dream_last": args.dream_last,
        "rounds": args.rounds,
        "parameters": {kind: one.parameters_by_module() for kind, one in agents.items()},
    }
    runs = {kind: ways(one, given) for kind, one in agents.items()}
    for what in args.what:
        taken: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for turn in range(args.warmup + args.rounds):
            for kind in KINDS if turn % 2 == 0 else KINDS[::-1]:
                seconds = timed(runs[kind][what], args.device)
                if turn >= args.warmup:
                    taken[kind].append(seconds)
        ratios = [theirs / ours for ours, theirs in zip(*taken.values(), strict=True)]
        found[what] = {kind: statistics.median(each) for kind, each in taken.items()}
        found[what] |= {"ratio": statistics.median(ratios), "spread": [min(ratios), max(ratios)]}
        print(f"{length} {what}: {found[what]}", file=sys.stderr, flush=True)
    return found


def parts(length: int, args: argparse.Namespace) -> str:
    """Of each agent: CPU seconds of the update's pieces, by timing them one after another."""
    lines = ["| piece | r2i | rssm |", "|---|---|---|"]
    given = batch(length, args.image, args.device)
    columns: list[dict[str, float]] = []
    for kind in KINDS:
        one = agent(kind, length, args)
        columns.append(pieces(one, given, args))
    total = [sum(column.values()) for column in columns]
    for name in columns[0]:
        cells = [
            f"{column[name]:.2f} s, {100 * column[name] / all_:.0f} %"
            for column, all_ in zip(columns, total, strict=True)
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*lines, f"| all | {' | '.join(f'{all_:.2f} s' for all_ in total)} |"])


def pieces(one: Any, given: Batch, args: argparse.Namespace) -> dict[str, float]:
    """Seconds of encoder, dynamics, decoder, heads and KL (forward and backward), dream, behaviour, optimiser; medians."""
    rounds = [once(one, given, args.device) for _ in range(1 + args.rounds)][1:]
    return {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}


def once(one: Any, given: Batch, device: str) -> dict[str, float]:
    """The pieces of one update, each cut from the others where its gradient would go on."""
    world, behaviour, steps = one.world, one.behaviour, given.steps
    found: dict[str, float] = {}

    def take(name: str, run: Callable[[], Any]) -> Any:
        out: list[Any] = []
        found[name] = timed(lambda: out.append(run()), device)
        return out[0]

    def back(outs: Sequence[Tensor], ins: Sequence[Tensor]) -> None:
        loss = torch.stack([out.float().mean() for out in outs]).sum()
        torch.autograd.grad(loss, list(ins), allow_unused=True)

    one.train()
    with draws.drawing(one.source), one.computing():
        embed = take("encoder, forward", lambda: world.encoder(steps))
        seen = {"obs": embed["obs"].detach().requires_grad_()}
        start = world.prefill(None, ROWS)
        observe = world.dynamics.observe
        trace = take("dynamics, forward", lambda: observe(start, seen, steps["action"], steps["reset"]))
        kl = take("KL, forward", lambda: world.kl(trace.post, trace.prior, steps["weight"])[0])
        ends = [trace.latent.deter.detach().requires_grad_(), trace.latent.stoch.detach().requires_grad_()]
        latent = dataclasses.replace(trace.latent, deter=ends[0], stoch=ends[1])
        targets = steps | {"cont": (~steps["terminal"]).float()}

        def read() -> list[Tensor]:
            found = dict(world.decoder(latent)) | {name: head(latent) for name, head in world.heads.items()}
            return [distribution.loss(targets[name]) for name, distribution in found.items()]

        losses = take("decoder and heads, forward", read)
        dream = take("dream", lambda: world.dream(world.starts(trace, one.dream_last), behaviour.policy, one.horizon))
        acting = take("policy and critic, forward", lambda: behaviour.losses(dream, behaviour.evaluate(dream)))
    own = [p for p in behaviour.parameters() if p.requires_grad]
    reads = [*world.decoder.parameters(), *world.heads.parameters()]
    through = [*kl.values(), trace.latent.deter, trace.latent.stoch]
    take("policy and critic, backward", lambda: back([*acting.values()], own))
    take("decoder and heads, backward", lambda: back(losses, [*ends, *reads]))
    take("dynamics and KL, backward", lambda: back(through, [seen["obs"], *world.dynamics.parameters()]))
    take("encoder, backward", lambda: back([embed["obs"]], [*world.encoder.parameters()]))
    nothing = sum((p * 0).sum() for p in one.parameters() if p.requires_grad)
    take("optimiser", lambda: one.optimiser.step(nothing))
    return found


def write(file: Path, row: Mapping[str, Any]) -> None:
    """Keep a row in a file of JSON lines, in place of the one of the same size; draw them all."""
    kept = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []

    def which(one: Mapping[str, Any]) -> tuple[str, int]:
        return one["observed"], one["length"]

    rows = {which(one): one for one in kept}
    rows[which(row)] = rows.get(which(row), {}) | dict(row)
    ordered = [rows[key] for key in sorted(rows, key=lambda key: (key[0] != "vector", key[1]))]
    file.write_text("".join(json.dumps(one) + "\n" for one in ordered))
    plot(ordered, file.with_suffix(".png"))


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown."""
    lines = ["| observed | T | what | R2I, s | RSSM, s | RSSM / R2I | least to most |", "|" + "---|" * 7]
    for row in rows:
        for what in (name for name in WHAT if name in row):
            one = row[what]
            low, high = one["spread"]
            lines.append(
                f"| {row['observed']} | {row['length']} | {what} | {one['r2i']:.2f} | {one['rssm']:.2f} | "
                f"{one['ratio']:.2f} | {low:.2f}-{high:.2f} |"
            )
    return "\n".join(lines)


def plot(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Seconds and ratios over the length."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    seen = list(dict.fromkeys(row["observed"] for row in rows))
    figure, panels = pyplot.subplots(1, len(seen) + 1, figsize=(4.2 * (len(seen) + 1), 3.6))
    for panel, observed in zip(panels, seen, strict=False):
        for i, what in enumerate(WHAT):
            mine = [row for row in rows if row["observed"] == observed and what in row]
            for kind, line in zip(KINDS, ("-", "--"), strict=True):
                x = [row["length"] for row in mine]
                panel.plot(x, [row[what][kind] for row in mine], f"o{line}C{i}", label=f"{what}, {kind}", markersize=3)
        panel.set(title=f"{observed}s, 4 rows", ylabel="CPU s, forward and backward", yscale="log")
        panel.legend(fontsize=7)
    last = panels[-1]
    for observed, line in zip(seen, ("-", "--"), strict=False):
        for i, what in enumerate(WHAT):
            mine = [row for row in rows if row["observed"] == observed and what in row]
            last.plot(
                [row["length"] for row in mine],
                [row[what]["ratio"] for row in mine],
                f"o{line}C{i}",
                label=f"{what}, {observed}s",
                markersize=3,
            )
    last.axhline(1, color="grey", linewidth=1)
    last.set(title="RSSM / R2I", yscale="log")
    last.legend(fontsize=7)
    for panel in panels:
        panel.set_xscale("log", base=2)
        panel.set_xlabel("steps of a row")
        panel.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[64, 256, 1024, 4096])
    parser.add_argument("--what", nargs="+", choices=WHAT, default=list(WHAT))
    parser.add_argument("--image", action="store_true", help="64 x 64 frames instead of 24 numbers")
    parser.add_argument("--horizon", type=int, default=15)
    parser.add_argument("--dream-last", type=int, default=0, help="dreams from these last steps of a row; 0: from all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--parts", action="store_true", help="where an update goes, instead")
    parser.add_argument("--out", type=Path, help="keep the rows there, and draw them")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.device == "cpu":
        keep_pages()
    found = []
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    for length in args.lengths:
        if args.parts:
            print(f"T = {length}\n{parts(length, args)}", flush=True)
            continue
        found.append({"commit": commit.stdout.strip(), **measure(length, args)})
        if args.out:
            write(args.out, found[-1])
    if found:
        print(table(found))


if __name__ == "__main__":
    main()
