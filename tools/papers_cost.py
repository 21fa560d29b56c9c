"""What the papers' suites take: updates, FLOPs and bytes of every kind of run, by shapes alone, and their sums.

papers_cost.py count [SUITE ...]    rows of docs/results/papers.jsonl for kinds that have none; a kind takes 10 to 35 s of a core
papers_cost.py count --dry          how many those are
papers_cost.py table                the table in docs/results/papers.md, from the rows

A kind are runs of one network, learned equally long, on tasks of one suite of environments: games of Atari differ in a few
actions, and the first stands for all. It is named by the numbers in which its config differs from its app's defaults, less those
on which what a run takes does not depend, so that a field that is new since keeps the rows that there are. FLOPs: 2 for a multiply-add in products, convolutions and attention, of updates alone. Hours stand
nowhere before a card has measured that very network (docs/results/gpu.jsonl).

SMAC wants its packages, SMACv2's code and StarCraft II: `SMACV2_SOURCE=FOLDER uv run --with pysc2 tools/papers_cost.py count`.
Where SC2PATH names no game, the tests' server stands in for it: shapes are those of SMACv2's code, no battle is fought.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import importlib
import json
import os
import runpy
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import papers
import torch
from env_adapters.errors import TaskError
from wm_core.errors import UserError
from wm_run.cost import cost
from wm_run.loading import environments, runtime
from wm_run.machine import describe_environment
from wm_suite import costs, suites
from wm_suite.rows import append_row, read_rows

ROWS = papers.FILE.with_suffix(".jsonl")
CARD = papers.FILE.with_name("gpu.jsonl")
SERVER = Path(__file__).parents[1] / "packages" / "env-adapters" / "tests" / "starcraft_server.py"
BEGIN, END = "<!-- what they take -->\n", "<!-- its end, too -->\n"
# fields of a run that neither its network depends on, nor how many updates it makes, nor its replay
LEFT = frozenset(
    {"seed", "device", "threads", "workers", "timeout", "attempts", "task", "act_temperature", "log_every"}
)
LEFT |= {
    "save_every",
    "keep",
    "milestone_every",
    "eval_every",
    "eval_episodes",
    "eval_acting",
    "eval_envs",
    "tensorboard",
}
LEFT |= {"final_episodes", "final_video", "video_every", "held_out_every", "log", "logdir", "precision", "capture"}
ALONE = ("smac", "smacv2", "smax", "meltingpot")  # suites each of whose tasks has observations and agents of its own


def family(task: str) -> str:
    """Tasks of one take the same, but for some actions.

    >>> family("atari100k_pong"), family("dmc_vision_walker_walk"), family("smac:3m"), family("bsuite_memory_len/3")
    ('atari100k', 'dmc_vision', 'smac:3m', 'bsuite_memory_len')
    """
    suite, _, rest = task.partition(":")
    if rest:
        return task if suite in ALONE else suite
    for known in ("memory_maze", "dmc_vision"):
        if task.startswith(f"{known}_"):
            return known
    return task.partition("/")[0] if task.startswith("bsuite_") else task.partition("_")[0]


def kinds(names: Sequence[str]) -> Iterator[tuple[str, suites.Cell, Any]]:
    """The kind of each run of these suites, with the run and its config."""
    for name in names:
        for cell in suites.read(name).cells:
            config = config_of(cell)
            yield kind_of(cell.app, config, cell.task), cell, config


def config_of(cell: suites.Cell) -> Any:
    """The run's config, with its task and the options of that."""
    options = {key.removeprefix("env."): one for key, one in cell.options.items() if key.startswith("env.")}
    config = dataclasses.replace(papers.config_of(cell), task=cell.task)
    return dataclasses.replace(config, env={**config.env, **options})


def kind_of(app: str, config: Any, task: str) -> str:
    """A name for all runs that take the same: of the config the fields that are not at their defaults."""
    plain = {}
    for one in dataclasses.fields(config):
        default = one.default if one.default_factory is dataclasses.MISSING else one.default_factory()
        if one.name not in LEFT and getattr(config, one.name) != default:
            plain[one.name] = getattr(config, one.name)
    said = json.dumps([app, plain, family(task)], sort_keys=True, default=str)
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def counted(kind: str, cell: suites.Cell, config: Any) -> dict[str, Any]:
    """The row of a kind, by one of its runs; `error` in place of numbers where its environment cannot be had here."""
    app = importlib.import_module(f"{cell.app}.cli").APP
    here = describe_environment()
    row = {
        "kind": kind,
        "app": cell.app,
        "preset": cell.preset,
        "ablation": cell.ablation,
        "options": dict(cell.options),
    }
    row |= {"task": cell.task, "commit": (here["commit"] or "")[:8], "torch": torch.__version__}
    config = runtime(dataclasses.replace(config, device="cpu", workers=0))
    try:
        with closing(environments(app, config, 1)) as envs:
            return row | cost(app, config, envs)
    except (UserError, TaskError) as error:
        return row | {"error": str(error)}


def count(names: Sequence[str], dry: bool = False) -> None:
    """Rows of the kinds that have none."""
    rows = read_rows(ROWS)
    have, failed = ({row["kind"] for row in rows if ("error" in row) == wrong} for wrong in (False, True))
    for kind, cell, config in kinds(names):
        if kind in have:
            continue
        have.add(kind)
        if dry:
            print(cell.app, cell.preset, cell.ablation, cell.task, dict(cell.options))
            continue
        row = counted(kind, cell, config)
        if "error" not in row or kind not in failed:
            append_row(ROWS, row)  # the last row of a kind is the one that counts
        print(cell.app, cell.preset, cell.task, row.get("error", f"{row.get('flops_per_update', 0):.3e}"), flush=True)


@contextmanager
def game() -> Iterator[None]:
    """Whatever plays SMAC: StarCraft II where SC2PATH names it, else the tests' server."""
    if os.environ.get("SC2PATH"):
        yield
        return
    server = runpy.run_path(str(SERVER))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SC2PATH"] = str(server["install"](Path(folder) / "StarCraftII"))
        try:
            yield
        finally:
            del os.environ["SC2PATH"]


def table() -> str:
    """A line for each suite: what its runs take together. Runs that could not be counted are in no sum, and said."""
    rows = {row["kind"]: row for row in read_rows(ROWS)}
    card = read_rows(CARD)
    lines = [
        "| suite | runs | counted | updates | FLOPs of updates | GB of disk | GB of GPU memory, the largest | hours on a card |"
    ]
    lines.append("|---|---|---|---|---|---|---|---|")
    whole = [0.0, 0.0, 0.0]
    for name in papers.of_papers():
        found = [rows.get(kind, {}) for kind, _, _ in kinds([name])]
        known = [row for row in found if "updates" in row]
        flops = float(sum(costs.flops_of(row) for row in known))
        disk = sum(row["disk_bytes"] for row in known) / costs.GIGA
        largest = max((row["vram_bytes"] for row in known), default=0) / costs.GIGA
        hours = [costs.on_a_card(row, card) for row in known]
        total = "not measured" if None in hours or len(known) < len(found) else f"{sum(filter(None, hours)):,.0f}"
        updates = sum(row["updates"] for row in known)
        cells = [f"`{name}`", f"{len(found):,}", f"{len(known):,}"]
        cells += [f"{updates:,}", f"{flops:.2e}", f"{disk:,.0f}", f"{largest:.1f}"] if known else [""] * 4
        lines.append(f"| {' | '.join([*cells, total])} |")
        whole = [whole[0] + len(known), whole[1] + flops, whole[2] + disk]
    missing = sorted({row["error"] for row in rows.values() if "error" in row})
    lines += [
        "",
        f"Together {whole[0]:,.0f} runs counted, {whole[1]:.2e} FLOPs of updates, {whole[2]:,.0f} GB of disk.",
    ]
    lines += [f"Not counted: {one}" for one in missing]
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("count", "table"))
    parser.add_argument("suites", nargs="*", metavar="SUITE")
    parser.add_argument("--dry", action="store_true")
    args = parser.parse_args()
    if args.what == "count":
        with game():
            count(args.suites or papers.of_papers(), args.dry)
        return
    before, _, rest = papers.FILE.read_text().partition(BEGIN)
    papers.FILE.write_text(f"{before}{BEGIN}{table()}{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
