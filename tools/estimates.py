"""How far `info`'s estimates are from real updates, of every app at two sizes: rows of docs/results/estimates.jsonl.

estimates.py measure [APP:PRESET ...]    estimate, then make an update of the whole size, in one thread; minutes of a core
estimates.py table                       the table of docs/results/estimates.md, from the rows
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from wm_run.configs import resolve
from wm_run.cost import filled
from wm_run.estimate import estimate
from wm_run.loading import build, environments, runtime
from wm_run.machine import describe_environment
from wm_run.trials import tried
from wm_suite.rows import append_row, read_rows

ROWS = Path(__file__).parents[1] / "docs/results/estimates.jsonl"
SIZES = (
    *("dreamer:cpu", "dreamer:atari100k", "storm:cpu", "storm:atari100k", "r2i:cpu", "r2i:atari100k"),
    *("po_dreamer:cpu", "po_dreamer:atari100k", "dmawm:cpu", "dmawm:paper", "mappo:cpu", "mappo:paper"),
)


def measured(name: str) -> dict[str, Any]:
    """The row of one app and preset."""
    app, _, preset = name.partition(":")
    found = importlib.import_module(f"{app}.cli").APP
    config = runtime(dataclasses.replace(resolve(found, preset), device="cpu", threads=1, workers=0))
    with closing(environments(found, config, 1)) as envs:
        before = time.process_time()
        estimated = estimate(found, config, envs)
        took = time.process_time() - before
        settled = config.settled
        agent = build(found, settled, envs)
        step = {key: value[:1] for key, value in envs.reset(config.seed).items()}
        _, _, notes = agent.act(agent.initial(1), step)
        real = tried(agent, filled({**step, **notes}, agent, settled.longest), times=1)
    here = describe_environment()
    return {
        "run": name,
        "task": config.task,
        "batch": config.batch,
        "length": config.length,
        "parameters": agent.parameters_by_module()["total"],
        "told_seconds": estimated["seconds_per_update"],
        "real_seconds": real.cost.quiet,
        "told_flops": estimated["flops_per_update"],
        "real_flops": real.flops,
        "told_bytes": estimated["vram_bytes"],
        "real_bytes": 4 * sum(p.numel() * p.element_size() for p in agent.parameters()) + real.kept,
        "estimate_cpu_seconds": took,
        "commit": (here["commit"] or "")[:8],
        "torch": torch.__version__,
    }


def measure(names: Sequence[str]) -> None:
    """Rows of those that have none."""
    have = {row["run"] for row in read_rows(ROWS)}
    for name in names:
        if name not in have:
            row = measured(name)
            append_row(ROWS, row)
            print(name, f"{row['told_seconds']:.3g} s told, {row['real_seconds']:.3g} s real", flush=True)


def table() -> str:
    """A line for each row."""
    lines = [
        "| run | batch x length | parameters | CPU s of the estimate | s an update, told | real | told / real | FLOPs | bytes |"
    ]
    lines.append("|---|---|---|---|---|---|---|---|---|")
    for row in read_rows(ROWS):
        flops, held = row["told_flops"] / max(1, row["real_flops"]), row["told_bytes"] / row["real_bytes"]
        cells = [f"{row['run']}", f"{row['batch']} x {row['length']}", f"{row['parameters'] / 1e6:,.2f}M"]
        cells += [f"{row['estimate_cpu_seconds']:.1f}", f"{row['told_seconds']:.3g}", f"{row['real_seconds']:.3g}"]
        cells += [f"{row['told_seconds'] / row['real_seconds']:.2f}", f"{flops:.2f}", f"{held:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("measure", "table"))
    parser.add_argument("runs", nargs="*", metavar="APP:PRESET")
    args = parser.parse_args()
    if args.what == "measure":
        measure(args.runs or SIZES)
    else:
        print(table())


if __name__ == "__main__":
    main()
