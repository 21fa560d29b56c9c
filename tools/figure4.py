"""Figure 4 of PO-Dreamer's paper: the score over the window remembered (tau) and over the steps recalled (eta), one at a
time, and the mean and variance of the memory's latent while it trains.

figure4.py run [TASK ...] [--tau 50 100] [--eta 4 8] [--seeds 1] [--steps N] [--jobs 1] [--commit]   what has no row yet; resumable
figure4.py run ... --dry                                                                           what that would be
figure4.py table                                                                                   the page and the plot, from the rows

TASK is toy:doors (preset doors, minutes a run of one core), or one of the paper's eight Atari games, or `atari` for all of
them (preset atari100k_paper, a GPU's work). The paper states no grid: ours are below. doors is scored by its policy's mode
on 50 fresh rules from an empty memory, P(right door | k-th visit) in the mean over k = 2 to 10; a game by the evaluation at
its run's end, as human-normalised score. Runs lie in runs/figure4; a stopped run has no row, and goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from committed import commit
from wm_suite.driver import alone
from wm_suite.errors import SuiteError
from wm_suite.job import Job
from wm_suite.local import Local
from wm_suite.rows import append_row
from wm_suite.running import halting
from wm_suite.suites import Cell as SuiteCell

ROOT = Path(__file__).resolve().parents[1]
ROWS = ROOT / "docs" / "results" / "figure4.jsonl"
PAGE = ROWS.with_suffix(".md")
RUNS = ROOT / "runs" / "figure4"
POINTS = 40  # of a latent's curve in a row
RULES, FRESH = 50, 77_000  # of doors, and their seed
# random play and people, the paper's Table 1
GAMES = {
    "amidar": (5.8, 1719.5),
    "asterix": (210.0, 8503.3),
    "breakout": (1.7, 30.5),
    "frostbite": (65.2, 4334.7),
    "hero": (1027.0, 30826.4),
    "kangaroo": (52.0, 3035.0),
    "krull": (1598.0, 2665.5),
    "road_runner": (11.5, 7845.0),
}


@dataclasses.dataclass(frozen=True)
class Grid:
    """What is swept on a task: the values of tau with the preset's eta, and of eta with the preset's tau."""

    preset: str
    tau: tuple[int, ...]
    eta: tuple[int, ...]
    middle: tuple[int, int]


DOORS = Grid("doors", (50, 100, 200, 400), (4, 8, 24, 48), (400, 24))
ATARI = Grid("atari100k_paper", (100, 200, 400, 800, 1200), (10, 20, 40, 80, 160), (800, 40))
GRIDS = {"toy:doors": DOORS} | {f"atari100k_{game}": ATARI for game in GAMES}


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run. steps: 0 for the preset's."""

    task: str
    tau: int
    eta: int
    seed: int
    steps: int = 0

    @property
    def key(self) -> tuple[str, int, int, int, int]:
        return self.task, self.tau, self.eta, self.seed, self.steps

    @property
    def job(self) -> Job:
        """Its run, as a suite would have it."""
        grid = GRIDS[self.task]
        name = f"{self.task.replace(':', '_')}-tau{self.tau}-eta{self.eta}-{self.seed}"
        options = {"memory_window": self.tau, "memory_count": self.eta} | ({"steps": self.steps} if self.steps else {})
        arm = f"tau{self.tau}-eta{self.eta}"
        run = SuiteCell(self.task, arm, self.seed, "po_dreamer", grid.preset, options, "", "figure4:measured")
        return Job(
            "figure4",
            run,
            str(RUNS / (f"{name}-{self.steps}" if self.steps else name)),
            math.inf,
            "score",
            cwd=str(ROOT),
            path=(str(ROOT / "tools"),),
            environment={"OMP_NUM_THREADS": "1"} if grid is DOORS else {},
        )


def cells(
    tasks: Sequence[str], tau: Sequence[int] | None, eta: Sequence[int] | None, seeds: int, steps: int = 0
) -> list[Cell]:
    """Seed by seed, each task's middle first, then tau, then eta; a pair that both sweeps have is run once.

    >>> [(cell.tau, cell.eta) for cell in cells(["toy:doors"], [50, 400], [8], 1)]
    [(400, 24), (50, 24), (400, 8)]
    """
    found: dict[Cell, None] = {}
    for seed in range(seeds):
        for task in tasks:
            grid = GRIDS[task]
            middle = grid.middle
            taus, etas = grid.tau if tau is None else tau, grid.eta if eta is None else eta
            pairs = [middle, *((one, middle[1]) for one in taus), *((middle[0], one) for one in etas)]
            found |= dict.fromkeys(Cell(task, *pair, seed, steps) for pair in pairs)
    return list(found)


def normalised(task: str, score: float) -> float:
    """By random play (0) and people (1).

    >>> normalised("atari100k_breakout", 30.5)
    1.0
    """
    random, human = GAMES[task.removeprefix("atari100k_")]
    return (score - random) / (human - random)


def rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in ROWS.read_text().splitlines()] if ROWS.is_file() else []


def latents(logged: Sequence[dict[str, Any]]) -> list[tuple[int, float, float]]:
    """Step, mean and variance of the memory's latent, at most POINTS of them.

    >>> latents([{"step": 5}, {"step": 9, "train/recall/latent_mean": 0.5, "train/recall/latent_variance": 0.25}])
    [(9, 0.5, 0.25)]
    """
    names = ("train/recall/latent_mean", "train/recall/latent_variance")
    found = [(row["step"], *(round(row[name], 5) for name in names)) for row in logged if names[0] in row]
    return found[:: max(1, -(-len(found) // POINTS))]


def scored(cell: Cell, logdir: Path) -> dict[str, Any]:
    """Of a finished run."""
    if GRIDS[cell.task] is ATARI:
        own = min((logdir / "eval").glob("*.json"), key=lambda path: len(path.name))  # others say how they differ
        scores = json.loads(own.read_text())["scores"]
        score = statistics.mean(scores)
        return {"score": round(normalised(cell.task, score), 4), "raw": score, "episodes": len(scores)}
    import torch
    from env_adapters import make_vec
    from po_dreamer import load
    from visits import VISITS, visits
    from wm_core import draws

    torch.set_num_threads(1)
    agent = load(logdir).agent
    agent.source = draws.Generator(FRESH + cell.seed)
    found = visits(agent, make_vec(cell.task, RULES, workers=0, redraw=0), FRESH + cell.seed)
    each = [round(float(found[str(k)]), 4) for k in range(1, VISITS + 1)]
    return {"score": round(statistics.mean(each[1:]), 4), "visits": each}


def measured(logdir: Path, cell: Mapping[str, Any]) -> dict[str, Any]:
    """What a row has of a finished run, as a suite asks for it."""
    options = cell["options"]
    mine = Cell(cell["task"], options["memory_window"], options["memory_count"], cell["seed"], options.get("steps", 0))
    logged = [json.loads(line) for line in (logdir / "metrics.jsonl").read_text().splitlines()]
    about = json.loads((logdir / "env.json").read_text())
    found = dataclasses.asdict(mine) | scored(mine, logdir) | {"trained": logged[-1]["step"], "latent": latents(logged)}
    row = found | {"commit": about.get("commit"), "hardware": about.get("hardware")}
    return {"score": row["score"], "row": row}


# ---- the page


def groups(found: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Rows of doors by themselves and those of games together, for the paper's panels average over games; runs of other
    lengths by themselves.

    >>> list(groups([{"task": "atari100k_hero", "steps": 0}, {"task": "toy:doors", "steps": 200}]))
    ['atari', 'toy:doors, 200 steps']
    """
    gathered: dict[str, list[dict[str, Any]]] = {}
    for row in found:
        name = row["task"] if row["task"] == "toy:doors" else "atari"
        name += f", {row['steps']:,} steps" if row["steps"] else ""
        gathered.setdefault(name, []).append(row)
    return gathered


def swept(found: Sequence[dict[str, Any]], which: str) -> list[tuple[int, list[dict[str, Any]]]]:
    """The rows of one sweep of one group, by its value; the other number is the preset's."""
    tau, eta = GRIDS[found[0]["task"]].middle
    mine = [row for row in found if (row["eta"] == eta if which == "tau" else row["tau"] == tau)]
    return [(value, [row for row in mine if row[which] == value]) for value in sorted({row[which] for row in mine})]


def table(found: Sequence[dict[str, Any]]) -> str:
    """Markdown: a line for every value of either sweep."""
    lines = [
        "# The memory's window, the steps recalled, and the memory's latent\n",
        "By `python tools/figure4.py run`, whose --help says how a run is scored. Latents: as the log has them,",
        "`train/recall/latent_mean` and `latent_variance`, at the first and the last look. Commits, hardware and whole curves",
        "are in figure4.jsonl.",
    ]
    for name, mine in groups(found).items():
        lines += [
            f"\n## {name}\n",
            "| tau | eta | runs | score: mean, each run | latent mean, first and last | latent variance, first and last |",
            "|---|---|---|---|---|---|",
        ]
        middle = GRIDS[mine[0]["task"]].middle
        pairs = [(value, middle[1]) for value, _ in swept(mine, "tau")]
        pairs += [(middle[0], value) for value, _ in swept(mine, "eta")]
        for tau, eta in dict.fromkeys(pairs):
            here = [row for row in mine if (row["tau"], row["eta"]) == (tau, eta)]
            each = [row["score"] for row in here]
            score = f"{statistics.mean(each):.3f} ({', '.join(f'{one:.2f}' for one in each)})"
            ends = [
                " to ".join(f"{statistics.mean(row['latent'][at][i] for row in here):.3f}" for at in (0, -1))
                for i in (1, 2)
            ]
            lines.append(f"| {tau} | {eta} | {len(here)} | {score} | {' | '.join(ends)} |")
    return "\n".join([*lines, "\n![Figure 4](figure4.png)"]) + "\n"


def plot(found: Sequence[dict[str, Any]]) -> None:
    """A line of four panels for each group: a, b, c and d of the paper's figure."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    gathered = groups(found)
    figure, grid = pyplot.subplots(len(gathered), 4, figsize=(15, 3.2 * len(gathered)), squeeze=False)
    for panels, (name, mine) in zip(grid, gathered.items(), strict=True):
        for panel, which in zip(panels, ("tau", "eta"), strict=False):
            values = swept(mine, which)
            means = [statistics.mean(row["score"] for row in here) for _, here in values]
            panel.plot([value for value, _ in values], means, color="C0")
            for value, here in values:
                panel.plot([value] * len(here), [row["score"] for row in here], "o", color="C0", markersize=4)
            panel.set(xlabel=which, ylabel="P(right door)" if "doors" in name else "human-normalised score", title=name)
        for panel, at, label in zip(panels[2:], (1, 2), ("latent mean", "latent variance"), strict=True):
            for row in mine:
                curve = row["latent"]
                panel.plot([one[0] for one in curve], [one[at] for one in curve], label=f"{row['tau']}, {row['eta']}")
            panel.set(xlabel="environment steps", ylabel=label)
            panel.locator_params(axis="x", nbins=5)  # more labels would run into each other
        if len(mine) < 12:  # more names would cover the curves
            panels[3].legend(fontsize=7, title="tau, eta", title_fontsize=7)
    figure.tight_layout()
    figure.savefig(ROWS.with_suffix(".png"), dpi=110)
    pyplot.close(figure)


def write() -> None:
    """Page and plot."""
    if found := rows():
        PAGE.write_text(table(found))
        plot(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("tasks", nargs="*", metavar="TASK", default=["toy:doors"])
    parser.add_argument("--tau", type=int, nargs="*")
    parser.add_argument("--eta", type=int, nargs="*")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=0, help="in place of the preset's")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--dry", action="store_true")
    parser.add_argument("--commit", action="store_true")
    asked = parser.parse_intermixed_args()
    tasks = [one for task in asked.tasks for one in (list(GRIDS)[1:] if task == "atari" else [task])]
    if odd := [task for task in tasks if task not in GRIDS]:
        parser.error(f"no sweep is laid out on {odd[0]!r}: it is atari, or one of {', '.join(GRIDS)}")
    if asked.what == "run":
        made = {(row["task"], row["tau"], row["eta"], row["seed"], row["steps"]) for row in rows()}
        left = [cell for cell in cells(tasks, asked.tau, asked.eta, asked.seeds, asked.steps) if cell.key not in made]
        if asked.dry:
            print("\n".join(" ".join(cell.job.command()) for cell in left))
            return
        with alone(RUNS), halting() as halt:
            for outcome in Local(asked.jobs).carry_out([cell.job for cell in left], halt):
                print(outcome.sentence, flush=True)
                if outcome.row is None:
                    continue
                append_row(ROWS, outcome.row["row"])
                write()
                if asked.commit:
                    commit(ROWS.parent.glob("figure4.*"), "a row of figure 4")
    write()
    print(table(rows()))


if __name__ == "__main__":
    try:
        main()
    except SuiteError as error:
        sys.exit(str(error))
