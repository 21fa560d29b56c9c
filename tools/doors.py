"""Doors: does the memory hold what weights cannot? Train the variants, measure them on fresh rules, plot.

doors.py run [--task doors] [--seeds 3] [--variants full ...] [--jobs 2]     train and measure what is not there yet; resumable
doors.py run --task doors_team [--policies mat decentralised] [--commit]     the same of a team: each agent has its own rule
doors.py table [--task doors_team]                                           the table and the plot in docs/results from the rows

Measured with frozen weights on some 50 fresh rules from an empty bank: P(right door | k-th visit of a cue), acting by the
policy's mode (its entropy bonus keeps it nearly random on purpose). While measured, a rule stays. Beside it: chance, the
oracle, a nearest-neighbour memory, and the untrained agent. Of a team an agent's own doors are counted, and a memory that
its agents share is beside it: that is right half of the time, knowing nothing of whose rule it was. A row of
docs/results/<task>.jsonl is a run; a stopped one has none, and goes on. Runs lie in runs/<task>. With --commit each row is
committed as it comes.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from visits import VISITS, NearestNeighbour, visits

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
VARIANTS = {"full": "", "this-episode": "this-episode", "co-only": "co-only", "co-co": "co-co"}
FRESH = 77_000
SHOWN = (1, 2, 3, 5, 10)
CHANCE = 0.25


@dataclass(frozen=True)
class Task:
    """What is trained, by the preset of its name, and measured in `envs` environments of `agents` agents each."""

    name: str
    envs: int
    agents: int = 1
    policies: tuple[str, ...] = ("",)  # values of --policy; "" where there is no such choice

    @property
    def rows(self) -> pathlib.Path:
        return RESULTS / f"{self.name}.jsonl"

    @property
    def page(self) -> pathlib.Path:
        return RESULTS / f"{self.name}-table.md"

    @property
    def plot(self) -> pathlib.Path:
        return RESULTS / f"{self.name}.png"

    def environments(self) -> Any:
        from env_adapters import make_vec

        return make_vec(f"toy:{self.name}", self.envs, workers=0, redraw=0)


TASKS = {task.name: task for task in (Task("doors", 50), Task("doors_team", 17, 3, ("mat", "decentralised")))}


@dataclass(frozen=True)
class Run:
    """One run, and its words for `train`."""

    task: Task
    variant: str
    policy: str
    seed: int
    options: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return "-".join(filter(None, (self.variant, self.policy, str(self.seed))))

    @property
    def key(self) -> tuple[str, str, int]:
        return self.variant, self.policy, self.seed

    def words(self, logdir: pathlib.Path) -> list[str]:
        words = ["train", "--preset", self.task.name, "--seed", str(self.seed), "--logdir", str(logdir)]
        words += ["--ablation", VARIANTS[self.variant]] if VARIANTS[self.variant] else []
        words += ["--policy", self.policy] if self.policy else []
        return [*words, *self.options]


def measure(task: Task, logdir: pathlib.Path, seed: int) -> dict[str, Any]:
    """The trained agent of a run and its untrained twin on the same fresh rules."""
    import torch
    from po_dreamer import load
    from wm_core import draws
    from wm_run.loading import build

    torch.set_num_threads(1)
    loaded = load(logdir)
    found: dict[str, Any] = {"step": loaded.step}
    envs = task.environments()
    loaded.agent.source = draws.Generator(FRESH + seed)
    found["trained"] = visits(loaded.agent, envs, FRESH + seed)
    fresh = build(loaded.app, loaded.config, envs)
    found["untrained"] = visits(fresh, envs, FRESH + seed, steps=400)
    return found


def run_one(run: Run, folder: pathlib.Path) -> str:
    """Train (or finish training) one run, measure it, add its row."""
    logdir, diary = folder / run.name, folder / f"{run.name}.seconds"
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    with (folder / f"{run.name}.log").open("a") as log:
        began = time.monotonic()
        command = [sys.executable, "-m", "po_dreamer", *run.words(logdir)]
        done = subprocess.run(command, check=False, env=env, cwd=ROOT, stdout=log, stderr=log)
        seconds = time.monotonic() - began + (float(diary.read_text()) if diary.exists() else 0.0)
        diary.write_text(f"{seconds}")  # over all the processes of a run that is stopped and goes on
        if done.returncode:
            return f"{run.name} failed; see {log.name}"
        code = "import sys; sys.path.insert(0, 'tools'); import doors; doors.add(sys.argv[1], sys.argv[2], sys.argv[3])"
        about = {"variant": run.variant, "seed": run.seed, "minutes": round(seconds / 60, 2)}
        about |= {"policy": run.policy} if run.policy else {}
        about |= {"options": list(run.options)} if run.options else {}
        command = [sys.executable, "-c", code, run.task.name, json.dumps(about), str(logdir)]
        done = subprocess.run(command, env=env, cwd=ROOT, stdout=log, stderr=log, check=False)
    return f"{run.name} could not be measured; see {log.name}" if done.returncode else f"{run.name} done"


def add(name: str, about: str, logdir: str) -> None:
    """Measure a run and append its row."""
    task, path, row = TASKS[name], pathlib.Path(logdir), json.loads(about)
    metrics = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    where = json.loads((path / "env.json").read_text())
    row |= {"commit": where["commit"], "hardware": where["hardware"]} | measure(task, path, row["seed"])
    row["updates"] = round(metrics[-1]["train/updates"])
    task.rows.parent.mkdir(parents=True, exist_ok=True)
    with task.rows.open("a") as file:
        file.write(json.dumps(row) + "\n")


def rows(task: Task) -> list[dict[str, Any]]:
    """The rows so far; the last one of a (variant, policy, seed) counts."""
    if not task.rows.exists():
        return []
    found = [json.loads(line) for line in task.rows.read_text().splitlines()]
    return list({(row["variant"], row.get("policy", ""), row["seed"]): row for row in found}.values())


def planned(task: Task, args: argparse.Namespace) -> list[Run]:
    """What has no row yet, a seed of everything before the next seed."""
    have = {(row["variant"], row.get("policy", ""), row["seed"]) for row in rows(task)}
    policies = [one for one in task.policies if not args.policies or one in args.policies]
    every = [
        Run(task, v, p, s, tuple(args.options)) for s in range(args.seeds) for p in policies for v in args.variants
    ]
    return [one for one in every if one.key not in have]


def start(args: argparse.Namespace) -> None:
    """Everything planned; then table and plot."""
    task = TASKS[args.task]
    folder = args.folder or ROOT / "runs" / task.name
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(args.jobs) as pool:
        for told in pool.map(lambda one: run_one(one, folder), planned(task, args)):
            print(told, flush=True)
            if args.commit and task.rows.exists():
                task.page.write_text(table(task))
                commit(task, task.rows, task.page)
    show(args)
    if args.commit:
        commit(task, task.rows, task.page, task.plot)


def commit(task: Task, *files: pathlib.Path) -> None:
    """These files and nothing else; what is as it was makes no commit."""
    named = [str(file) for file in files if file.exists()]
    subprocess.run(["git", "add", "--", *named], check=True, cwd=ROOT)
    subprocess.run(["git", "commit", "-qm", f"docs/results: {task.name}", "--", *named], check=False, cwd=ROOT)


def lines_of(task: Task) -> dict[str, list[dict[str, Any]]]:
    """What is in the table -> its measurements, one a seed; `visits` of each."""
    found: dict[str, list[dict[str, Any]]] = {}
    for policy in task.policies:
        for variant in VARIANTS:
            mine = [row for row in rows(task) if (row["variant"], row.get("policy", "")) == (variant, policy)]
            if mine:
                found[", ".join(filter(None, (variant, policy)))] = [row["trained"] for row in mine]
    return found


def references(task: Task) -> dict[str, dict[str, Any]]:
    """Memories that need no learning, and knowing everything."""
    envs = task.environments()
    found = {"nearest-neighbour memory": visits(NearestNeighbour(task.agents), envs, FRESH)}
    if task.agents > 1:
        shared = NearestNeighbour(task.agents, shared=True)
        found["nearest-neighbour memory, shared by the team"] = visits(shared, envs, FRESH)
    return found | {"oracle": {str(k): CHANCE if k == 1 else 1.0 for k in range(1, VISITS + 1)}}


def verdict(name: str, found: Sequence[dict[str, Any]]) -> str:
    """Whether each seed of the full model is right more often than not at the fifth visit, and each other at chance.

    >>> verdict("full, mat", [{"5": 0.9}, {"5": 0.4}]), verdict("co-only, mat", [{"5": 0.27}])
    ('fails', 'holds')
    """
    holds = [one["5"] > 0.5 if name.startswith("full") else abs(one["5"] - CHANCE) <= 0.04 for one in found]
    return "holds" if all(holds) else "fails"


def table(task: Task, beside: dict[str, dict[str, Any]] | None = None) -> str:
    """Markdown: mean over seeds, and the range between the worst and the best of them; of a team, the range of its agents
    over all seeds, too."""
    team = task.agents > 1
    more = ["its agents, k = 5", "each seed at k = 5: full > .5, others .25 +- .04"] if team else []
    lines = ["| " + " | ".join(["agent", "seeds", *(f"k = {k}" for k in SHOWN), *more]) + " |"]
    lines.append("|---" * (2 + len(SHOWN) + len(more)) + "|")

    def line(*cells: str) -> None:
        lines.append("| " + " | ".join([*cells, *[""] * (2 + len(SHOWN) + len(more) - len(cells))]) + " |")

    for name, found in lines_of(task).items():
        values = np.array([[one[str(k)] for k in SHOWN] for one in found])
        cells = [f"{v.mean():.2f} ({v.min():.2f}-{v.max():.2f})" for v in values.T]
        if team:
            each = [agent[4] for one in found for agent in one["agents"]]
            cells += [f"{min(each):.2f}-{max(each):.2f}", verdict(name, found)]
        line(name, str(len(found)), *cells)
    for policy in task.policies:
        fresh = [r["untrained"] for r in rows(task) if (r["variant"], r.get("policy", "")) == ("full", policy)]
        if fresh:
            name = ", ".join(filter(None, ("full", policy, "untrained")))
            line(name, str(len(fresh)), *(f"{np.nanmean([one[str(k)] for one in fresh]):.2f}" for k in SHOWN))
    for name, reference in (beside or references(task)).items():
        line(name, "-", *(f"{reference[str(k)]:.2f}" for k in SHOWN))
    line("chance", "-", *(f"{CHANCE:.2f}" for _ in SHOWN))
    return "\n".join(lines) + "\n"


def show(args: argparse.Namespace) -> None:
    """The table, and the plot: the mean over seeds, shaded from the worst to the best."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    task = TASKS[args.task]
    beside, every = references(task), range(1, VISITS + 1)
    figure, axes = pyplot.subplots(figsize=(6, 4))
    for name, found in lines_of(task).items():
        values = np.array([[one[str(k)] for k in every] for one in found])
        axes.plot(every, values.mean(0), marker="o", label=f"{name} ({len(found)} seeds)")
        axes.fill_between(every, values.min(0), values.max(0), alpha=0.2)
    for name, reference in beside.items():
        axes.plot(every, [reference[str(k)] for k in every], linestyle=":", label=name)
    axes.axhline(CHANCE, color="grey", linewidth=1)
    axes.set(xlabel="visit k of a cue under one rule", ylabel="P(right door)", ylim=(0, 1.05))
    axes.legend(fontsize=8)
    figure.tight_layout()
    task.page.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(task.plot, dpi=110)
    pyplot.close(figure)
    task.page.write_text(table(task, beside))
    print(task.page.read_text(), end="")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one, other = commands.add_parser("run"), commands.add_parser("table")
    for command in (one, other):
        command.add_argument("--task", choices=list(TASKS), default="doors")
    one.add_argument("--seeds", type=int, default=3)
    one.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    one.add_argument("--policies", nargs="+", choices=("mat", "decentralised"), help="of a team; all when left out")
    one.add_argument("--jobs", type=int, default=2)
    one.add_argument("--folder", type=pathlib.Path)
    one.add_argument("--commit", action="store_true")
    one.add_argument("options", nargs="*", help="after --: further options of train")
    one.set_defaults(f=start)
    other.set_defaults(f=show)
    args = parser.parse_args(argv)
    args.f(args)


if __name__ == "__main__":
    main()
