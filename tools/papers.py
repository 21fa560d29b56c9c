"""The papers' suites as a table: papers.py prints it, papers.py --write puts it into docs/results/papers.md.

What each holds: which table of which paper, methods, tasks, seeds, runs, and environment steps in all. `wm-suite plan NAME` lists
the runs of one.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from wm_run.configs import overlay, resolve
from wm_suite import suites

FILE = Path(__file__).resolve().parents[1] / "docs" / "results" / "papers.md"
PAPERS = {"po_dreamer": "PO-Dreamer", "var": "Var", "r2i": "R2I", "dmawm": "DMAWM"}
BEGIN, END = "<!-- the table -->\n", "<!-- its end -->\n"


def config_of(cell: suites.Cell) -> Any:
    """The config that the run would have. Raises UserError for a preset, ablation or option that its app has not."""
    return _config(
        cell.app, cell.preset, cell.ablation, tuple((name, _still(one)) for name, one in cell.options.items())
    )


@cache
def _config(app: str, preset: str, ablation: str, options: tuple[tuple[str, Any], ...]) -> Any:
    values = {name.replace("-", "_"): value for name, value in options if not name.startswith("env.")}
    size = str(values.pop("size", ""))
    config = resolve(importlib.import_module(f"{app}.cli").APP, preset, size, ablation)
    return overlay(config, values, f"{app} {preset}")


def _still(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def of_papers() -> list[str]:
    """Names of the suites that are tables of papers."""
    return [name for name in suites.shipped() if name.partition("-")[0] in PAPERS]


def about(name: str) -> str:
    """The comment that the suite's file begins with, as one paragraph."""
    text = (resources.files("wm_suite") / "suites" / f"{name}.toml").read_text("utf-8")
    lines = text.split("\n")
    return " ".join(line.removeprefix("#").strip() for line in lines[: [line[:1] for line in lines].index("t")])


def rows(name: str) -> Mapping[str, str]:
    """The line of one suite."""
    suite = suites.read(name)
    seeds = {cell.seed for cell in suite.cells}
    steps = sum(int(config_of(cell).steps) for cell in suite.cells)
    return {
        "suite": f"`{name}`",
        "what": about(name).partition(":")[0],
        "methods": ", ".join(suite.arms) if len(suite.arms) < 6 else f"{len(suite.arms)}, of which {suite.arms[0]}",
        "tasks": str(len(suite.tasks)),
        "seeds": str(len(seeds)),
        "runs": str(len(suite.cells)),
        "environment steps": f"{steps:,}",
    }


def table() -> str:
    """Markdown, and what it sums up to."""
    found = [rows(name) for name in of_papers()]
    lines = [f"| {' | '.join(found[0])} |", f"|{'---|' * len(found[0])}"]
    lines += [f"| {' | '.join(row.values())} |" for row in found]
    runs = sum(int(row["runs"]) for row in found)
    steps = sum(int(row["environment steps"].replace(",", "")) for row in found)
    return "\n".join([*lines, "", f"{len(found)} suites, {runs:,} runs, {steps:,} environment steps.", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="into docs/results/papers.md")
    args = parser.parse_args()
    if not args.write:
        print(table())
        return
    before, _, rest = FILE.read_text().partition(BEGIN)
    FILE.write_text(f"{before}{BEGIN}{table()}{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
