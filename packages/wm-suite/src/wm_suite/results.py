"""What stands in LOGDIR/eval and LOGDIR/dream: the newest result that is of the run itself, and what cannot be read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wm_suite import foreign
from wm_suite.gather import Logged
from wm_suite.groups import Group


def newest_eval(run: Logged) -> dict[str, Any] | None:
    """The result of the last `eval` of a run, by step, on its own task and protocol; of one step that which acted as the
    run wants it comes first, then that of the run's own seed."""
    wanted = run.config.get("eval_acting", "sample")
    found = [
        ((_step(path), value.get("acting") == wanted, not value.get("changed"), path.stem.isdecimal()), value)
        for path, value in _results(run, "eval")
        if value is not None and same(value, run)
    ]
    return max(found, key=lambda one: one[0])[1] if found else None


def damaged(groups: Sequence[Group]) -> list[str]:
    """A sentence about every result that cannot be read, and is in no report."""
    return [
        f"{path} is damaged and left out: remove it, or run `{kind}` again"
        for one in groups
        for run in one.runs
        for kind in ("eval", "dream")
        for path, value in _results(run, kind)
        if value is None
    ]


def _results(run: Logged, kind: str) -> list[tuple[Path, dict[str, Any] | None]]:
    """The files of LOGDIR/eval or LOGDIR/dream with what they hold, None where that is no result."""
    found: list[tuple[Path, dict[str, Any] | None]] = []
    for path in sorted((run.logdir / kind).glob("*.json")):
        if path.name.startswith("sensitivity-"):
            continue
        try:
            value = foreign.parsed(path.read_bytes()) if path.is_file() else None
        except (ValueError, OSError):
            value = None
        whole = isinstance(value, dict) and (_scored(value) if kind == "eval" else _dreamt(value))
        found.append((path, value if whole else None))
    return found


def _scored(value: Mapping[str, Any]) -> bool:
    return value.get("score") is not None and _numbers([value["score"]])


def _dreamt(value: Mapping[str, Any]) -> bool:
    errors = value.get("error")
    return isinstance(errors, dict) and all(isinstance(row, list) and _numbers(row) for row in errors.values())


def _numbers(values: Sequence[Any]) -> bool:
    """Whether each is a number or null."""
    try:
        return bool([foreign.number(one) for one in values]) or not values
    except foreign.Odd:
        return False


def _step(path: Path) -> int:
    """The step that a file's name begins with.

    >>> _step(Path("400-16f77685.json")), _step(Path("mine.json"))
    (400, -1)
    """
    found = re.match(r"[0-9]+", path.name)
    return int(found[0]) if found else -1


def newest_dream(run: Logged) -> dict[str, Any] | None:
    """The result of the last `dream` of a run, by step, on its own task; of one step its own seed's comes first."""
    found = [
        ((_step(path), path.stem.isdecimal()), value) for path, value in _results(run, "dream") if value is not None
    ]
    mine = [(order, value) for order, value in found if same(value, run)]
    return max(mine, key=lambda one: one[0])[1] if mine else None


def same(result: Mapping[str, Any], run: Logged) -> bool:
    """Whether a result, of any seed and acting, is of this run's task under its protocol, and of the agent as trained.

    Results from before `changed` stood in them are told by task and protocol alone; what one side lacks counts as same.

    >>> run = Logged(Path("a"), {"task": "t"}, {"sticky": 0.25, "repeat": 4}, {}, {})
    >>> same({"task": "t", "protocol": {"sticky": 0.25}, "changed": {"seed": 3}}, run)
    True
    >>> same({"task": "u"}, run), same({"task": "t", "changed": {"horizon": 3}}, run)
    (False, False)
    """
    theirs, differs = result.get("protocol", {}), result.get("changed", {})
    if not isinstance(theirs, Mapping) or not isinstance(differs, Mapping):
        return False
    return (
        result.get("task", run.task) == run.task
        and all(theirs[name] == run.protocol[name] for name in theirs.keys() & run.protocol.keys())
        and differs.keys() <= run.incidental
    )
