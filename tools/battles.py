"""Win rates of teams: several methods on a task over seeds, by the evaluations of their runs.

battles.py run TASK --steps N [--every 20000] [--arms mappo dmawm] [--seeds 3] [--jobs 1]   what has no row yet; resumable
battles.py table                                                                            what docs/results/battles.jsonl says

An evaluation is 128 greedy episodes in environments of their own. A row holds a run's evaluations, the means of its last
three and last five, and the mean over all of them, which is the area under the curve. A stopped run has no row, and goes
on; runs lie in runs/battles. Every run commits its own row where --commit is said. Random play and the scripted ally are lines of tools/smax_lines.py.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ROWS = ROOT / "docs" / "results" / "battles.jsonl"
PAGE = ROWS.with_suffix(".md")
RUNS = ROOT / "runs" / "battles"
EPISODES = 128
ARMS: dict[str, tuple[str, ...]] = {
    "mappo": ("mappo", "--preset", "smax"),
    "mappo of the paper": ("mappo", "--preset", "paper"),
    "ippo": ("mappo", "--preset", "smax", "--ablation", "ippo"),
    "mat": ("mappo", "--preset", "smax", "--ablation", "mat"),
    "dmawm": ("dmawm", "--preset", "smax"),
    "po_dreamer": ("po_dreamer", "--preset", "smax"),
    "Dreamer*": ("po_dreamer", "--preset", "smax", "--ablation", "co-only"),
    "po_dreamer decentralised": ("po_dreamer", "--preset", "smax", "--policy", "decentralised"),
    "po_dreamer this-episode": ("po_dreamer", "--preset", "smax", "--ablation", "this-episode"),
    **{
        f"dmawm {name}": ("dmawm", "--preset", "smax", "--ablation", name)
        for name in ("tc", "ip", "as", "horizon_4", "continue_at_death", "communicating")
    },
}


@dataclasses.dataclass(frozen=True)
class Battle:
    """One run."""

    task: str
    arm: str
    seed: int
    steps: int
    every: int

    @property
    def key(self) -> tuple[str, str, int, int]:
        return self.task, self.arm, self.seed, self.steps

    @property
    def folder(self) -> Path:
        name = f"{self.task}-{self.arm}-{self.seed}-{self.steps}"
        return RUNS / "".join(c if c.isalnum() or c in "-_" else "_" for c in name)

    def words(self) -> list[str]:
        app, *options = ARMS[self.arm]
        numbers = {
            "--task": self.task, "--seed": self.seed, "--steps": self.steps, "--eval_every": self.every, "--threads": 1,
            "--eval_episodes": EPISODES, "--eval_envs": 64, "--eval_acting": "mode", "--final_episodes": 0,
            "--final_video": False, "--logdir": self.folder,
        }  # fmt: skip
        return ["-m", app, "train", *options, *(str(word) for pair in numbers.items() for word in pair)]


def rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in ROWS.read_text().splitlines()] if ROWS.is_file() else []


def summary(evaluations: Sequence[tuple[int, float]]) -> dict[str, float]:
    """Of (step, win rate) in order.

    >>> summary([(10, 0.0), (20, 0.5), (30, 1.0), (40, 1.0)])
    {'last_3': 0.8333, 'last_5': 0.625, 'area': 0.625}
    """
    won = [rate for _, rate in evaluations]
    means = {"last_3": won[-3:], "last_5": won[-5:], "area": won}
    return {name: round(statistics.mean(found), 4) for name, found in means.items()}


def fought(battle: Battle) -> str:
    """Train to the end, or on from where it was stopped; its row."""
    battle.folder.parent.mkdir(parents=True, exist_ok=True)
    with battle.folder.with_suffix(".log").open("a") as log:
        command = [sys.executable, *battle.words()]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        code = subprocess.run(command, check=False, cwd=ROOT, env=environment, stdout=log, stderr=log).returncode
    if code:
        return f"{battle.key} ended with {code}: see {battle.folder}.log"
    logged = [json.loads(line) for line in (battle.folder / "metrics.jsonl").read_text().splitlines()]
    found = [(row["step"], round(row["eval/won"], 4)) for row in logged if "eval/won" in row]
    about = json.loads((battle.folder / "env.json").read_text())
    row = dataclasses.asdict(battle) | summary(found) | {"evaluations": found}
    write(row | {"commit": about.get("commit"), "hardware": about.get("hardware")})
    return f"{battle.key}: {summary(found)}"


def write(row: dict[str, Any]) -> None:
    with ROWS.open("a") as file:
        file.write(json.dumps(row) + "\n")
    PAGE.write_text(table(rows()))


def table(found: Sequence[dict[str, Any]]) -> str:
    """Rows as Markdown: a line for each task, arm and number of steps, means over seeds and each seed."""
    lines = [
        "# Win rates of teams\n",
        f"By `python tools/battles.py run`; an evaluation is {EPISODES} greedy episodes. Each cell: the mean over seeds, and",
        "each seed. Commits and hardware are in battles.jsonl.\n",
        "| task | arm | steps | last three | last five | area under the curve |",
        "|---|---|---|---|---|---|",
    ]
    for key in dict.fromkeys((row["task"], row["arm"], row["steps"]) for row in found):
        mine = [row for row in found if (row["task"], row["arm"], row["steps"]) == key]
        cells = []
        for name in ("last_3", "last_5", "area"):
            each = [row[name] for row in mine]
            cells.append(f"{statistics.mean(each):.3f} ({', '.join(f'{one:.2f}' for one in each)})")
        lines.append(f"| {key[0]} | {key[1]} | {key[2]:,} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("task", nargs="?", default="smax:3m")
    parser.add_argument("--steps", type=int, default=300_000)
    parser.add_argument("--every", type=int, default=20_000)
    parser.add_argument("--arms", nargs="+", choices=tuple(ARMS), default=["mappo"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--commit", action="store_true")
    asked = parser.parse_args()
    if asked.what == "run":
        made = {(row["task"], row["arm"], row["seed"], row["steps"]) for row in rows()}
        wanted = [
            Battle(asked.task, arm, seed, asked.steps, asked.every) for seed in range(asked.seeds) for arm in asked.arms
        ]
        with ThreadPoolExecutor(asked.jobs) as pool:
            for told in pool.map(fought, [battle for battle in wanted if battle.key not in made]):
                print(told, flush=True)
                if asked.commit:
                    subprocess.run(["git", "add", str(ROWS), str(PAGE)], check=True, cwd=ROOT)
                    subprocess.run(["git", "commit", "-qm", "docs/results: a row of battles"], check=False, cwd=ROOT)
    print(table(rows()))


if __name__ == "__main__":
    main()
