"""Does the interaction predictor do what DMAWM claims of it? It against its ablation, on the same recorded episodes.

interaction.py whisper [--seeds 3] [--updates 1500]        does agent k's dream show what agent k - 1 does in it?
interaction.py battle TASK [--seeds 3] [--updates 600]     KL of the prior, open-loop error, and the KL of priors alone
interaction.py table                                        what the rows of docs/results/interaction.jsonl say

whisper: an episode's second record shows every agent what its left neighbour emitted. Models learn from random episodes
with preset whisper; then 2,000 fresh first records are observed, one step is imagined with random actions, and every
agent's decoded view is compared with what its left neighbour did in that dream. 1/4 is chance.

battle: models learn from episodes in which half of the actions attack, where something can be attacked, with preset smax.
Held-out episodes give the prior's KL and the reconstruction (an agent and step), their sum (a posterior that says less has
a smaller KL too), and the squared error of open loops. Then encoder, posterior and recurrence rest, and a new prior of
either kind learns from what they make of the recorded episodes: nothing but the prior differs in that pair.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dmawm.cli import APP
from dmawm.parts import make_dynamics
from recording import chosen, played
from torch import Tensor
from wm_core import draws
from wm_core.kl import categorical_kl
from wm_core.optim import Adam, NormClip
from wm_core.types import Batch
from wm_run.configs import resolve
from wm_run.loading import build, environments, runtime
from wm_run.machine import describe_environment
from wm_run.openloop import openloop
from wm_run.replay import Replay

ROOT = Path(__file__).resolve().parents[1]
ROWS = ROOT / "docs" / "results" / "interaction.jsonl"
VARIANTS = {"predictor": "", "IP": "ip"}
RECORDED, HELD_OUT, FRESH = 1_500, 400, 2_000  # records of each environment; dreams
CONTEXT, HORIZONS = 4, (1, 5, 10, 15)
SYMBOLS = 4


def config_of(preset: str, variant: str, seed: int, task: str = "") -> Any:
    config = dataclasses.replace(resolve(APP, preset, "", VARIANTS[variant]), seed=seed, device="cpu", threads=1)
    return runtime(dataclasses.replace(config, task=task or config.task))


def recorded(envs: Any, seed: int, records: int, length: int, attacks: int | None = None) -> Replay:
    """Episodes of every environment, the same for every model of a seed."""
    n = envs.num_envs
    replay = Replay(None, n, stores={}, limit_bytes=2**33, chunk=256, length=length, online=False, seed=seed)
    for step in played(envs, seed, records, attacks):
        replay.add(step)
    return replay


def learned(agent: Any, replay: Replay, config: Any, updates: int) -> None:
    """The world model alone."""
    for _ in range(updates):
        agent.update_model(replay.sample(config.batch, config.length))


# ---- whisper


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
            emitted = chosen(step["action_mask"], rng)
            _, latent = agent.world.imagine(start, torch.as_tensor(emitted).flatten(0, 1))
            shown = agent.world.decoder(latent)["vector"].mode()[:, SYMBOLS : 2 * SYMBOLS].argmax(-1)
            expected = np.roll(emitted.argmax(-1), 1, axis=1)
            right += int((shown.view(envs.num_envs, -1).numpy() == expected).sum())
            count += expected.size
    return right / count


def whisper(seed: int, variant: str, updates: int, **numbers: Any) -> dict[str, Any]:
    """numbers: other ones than the preset's."""
    config = dataclasses.replace(config_of("whisper", variant, seed), **numbers)
    envs = environments(APP, config, config.envs)
    replay, agent = recorded(envs, seed, RECORDED, config.length), build(APP, config, envs)
    learned(agent, replay, config, updates)
    return {"heard": heard(agent, envs, seed), "prior_parameters": parameters(agent)}


# ---- battles


def battle(task: str, seed: int, variant: str, updates: int) -> dict[str, Any]:
    config = config_of("smax", variant, seed, task)
    envs: Any = environments(APP, config, config.envs)
    attacks = envs.noop + 1
    replay = recorded(envs, seed, RECORDED, config.length, attacks)
    held_out = recorded(envs, seed + 1_000, HELD_OUT, config.length, attacks)
    agent: Any = build(APP, config, envs)
    learned(agent, replay, config, updates)
    batches = [held_out.sample(config.batch, config.length) for _ in range(8)]
    found: dict[str, Any] = {"prior_parameters": parameters(agent)} | fit(agent, batches)
    loops = [openloop(agent, batch, CONTEXT, seed=at)["vector"] for at, batch in enumerate(batches)]
    for name, error in (("open_loop", "error"), ("copying", "copy_error")):
        each = torch.stack([getattr(loop, error)() for loop in loops]).mean(0)
        found |= {f"{name}_{ahead}": round(float(each[ahead - 1]), 5) for ahead in HORIZONS}
    return found | {f"resting_{kind}": kl for kind, kl in resting(agent, config, envs, replay, batches).items()}


def folded(agent: Any, batches: Sequence[Batch]) -> Iterator[tuple[dict[str, Tensor], Any]]:
    """Steps of rows and what the world makes of them, without gradient and with draws that depend on nothing."""
    agent.eval()
    with torch.no_grad(), draws.drawing(draws.Generator(0)):
        for batch in batches:
            steps = agent.relabel(agent.rows(batch.steps))
            yield steps, agent.world.observe(agent.world.prefill(None, len(steps["first"])), steps)


def fit(agent: Any, batches: Sequence[Batch]) -> dict[str, float]:
    """KL of the prior and loss of the reconstruction, an agent and step, of those that are alive."""
    kl, loss, count = 0.0, 0.0, 0
    for steps, trace in folded(agent, batches):
        alive = steps["alive"]
        kl += float((categorical_kl(trace.post, trace.prior) * alive).sum())
        loss += float((agent.world.decoder(trace.latent)["vector"].loss(steps["vector"]) * alive).sum())
        count += int(alive.sum())
    return {"kl": round(kl / count, 4), "reconstruction": round(loss / count, 4), "sum": round((kl + loss) / count, 4)}


def resting(agent: Any, config: Any, envs: Any, replay: Replay, batches: Sequence[Batch]) -> dict[str, float]:
    """The KL that a new prior of each kind comes to where everything else rests."""
    seen = [(trace.latent.deter, trace.post) for _, trace in folded(agent, [replay.sample(16, 32) for _ in range(60)])]
    asked = [(trace.latent.deter, trace.post, steps["alive"]) for steps, trace in folded(agent, batches)]
    found = {}
    for kind, name in (("predictor", "transformer"), ("IP", "alone")):
        torch.manual_seed(config.seed)
        parts = dataclasses.replace(config, predictor=name)
        dynamics = make_dynamics(parts, agent.world.encoder.width, envs.action_spec.size, envs.agents)
        rule = Adam(dynamics.prior.parameters(), lr=1e-3, clip=NormClip(100.0))

        def kl(deter: Tensor, post: Tensor, dynamics: Any = dynamics) -> Tensor:
            prior = dynamics.prior_logits(deter.transpose(0, 1)).transpose(
                0, 1
            )  # rows at axis -2, as the predictor has them
            return categorical_kl(post, prior)

        for at in range(600):
            rule.step(kl(*seen[at % len(seen)]).mean())
        with torch.no_grad():
            total = sum(float((kl(deter, post) * alive).sum()) for deter, post, alive in asked)
        found[kind] = round(total / sum(int(alive.sum()) for *_, alive in asked), 4)
    return found


# ---- rows


def parameters(agent: Any) -> int:
    return sum(p.numel() for p in agent.world.dynamics.dynamics.prior.parameters())


def measure(what: str, task: str, seed: int, variant: str, updates: int) -> dict[str, Any]:
    """One model, as a row."""
    began = time.process_time()
    found = whisper(seed, variant, updates) if what == "whisper" else battle(task, seed, variant, updates)
    here = describe_environment()
    origin = {"cpu_seconds": round(time.process_time() - began, 1), "commit": commit(), "hardware": here["hardware"]}
    return {"task": task, "seed": seed, "variant": variant, "updates": updates, **found, **origin}


def commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Means over seeds, and each seed, as Markdown."""
    lines = []
    for task in dict.fromkeys(row["task"] for row in rows):
        mine = [row for row in rows if row["task"] == task]
        kept = ("task", "seed", "variant", "cpu_seconds", "commit", "hardware", "updates")
        numbers = [name for name in mine[0] if name not in kept]
        lines += [f"\n{task}, {len(mine) // len(VARIANTS)} seeds, {mine[0]['updates']:,} updates\n"]
        lines += [f"| | {' | '.join(VARIANTS)} |", "|---" * (len(VARIANTS) + 1) + "|"]
        for name in numbers:
            cells = []
            for variant in VARIANTS:
                each = [row[name] for row in mine if row["variant"] == variant]
                cells.append(f"{statistics.mean(each):.4g} ({', '.join(f'{one:.4g}' for one in each)})")
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("whisper", "battle", "table"))
    parser.add_argument("task", nargs="?", default="toy:whisper")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--updates", type=int)
    asked = parser.parse_args()
    if asked.what != "table":
        torch.set_num_threads(1)
        updates = asked.updates or {"whisper": 1_500, "battle": 600}[asked.what]
        for seed in range(asked.seeds):
            for variant in VARIANTS:
                row = measure(asked.what, asked.task, seed, variant, updates)
                print(json.dumps(row), flush=True)
                with ROWS.open("a") as file:
                    file.write(json.dumps(row) + "\n")
    print(table([json.loads(line) for line in ROWS.read_text().splitlines()]))


if __name__ == "__main__":
    main()
