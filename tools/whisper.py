"""Does agent k's dream show what agent k - 1 does in it? The interaction predictor against its ablation, on toy:whisper.

whisper.py measure [--seeds 3] [--updates 1500]   the same recorded random episodes for both; rows to docs/results/whisper.jsonl
whisper.py table                                   what the rows say

An episode's second record shows every agent what its left neighbour emitted. Each model learns from the same recorded
episodes, with DMAWM's preset whisper; then 2,000 fresh first records are observed, one step is imagined with random
actions, and the decoded view of every agent is compared with the action of its left neighbour in that dream. 1/4 is chance.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dmawm.cli import APP
from wm_core import draws
from wm_run.configs import resolve
from wm_run.loading import build, environments, runtime
from wm_run.replay import Replay

ROOT = Path(__file__).resolve().parents[1]
ROWS = ROOT / "docs" / "results" / "whisper.jsonl"
VARIANTS = {"predictor": "", "IP": "ip"}
RECORDED, FRESH = 1_500, 2_000  # records of each environment; dreams
SYMBOLS = 4


def random_actions(rng: np.random.Generator, *lead: int) -> np.ndarray:
    """One-hots (..., 4)."""
    return np.eye(SYMBOLS, dtype=np.float32)[rng.integers(SYMBOLS, size=lead)]


def recorded(envs: Any, seed: int) -> Replay:
    """Random episodes, the same for every model of a seed."""
    replay = Replay(None, envs.num_envs, stores={}, limit_bytes=2**32, chunk=256, length=12, online=False, seed=seed)
    rng, step = np.random.default_rng(seed), envs.reset(seed)
    for _ in range(RECORDED):
        replay.add(step)
        step = envs.step(random_actions(rng, envs.num_envs, envs.agents))
    return replay


@torch.no_grad()
def heard(agent: Any, envs: Any, seed: int) -> float:
    """The share of dreamed views that show what the left neighbour did."""
    rng, right, count = np.random.default_rng(seed + 1), 0, 0
    agent.eval()
    with draws.drawing(draws.Generator(seed)):
        for episode in range(FRESH // envs.num_envs):
            step = envs.reset(100_000 * (seed + 1) + episode)
            rows = agent.rows({name: torch.as_tensor(value)[:, None] for name, value in step.items()})
            trace = agent.world.observe(agent.initial(envs.num_envs), rows)
            start, _ = agent.world.starts(trace, 1)
            emitted = random_actions(rng, envs.num_envs, envs.agents)
            _, latent = agent.world.imagine(start, torch.as_tensor(emitted).flatten(0, 1))
            shown = agent.world.decoder(latent)["vector"].mode()[:, SYMBOLS : 2 * SYMBOLS].argmax(-1)
            told = np.roll(emitted.argmax(-1), 1, axis=1)
            right += int((shown.view(envs.num_envs, -1).numpy() == told).sum())
            count += told.size
    return right / count


def measure(seed: int, variant: str, updates: int) -> dict[str, Any]:
    """One model learned and asked."""
    config = runtime(dataclasses.replace(resolve(APP, "whisper", "", VARIANTS[variant]), seed=seed, device="cpu"))
    envs = environments(APP, config, config.envs)
    replay = recorded(envs, seed)
    agent: Any = build(APP, config, envs)
    began = time.process_time()
    last: dict[str, float] = {}
    for _ in range(updates):
        metrics, _, _ = agent.update_model(replay.sample(config.batch, config.length))
        last = {name: float(metrics[name]) for name in ("loss/vector", "loss/dyn", "latent/kl")}
    return {
        "seed": seed,
        "variant": variant,
        "updates": updates,
        "heard": heard(agent, envs, seed),
        "prior_parameters": sum(p.numel() for p in agent.world.dynamics.dynamics.prior.parameters()),
        **last,
        "cpu_seconds": round(time.process_time() - began, 1),
        "commit": commit(),
        "processor": processor(),
    }


def commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def table() -> str:
    """Rows as Markdown."""
    rows = [json.loads(line) for line in ROWS.read_text().splitlines()]
    found = ["| variant | heard, a seed | mean | prior's weights |", "|---|---|---|---|"]
    for variant in VARIANTS:
        mine = [row for row in rows if row["variant"] == variant]
        shares = [row["heard"] for row in mine]
        each = ", ".join(f"{share:.3f}" for share in shares)
        found.append(f"| {variant} | {each} | {statistics.mean(shares):.3f} | {mine[0]['prior_parameters']:,} |")
    return "\n".join(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("measure", "table"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=1_500)
    asked = parser.parse_args()
    if asked.command == "measure":
        for seed in range(asked.seeds):
            for variant in VARIANTS:
                row = measure(seed, variant, asked.updates)
                print(json.dumps(row), flush=True)
                with ROWS.open("a") as file:
                    file.write(json.dumps(row) + "\n")
    print(table())


if __name__ == "__main__":
    main()
