"""`python -m env_adapters check <task>`, `python -m env_adapters tasks` and `python -m env_adapters meltingpot`."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from env_adapters import meltingpot_home
from env_adapters.audit import audit, table
from env_adapters.errors import Elsewhere, TaskError
from env_adapters.make import tasks


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 usable, 1 an environment that breaks the specification, 2 what cannot be made."""
    started = "uv run" if "UV_RUN_RECURSION_DEPTH" in os.environ else "python"
    parser = argparse.ArgumentParser(prog=f"{started} -m env_adapters", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("tasks", help="names of the built-in tasks and of what installed packages publish")
    commands.add_parser("meltingpot", help="make the Python of its own that Melting Pot's substrates run in")
    check = commands.add_parser("check", help="examine a task, measure it, suggest a preset, estimate a run")
    check.add_argument("task", help="a name as for env_adapters.make, such as dmc_walker_walk or my_module:make")
    check.add_argument("options", nargs="*", metavar="name=value", help="options of the task, such as repeat=4")
    check.add_argument("--steps", type=int, default=200, help="agent steps to play at a time (default 200)")
    check.add_argument("--envs", type=int, default=2, help="environments of the vector form (default 2)")
    check.add_argument("--seed", type=int, default=0)
    check.add_argument("--json", action="store_true", help="findings and numbers for programs")
    given = parser.parse_args(arguments)
    if given.command == "tasks":
        print("\n".join(tasks()))
        return 0
    try:
        if given.command == "meltingpot":
            meltingpot_home.make()
            return 0
        if given.steps < 4 or given.envs < 1 or given.seed < 0:
            raise TaskError("--steps is at least 4, --envs at least 1, --seed at least 0")
        options = dict(_option(one) for one in given.options)
        found = audit(given.task, steps=given.steps, envs=given.envs, seed=given.seed, **options)
    except Elsewhere as error:
        again = [sys.executable, "-m", "env_adapters", *(sys.argv[1:] if arguments is None else arguments)]
        return subprocess.run(again, env=os.environ | error.variables, check=False).returncode
    except TaskError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if given.json:
        findings = [vars(one) for one in found.findings]
        print(json.dumps({"task": found.task, "passed": found.passed, "findings": findings, **found.numbers}))
    else:
        print(table(found))
    return 0 if found.passed else 1


def _option(text: str) -> tuple[str, Any]:
    """`repeat=4` -> ("repeat", 4); what is no number, true, false or null stays text."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise TaskError(f"an option of a task is written name=value, not {text!r}")
    if name in ("steps", "envs", "seed"):
        raise TaskError(f"{name} is written --{name}")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


if __name__ == "__main__":
    sys.exit(main())
