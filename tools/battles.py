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
from wm_suite.suites import Cell

ROOT = Path(__file__).resolve().parents[1]
ROWS = ROOT / "docs" / "results" / "battles.jsonl"
PAGE = ROWS.with_suffix(".md")
MEASURE = "wm_run.measures:logged"
EPISODES = 128
RATES = (0.02, 0.05, 0.1, 0.2)  # win rates whose cost is told
DRAWN = "dmawm horizon 10, masks drawn"
TEN, MASKS = ("--horizon", 10), ("--masks", "sample")
ARMS: dict[str, tuple[Any, ...]] = {
    "mappo": ("mappo", "--preset", "smax"),
    "mappo of the paper": ("mappo", "--preset", "paper"),
    "ippo": ("mappo", "--preset", "smax", "--ablation", "ippo"),
    "mat": ("mappo", "--preset", "smax", "--ablation", "mat"),
    "dmawm": ("dmawm", "--preset", "smax"),
    "po_dreamer": ("po_dreamer", "--preset", "smax"),
    "Dreamer*": ("po_dreamer", "--preset", "smax", "--ablation", "co-only"),
    "po_dreamer decentralised": ("po_dreamer", "--preset", "smax", "--policy", "decentralised"),
    "po_dreamer this-episode": ("po_dreamer", "--preset", "smax", "--ablation", "this-episode"),
    "dmawm model x4": (
        *("dmawm", "--preset", "smax", "--model_updates", 4),
        *("--train_ratio", 128, "--first_updates", 113, "--model_first", 113),  # as many updates of the policy as dmawm
    ),
    # as preset smax was before: its rows of then have these names
    DRAWN: ("dmawm", "--preset", "smax", *TEN, *MASKS),
    **{
        f"{DRAWN}, {name}": ("dmawm", "--preset", "smax", "--ablation", name, *TEN, *MASKS)
        for name in ("tc", "ip", "as", "continue_at_death", "communicating")
    },
    "dmawm masks drawn": ("dmawm", "--preset", "smax", *MASKS),
    "dmawm horizon 10": ("dmawm", "--preset", "smax", *TEN),
    "dmawm floor 0.1": ("dmawm", "--preset", "smax", "--advantage_floor", 0.1, *TEN, *MASKS),
    "po_dreamer floor 0.1": ("po_dreamer", "--preset", "smax", "--advantage_floor", 0.1),
    "Dreamer* floor 0.1": ("po_dreamer", "--preset", "smax", "--ablation", "co-only", "--advantage_floor", 0.1),
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
    def job(self) -> Job:
        """Its run, as a suite would have it."""
        app, *words = ARMS[self.arm]
        named = dict(zip(words[::2], words[1::2], strict=True))
        options: dict[str, Any] = {
            "steps": self.steps, "eval_every": self.every, "threads": 1, "eval_episodes": EPISODES, "eval_envs": 64,
            "eval_acting": "mode", "final_episodes": 0, "final_video": False,
        }  # fmt: skip
        preset, ablation = named.pop("--preset"), named.pop("--ablation", "")
        options |= {word.removeprefix("--"): value for word, value in named.items()}
        cell = Cell(self.task, self.arm, self.seed, app, preset, options, ablation, MEASURE)
        name = f"{self.task}-{self.arm}-{self.seed}-{self.steps}"
        folder = "".join(c if c.isalnum() or c in "-_" else "_" for c in name)
        one = {"OMP_NUM_THREADS": "1"}
        return Job("battles", cell, f"runs/battles/{folder}", math.inf, "evaluations", str(ROOT), environment=one)


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


def row_of(battle: Battle, found: Mapping[str, Any]) -> dict[str, Any]:
    """Of a run's row as a suite has it, the row of this file. played: win rate and score of the last tenth's training episodes,
    of sampled actions."""
    won = found["evaluations_of"]["won"]
    same = {"commit": found["commit"], "hardware": found["hardware"]}
    seconds = {"spent": found["spent"]} if "spent" in found else {}
    more = {"scores": found["evaluations"]} if "evaluations" in found else {}
    if "training_of" in found:
        more["played"] = [round(statistics.mean(one), 4) for one in (found["training_of"]["won"], found["training"])]
    return dataclasses.asdict(battle) | summary(won) | {"evaluations": won} | more | seconds | same


def write(row: dict[str, Any]) -> None:
    append_row(ROWS, row)
    PAGE.write_text(table(rows()))


def table(found: Sequence[dict[str, Any]]) -> str:
    """Rows as Markdown: a line for each task, arm and number of steps, means over seeds and each seed."""
    lines = [
        "# Win rates of teams\n",
        f"By `python tools/battles.py run`; an evaluation is {EPISODES} greedy episodes. Each cell: the mean over seeds, and",
        "each seed. Score: of the last three evaluations; sampled: win rate and score of the last tenth's training episodes, whose",
        "actions are samples; - where they were not kept. Commits and hardware are in battles.jsonl.\n",
        "| task | arm | steps | last three | last five | area under the curve | score | sampled: won | score |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for key in dict.fromkeys((row["task"], row["arm"], row["steps"]) for row in found):
        mine = [row for row in found if (row["task"], row["arm"], row["steps"]) == key]
        cells = []
        for name in ("last_3", "last_5", "area"):
            each = [row[name] for row in mine]
            cells.append(f"{statistics.mean(each):.3f} ({', '.join(f'{one:.2f}' for one in each)})")
        scored = [statistics.mean(score for _, score in row["scores"][-3:]) for row in mine if "scores" in row]
        cells.append(", ".join(f"{one:.2f}" for one in scored) or "-")
        for at in (0, 1):
            cells.append(", ".join(f"{row['played'][at]:.2f}" for row in mine if "played" in row) or "-")
        lines.append(f"| {key[0]} | {key[1]} | {key[2]:,} | {' | '.join(cells)} |")
    return "\n".join([*lines, *prices(found)]) + "\n"


def prices(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a win rate costs, the paper's Figure 9 in CPU seconds, of the rows that say what was spent: the first evaluation
    that reaches it, of every seed."""
    priced = [row for row in found if "spent" in row]
    if not priced:
        return []
    lines = [
        "\n## What a win rate costs\n",
        "CPU seconds of the run's process (evaluations and films included) until an evaluation first reaches a rate, each seed;",
        "- where none does. All one thread each; those of different commits may come from different machines, more or less busy.\n",
        f"| task | arm | steps | {' | '.join(f'{rate:.0%}' for rate in RATES)} | whole run |",
        f"|---|---|---|{'---|' * len(RATES)}---|",
    ]
    for key in dict.fromkeys((row["task"], row["arm"], row["steps"]) for row in priced):
        mine = [row for row in priced if (row["task"], row["arm"], row["steps"]) == key]
        cells = [", ".join(price(row, rate) for row in mine) for rate in RATES]
        whole = ", ".join(f"{row['spent'][-1][1]:,.0f}" for row in mine)
        lines.append(f"| {key[0]} | {key[1]} | {key[2]:,} | {' | '.join(cells)} | {whole} |")
    return lines


def price(row: Mapping[str, Any], rate: float) -> str:
    """
    >>> price({"evaluations": [[1, 0.0], [2, 0.3]], "spent": [[1, 10.0], [2, 20.4]]}, 0.2)
    '20'
    """
    at = dict(map(tuple, row["spent"]))
    return next((f"{at[step]:,.0f}" for step, won in row["evaluations"] if won >= rate and step in at), "-")


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
        left = [battle for battle in wanted if battle.key not in made]
        of = {battle.job.cell.key: battle for battle in left}
        with alone(ROOT / "runs" / "battles"), halting() as halt:
            for outcome in Local(asked.jobs).carry_out([battle.job for battle in left], halt):
                print(outcome.sentence, flush=True)
                if outcome.row is None:
                    continue
                write(row_of(of[outcome.cell.key], outcome.row))
                if asked.commit:
                    commit((ROWS, PAGE), "a row of battles")
    print(table(rows()))


if __name__ == "__main__":
    try:
        main()
    except SuiteError as error:
        sys.exit(str(error))
