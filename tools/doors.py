"""Doors: does the memory hold what weights cannot? The measure, the table and the plot of two suites.

suite.py run doors | doors_team      train and measure what has no row yet; resumable
doors.py table [--task doors_team]   the table and the plot in docs/results from the rows

Measured with frozen weights on some 50 fresh rules from an empty bank: P(right door | k-th visit of a cue), acting by the
policy's mode (its entropy bonus keeps it nearly random on purpose). While measured, a rule stays. Beside it: chance, the
oracle, a nearest-neighbour memory, and the untrained agent. Of a team an agent's own doors are counted, and a memory that
its agents share is beside it: that is right half of the time, knowing nothing of whose rule it was. Rows of
docs/results/<task>.jsonl without a task are of before there were suites.
"""

from __future__ import annotations

import argparse
import json
import pathlib
from collections.abc import Mapping, Sequence
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


def measured(logdir: pathlib.Path, cell: Mapping[str, Any]) -> dict[str, Any]:
    """Of a suite's run: the trained agent and its untrained twin on the same fresh rules; `right_at_5`, the trained one's
    P(right door | 5th visit), is the score."""
    import torch
    from po_dreamer import load
    from wm_core import draws
    from wm_run.loading import build

    torch.set_num_threads(1)
    task, loaded, seed = TASKS[cell["task"].removeprefix("toy:")], load(logdir), FRESH + cell["seed"]
    metrics = [json.loads(line) for line in (logdir / "metrics.jsonl").read_text().splitlines()]
    envs = task.environments()
    loaded.agent.source = draws.Generator(seed)
    trained = visits(loaded.agent, envs, seed)
    untrained = visits(build(loaded.app, loaded.config, envs), envs, seed, steps=400)
    return {
        "step": loaded.step,
        "parameters": loaded.agent.parameters_by_module()["total"],
        "updates": round(metrics[-1]["train/updates"]),
        "right_at_5": trained["5"],
        "trained": trained,
        "untrained": untrained,
    }


def modern(name: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the suites doors and doors_team of before there were suites, as their rows are now; others as they are.

    >>> (row,) = modern("doors_team", [{"variant": "co-co", "policy": "mat", "seed": 1, "trained": {"5": 0.2}}])
    >>> row["task"], row["arm"], row["settings"]["ablation"], row["settings"]["options"], row["right_at_5"]
    ('toy:doors_team', 'co-co mat', 'co-co', {'policy': 'mat'}, 0.2)
    """
    return [_modern(name, row) if name in TASKS and "task" not in row else row for row in rows]


def _modern(name: str, row: dict[str, Any]) -> dict[str, Any]:
    words = row.get("options", [])
    options = {"policy": row["policy"]} if row.get("policy") else {}
    options |= {name.removeprefix("--"): value for name, value in zip(words[::2], words[1::2], strict=False)}
    settings: dict[str, Any] = {"app": "po_dreamer", "preset": name, "options": options}
    settings |= {"ablation": VARIANTS[row["variant"]]} if VARIANTS[row["variant"]] else {}
    commit = row.get("commit") or ""
    fields = {
        "task": f"toy:{name}",
        "arm": " ".join(filter(None, (row["variant"], row.get("policy", "")))),
        "settings": settings,
        "config": "",
        "ended": "whole",
        "wall_s": round(60 * row.get("minutes", 0)),
        "curve": [],
        "right_at_5": row["trained"]["5"],
    }
    return row | fields | {"commit": commit[:8] + "+" * commit.endswith("+")}


def rows(task: Task) -> list[dict[str, Any]]:
    """The rows so far, with `variant` and `policy`; the last one of a (variant, policy, seed) counts."""
    if not task.rows.exists():
        return []
    found: dict[tuple[str, str, int], dict[str, Any]] = {}
    for line in task.rows.read_text().splitlines():
        row = json.loads(line)
        if "task" in row:
            settings = row["settings"]
            row |= {"variant": settings.get("ablation") or "full", "policy": settings["options"].get("policy", "")}
        found[row["variant"], row.get("policy", ""), row["seed"]] = row
    return list(found.values())


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
    table_of = parser.add_subparsers(required=True).add_parser("table")
    table_of.add_argument("--task", choices=list(TASKS), default="doors")
    table_of.set_defaults(f=show)
    args = parser.parse_args(argv)
    args.f(args)


if __name__ == "__main__":
    main()
