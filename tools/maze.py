"""Memory Maze with PO-Dreamer, its ablations, R2I and Dreamer: what one small budget teaches them, and what the paper's takes.

maze.py run [TASK ...] [--arms po_dreamer r2i dreamer] [--seeds 1] [--jobs 1] [--commit]   what has no row yet; resumable
maze.py run ... --dry                                                                     what that would be
maze.py run memory_maze_9x9 memory_maze_15x15 --arms table5 --preset memory_maze --seeds 5   Table 5, a GPU's work
maze.py cost                                                                              FLOPs and bytes, by tools/bench
maze.py table                                                                             the page, from the rows

The preset is memory_maze_cpu unless named: half an hour of a core or less, and the three agents have the same steps,
environments, ratio, batch, length and dreams. `table5` are PO-Dreamer and the eight ablations of the paper's Table 5, among
them the negative control, this-episode: a maze is drawn anew for every episode, so that what lies in earlier ones should
not help.

A row holds every training episode's score, those of fresh episodes (with as many by random actions), and open-loop errors
on held-out mazes: the same records of a random walk for every arm, observed by each with its own memory of what came
before; squared error of a pixel in [0, 1] beside that of copying the last frame that was observed, of the mean frame of
these very rows (the best constant, known only afterwards), and of the untrained agent. A stopped run has no row, and goes
on; runs lie in runs/maze.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

from committed import commit
from maze_cost import ACTING, BUDGET, COSTS, cost
from maze_held_out import CONTEXT, errors, held_out, random_scores

ROOT = Path(__file__).resolve().parents[1]
ROWS = ROOT / "docs" / "results" / "maze.jsonl"
PAGE = ROWS.with_suffix(".md")
RUNS = ROOT / "runs" / "maze"
SMALL = "memory_maze_cpu"
FRESH = 4  # episodes of the evaluation, and of random play, each in an environment of its own
ORACLE = {"9x9": 34.8, "11x11": 58.0, "13x13": 74.5, "15x15": 87.7}  # the environment's own mean maximum
ABLATIONS = (  # Table 5's order
    "this-episode",
    "mg-only",
    "co-only",
    "co-co",
    "no-vae",
    "no-cross-attention",
    "no-position",
    "no-action",
)
METHODS = ("po_dreamer", "r2i", "dreamer")
ARMS: dict[str, tuple[str, ...]] = {name: (name,) for name in METHODS}
ARMS |= {f"po_dreamer {name}": ("po_dreamer", "--ablation", name) for name in ABLATIONS}
TABLE5 = ["po_dreamer", *(f"po_dreamer {name}" for name in ABLATIONS)]


@dataclasses.dataclass(frozen=True)
class Run:
    """One run."""

    task: str
    arm: str
    seed: int
    preset: str
    steps: int = 0  # the preset's

    @property
    def key(self) -> tuple[str, str, int, str, int]:
        return self.task, self.arm, self.seed, self.preset, self.steps

    @property
    def folder(self) -> Path:
        name = f"{self.task}-{self.arm}-{self.preset}-{self.seed}"
        return RUNS / (name + f"-{self.steps}" * bool(self.steps)).replace(" ", "_")

    def words(self) -> list[str]:
        app, *options = ARMS[self.arm]
        numbers: dict[str, Any] = {
            "--preset": self.preset, "--task": self.task, "--seed": self.seed, "--final_episodes": FRESH,
            "--eval_envs": FRESH, "--final_video": False, "--logdir": self.folder,
        }  # fmt: skip
        numbers |= {"--steps": self.steps} if self.steps else {}
        return ["-m", app, "train", *options, *(str(word) for pair in numbers.items() for word in pair)]


def rows(kind: str) -> list[dict[str, Any]]:
    """Of runs, or of costs."""
    found = [json.loads(line) for line in ROWS.read_text().splitlines()] if ROWS.is_file() else []
    return [row for row in found if row["kind"] == kind]


def add(row: dict[str, Any]) -> None:
    ROWS.parent.mkdir(parents=True, exist_ok=True)
    with ROWS.open("a") as file:
        file.write(json.dumps(row) + "\n")
    PAGE.write_text(table(rows("run"), rows("cost")))


def run(one: Run) -> str:
    """Train to the end, or on from where it was stopped; its row."""
    one.folder.parent.mkdir(parents=True, exist_ok=True)
    with one.folder.with_suffix(".log").open("a") as log:
        environment = os.environ | {"OMP_NUM_THREADS": "1"} if one.preset == SMALL else None
        child = subprocess.Popen([sys.executable, *one.words()], cwd=ROOT, env=environment, stdout=log, stderr=log)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)  # it has been waited for
    seconds = one.folder.with_suffix(".cpu")  # a line for each process of the run
    with seconds.open("a") as file:
        file.write(f"{used.ru_utime + used.ru_stime:.1f}\n")
    if child.returncode:
        return f"{one.key} ended with {child.returncode}: see {one.folder}.log"
    about = json.loads((one.folder / "env.json").read_text())
    row = {"kind": "run", **dataclasses.asdict(one), **measured(one)}
    row["cpu_minutes"] = round(sum(map(float, seconds.read_text().split())) / 60, 1)
    add(row | {"commit": about.get("commit"), "hardware": about.get("hardware")})
    return f"{one.key}: {statistics.mean(row['fresh'])} on fresh episodes"


# ---- of a finished run


def measured(one: Run) -> dict[str, Any]:
    """What its logs say, and its open loops."""
    import torch
    from wm_run.loading import build, environments

    def read(name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (one.folder / name).read_text().splitlines()]

    logged = [row for row in read("metrics.jsonl") if "train/loss/image" in row]
    own = min((one.folder / "eval").glob("*.json"), key=lambda path: len(path.name))  # others say how they differ
    result = json.loads(own.read_text())
    torch.set_num_threads(1)
    loaded = importlib.import_module(ARMS[one.arm][0]).load(one.folder)
    with closing(environments(loaded.app, loaded.config, 1)) as envs:
        untrained = build(loaded.app, loaded.config, envs)
    records = held_out(one.task, RUNS)
    return {
        "trained": loaded.step,
        "updates": round(logged[-1]["train/updates"]),
        "parameters": loaded.agent.parameters_by_module()["total"],
        "scores": [[row["step"], row["episode/score"]] for row in read("scores.jsonl")],
        "fresh": result["scores"],
        "lengths": result["lengths"],
        "random": random_scores(one.task, RUNS, FRESH),
        "loss": {
            name: [[row["step"], round(row[f"train/loss/{name}"], 4)] for row in logged]
            for name in ("image", "reward", "dyn")
        },
        "openloop": errors(loaded.agent, untrained, records),
    }


def costs() -> None:
    """Rows that are missing."""
    made = {row["method"] for row in rows("cost")}
    for method in COSTS:
        if method not in made:
            add(cost(method, (32, 64) if method == "r2i" else None))


# ---- the page


def table(runs: Sequence[dict[str, Any]], budgets: Sequence[dict[str, Any]]) -> str:
    """Markdown."""
    lines = [
        "# Memory Maze\n",
        "By `python tools/maze.py`, whose --help says what the columns are; commits, hardware and curves are in maze.jsonl.",
    ]
    for task, preset in dict.fromkeys((row["task"], row["preset"]) for row in runs):
        here = [row for row in runs if (row["task"], row["preset"]) == (task, preset)]
        most = ORACLE.get(task.removeprefix("memory_maze_"))
        lines += [
            f"\n## {task}, preset {preset}\n",
            f"An oracle reaches {most} in the mean. Scores: the mean, and each episode's.\n",
            "| arm | seed | steps | updates | CPU minutes | training's episodes | fresh | random | image loss | reward loss |",
            "|---|---|---|---|---|---|---|---|---|---|",
        ]
        for row in here:
            cells = [row["arm"], row["seed"], f"{row['trained']:,}", f"{row['updates']:,}", row["cpu_minutes"]]
            cells += [
                mean_and_each([score for _, score in row["scores"]]),
                mean_and_each(row["fresh"]),
                mean_and_each(row["random"]),
            ]
            cells += [" to ".join(f"{row['loss'][name][at][1]:.3g}" for at in (0, -1)) for name in ("image", "reward")]
            lines.append("| " + " | ".join(map(str, cells)) + " |")
        ahead = here[0]["openloop"]["ahead"]
        lines += [
            f"\nOpen loop on held-out mazes after {CONTEXT} observed steps, squared error of a pixel:\n",
            "| arm | seed | observed | "
            + " | ".join(f"{one} ahead" for one in ahead)
            + " | untrained, copy and mean there |",
            "|---|---|---|" + "---|" * (len(ahead) + 1),
        ]
        for row in here:
            found = row["openloop"]
            beside = [f"{found['untrained'][-1]:.4f}, {found['copy'][-1]:.4f}, {found['mean'][-1]:.4f}"]
            cells = [row["arm"], row["seed"], f"{found['seen']:.4f}", *(f"{one:.4f}" for one in found["model"])]
            lines.append("| " + " | ".join(map(str, [*cells, *beside])) + " |")
        for name in ("copy", "mean"):
            each = " | ".join(f"{one:.4f}" for one in here[0]["openloop"][name])
            lines.append(f"| {name} | - | - | {each} | |")
    if budgets:
        lines += [
            "\n## What the paper's budget takes\n",
            f"PO-Dreamer's paper states none; R2I's is {BUDGET:,} environment steps, and stands here for all. FLOPs: 2 for a",
            "multiply-add in products, convolutions and attention. Bytes: what an eager update in float32 reads and writes, each",
            f"tensor once a call. An act: of one environment of {ACTING} side by side. No hours: no card has been measured.\n",
            "| method | parameters | batch x length, ratio | updates | GFLOP, GB an update | MFLOP, MB an act | all: FLOP | all: bytes |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for row in budgets:
            cells = [row["method"], f"{row['parameters']:,}", f"{row['batch']} x {row['length']}, {row['ratio']:g}"]
            cells += [f"{row['updates']:,}", f"{row['update_flops'] / 1e9:,.0f}, {row['update_bytes'] / 1e9:,.1f}"]
            cells += [f"{row['act_flops'] / 1e6:,.1f}, {row['act_bytes'] / 1e6:,.1f}"]
            cells += [f"{row['total_flops']:.2e}", f"{row['total_bytes']:.2e}"]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def mean_and_each(scores: Sequence[float]) -> str:
    """The mean, and each.

    >>> mean_and_each([0.0, 1.0]), mean_and_each([])
    ('0.50 (0, 1)', '-')
    """
    each = ", ".join(f"{score:g}" for score in scores)
    return f"{statistics.mean(scores):.2f} ({each})" if scores else "-"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "cost", "table"))
    parser.add_argument("tasks", nargs="*", metavar="TASK", default=["memory_maze_9x9"])
    parser.add_argument("--arms", nargs="+", choices=("table5", *ARMS), metavar="ARM", default=list(METHODS))
    parser.add_argument("--preset", default=SMALL)
    parser.add_argument("--steps", type=int, default=0, help="in place of the preset's")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--dry", action="store_true")
    parser.add_argument("--commit", action="store_true")
    asked = parser.parse_intermixed_args()
    arms = list(dict.fromkeys(arm for name in asked.arms for arm in (TABLE5 if name == "table5" else [name])))
    if asked.what == "run":
        made = {tuple(row[field.name] for field in dataclasses.fields(Run)) for row in rows("run")}
        left = [
            one
            for seed in range(asked.seeds)
            for task in asked.tasks
            for arm in arms
            if (one := Run(task, arm, seed, asked.preset, asked.steps)).key not in made
        ]
        if asked.dry:
            print("\n".join(f"python {' '.join(one.words())}" for one in left))
            return
        with ThreadPoolExecutor(asked.jobs) as pool:
            for sentence in pool.map(run, left):
                print(sentence, flush=True)
                if asked.commit:
                    commit((ROWS, PAGE), "a row of the mazes")
    if asked.what == "cost":
        costs()
        if asked.commit:
            commit((ROWS, PAGE), "costs of the mazes")
    print(table(rows("run"), rows("cost")))


if __name__ == "__main__":
    main()
