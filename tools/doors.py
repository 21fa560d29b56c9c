"""Doors: does the memory hold what weights cannot? Train the variants, measure them on fresh rules, plot.

doors.py run [--seeds 3] [--variants full ...] [--jobs 2]   train and measure what is not there yet; resumable
doors.py table                                              the table and the plot in docs/results from the rows

Measured with frozen weights on 50 fresh rules from an empty bank: P(right door | k-th visit of a cue), acting by the
policy's mode (its entropy bonus keeps it nearly random on purpose). While measured, a rule stays. Beside it: chance, the oracle, a nearest-neighbour memory, and the untrained agent.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
ROWS = RESULTS / "doors.jsonl"
VARIANTS = {"full": "", "this-episode": "this-episode", "co-only": "co-only", "co-co": "co-co"}
VISITS, RULES, STEPS, FRESH = 10, 50, 1000, 77_000


def visits(agent: Any, envs: Any, seed: int, *, rules: int = RULES, steps: int = STEPS) -> dict[str, Any]:
    """P(right door | k-th visit) for k = 1 .. 10 of an agent with frozen weights, acting by its mode, one rule a row."""
    step, carry = envs.reset(seed), agent.initial(rules)
    count = np.zeros((rules, 32), np.int64)
    right, total = np.zeros(VISITS + 1), np.zeros(VISITS + 1)
    cue = np.zeros(rules, np.int64)
    for _ in range(steps):
        begun, ended = step["first"], step["last"]
        cue[begun] = step["vector"][begun, :32].argmax(-1)
        count[np.flatnonzero(begun), cue[begun]] += 1
        for row in np.flatnonzero(ended):
            if (k := count[row, cue[row]]) <= VISITS:
                right[k] += step["reward"][row]
                total[k] += 1
        carry, action, _ = agent.act(carry, step, mode=True)
        step = envs.step(action)
    return {str(k): right[k] / total[k] for k in range(1, VISITS + 1)} | {"n": total[1:].astype(int).tolist()}


class NearestNeighbour:
    """A memory that needs no learning: the last visit of the cue among the last 800 records tells the door."""

    def __init__(self, window: int = 800, seed: int = 0) -> None:
        self.window, self.random = window, np.random.default_rng(seed)

    def initial(self, n: int) -> list[list[np.ndarray]]:
        return [[] for _ in range(n)]

    def act(
        self, carry: list[list[np.ndarray]], step: Any, mode: bool = True
    ) -> tuple[Any, np.ndarray, dict[str, Any]]:
        action = np.zeros((len(carry), 4), np.float32)
        for row, (bank, seen) in enumerate(zip(carry, step["vector"], strict=True)):
            known = [old[32:] for old in bank if old[:32] @ seen[:32] > 0 and old[32:].sum() > 0]
            door = known[-1].argmax() if known else self.random.integers(4)
            action[row, door] = 1
            bank.append(seen)
            del bank[: -self.window]
        return carry, action, {}


def measure(logdir: pathlib.Path, seed: int) -> dict[str, Any]:
    """The trained agent of a run and its untrained twin on the same fresh rules."""
    import torch
    from env_adapters import make_vec
    from po_dreamer import load
    from wm_core import draws
    from wm_run.loading import build

    torch.set_num_threads(1)
    loaded = load(logdir)
    found: dict[str, Any] = {"step": loaded.step}
    envs = make_vec("toy:doors", RULES, workers=0, redraw=0)
    loaded.agent.source = draws.Generator(FRESH + seed)
    found["trained"] = visits(loaded.agent, envs, FRESH + seed)
    fresh = build(loaded.app, loaded.config, envs)
    found["untrained"] = visits(fresh, envs, FRESH + seed, steps=400)
    return found


def run_one(variant: str, seed: int, folder: pathlib.Path, options: list[str]) -> None:
    """Train (or finish training) one run, measure it, add its row."""
    logdir = folder / f"{variant}-{seed}"
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "po_dreamer", "train", "--preset", "doors", "--seed", str(seed)]
    command += ["--logdir", str(logdir), *options]
    command += ["--ablation", VARIANTS[variant]] if VARIANTS[variant] else []
    with (folder / f"{variant}-{seed}.log").open("a") as log:
        done = subprocess.run(command, check=False, env=env, cwd=ROOT, stdout=log, stderr=log)
        if done.returncode:
            print(f"{variant} seed {seed} failed; see {log.name}", flush=True)
            return
        code = f"import sys; sys.path.insert(0, 'tools'); import doors; doors.add({variant!r}, {seed}, {str(logdir)!r})"
        subprocess.run([sys.executable, "-c", code], env=env, cwd=ROOT, stdout=log, stderr=log, check=False)
    print(f"{variant} seed {seed} done", flush=True)


def add(variant: str, seed: int, logdir: str) -> None:
    """Measure a run and append its row to docs/results/doors.jsonl."""
    path = pathlib.Path(logdir)
    found = measure(path, seed)
    metrics = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, check=True, text=True
    )
    row = {"variant": variant, "seed": seed, "commit": commit.stdout.strip(), **found}
    row["updates"] = round(metrics[-1]["train/updates"])
    ROWS.parent.mkdir(parents=True, exist_ok=True)
    with ROWS.open("a") as file:
        file.write(json.dumps(row) + "\n")


def rows() -> list[dict[str, Any]]:
    """The rows so far; the last one of a (variant, seed) counts."""
    if not ROWS.exists():
        return []
    found = [json.loads(line) for line in ROWS.read_text().splitlines()]
    return list({(row["variant"], row["seed"]): row for row in found}.values())


def run(args: argparse.Namespace) -> None:
    args.folder.mkdir(parents=True, exist_ok=True)
    have = {(row["variant"], row["seed"]) for row in rows()}
    plan = [(v, s) for s in range(args.seeds) for v in args.variants if (v, s) not in have]
    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(lambda one: run_one(one[0], one[1], args.folder, args.options), plan))
    table(args)


def table(_: argparse.Namespace) -> None:
    """Markdown and plot: mean over seeds, and the range between the worst and the best of them."""
    import matplotlib

    matplotlib.use("Agg")
    from env_adapters import make_vec
    from matplotlib import pyplot

    shown = (1, 2, 3, 5, 10)
    envs = make_vec("toy:doors", RULES, workers=0, redraw=0)
    nearest = visits(NearestNeighbour(), envs, FRESH)
    oracle = {str(k): 0.25 if k == 1 else 1.0 for k in range(1, VISITS + 1)}
    lines = ["| agent | seeds | " + " | ".join(f"k = {k}" for k in shown) + " |", "|---|---|" + "---|" * len(shown)]
    figure, axes = pyplot.subplots(figsize=(6, 4))
    every = range(1, VISITS + 1)
    for variant in VARIANTS:
        runs = [row for row in rows() if row["variant"] == variant]
        if not runs:
            continue
        values = np.array([[row["trained"][str(k)] for k in every] for row in runs])
        cells = [f"{v.mean():.2f} ({v.min():.2f}-{v.max():.2f})" for v in values[:, [k - 1 for k in shown]].T]
        lines.append(f"| {variant} | {len(runs)} | " + " | ".join(cells) + " |")
        axes.plot(every, values.mean(0), marker="o", label=f"{variant} ({len(runs)} seeds)")
        axes.fill_between(every, values.min(0), values.max(0), alpha=0.2)
    untrained = [row["untrained"] for row in rows() if row["variant"] == "full"]
    if untrained:
        cells = [f"{np.nanmean([u[str(k)] for u in untrained]):.2f}" for k in shown]
        lines.append(f"| full, untrained | {len(untrained)} | " + " | ".join(cells) + " |")
    for name, found in (("nearest-neighbour memory", nearest), ("oracle", oracle)):
        lines.append(f"| {name} | - | " + " | ".join(f"{found[str(k)]:.2f}" for k in shown) + " |")
        axes.plot(every, [found[str(k)] for k in every], linestyle=":", label=name)
    lines.append("| chance | - | " + " | ".join("0.25" for _ in shown) + " |")
    axes.axhline(0.25, color="grey", linewidth=1)
    axes.set(xlabel="visit k of a cue under one rule", ylabel="P(right door)", ylim=(0, 1.05))
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(RESULTS / "doors.png", dpi=110)
    (RESULTS / "doors-table.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("run")
    one.add_argument("--seeds", type=int, default=3)
    one.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    one.add_argument("--jobs", type=int, default=2)
    one.add_argument("--folder", type=pathlib.Path, default=ROOT / "runs" / "doors")
    one.add_argument("options", nargs="*", help="after --: further options of train")
    one.set_defaults(f=run)
    commands.add_parser("table").set_defaults(f=table)
    args = parser.parse_args()
    args.f(args)


if __name__ == "__main__":
    main()
