"""Rows that stand together -> sentences about what is unlike in them, for the footnotes of a table."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, TypeVar

from wm_suite.groups import differing

Row = Mapping[str, Any]
Place = TypeVar("Place", bound=Hashable)
NEAR = 1.01  # budgets of steps that are called one: the last of several environments' steps may go beyond


def within(rows: Sequence[Row], asked: Mapping[str, Any] | None) -> list[str]:
    """Of seeds that are averaged. asked: the settings that a suite has for them."""
    found = []
    seeds: dict[str, list[str]] = {}
    for row in rows:
        seeds.setdefault(str(row.get("config", "not recorded")), []).append(str(row["seed"]))
    if len(seeds) > 1:
        groups = "; ".join(f"{config} of {', '.join(mine)}" for config, mine in seeds.items())
        found.append(f"seeds of different configurations ({groups})")
    elif len({canonical(row.get("settings")) for row in rows}) > 1:
        found.append("seeds of different settings")
    for row in rows:
        if row.get("ended", "whole") != "whole":
            found.append(f"seed {row['seed']} was ended by its limit of wall time at step {row.get('step', 0):,}")
        made = row.get("settings")
        if asked is not None and isinstance(made, Mapping) and (odd := _unlike(made, asked)):
            found.append(f"seed {row['seed']} was made with other settings than the suite's: {'; '.join(odd)}")
    if (steps := _budgets(rows)) and steps[-1] > NEAR * steps[0]:
        found.append(f"seeds of {' and '.join(f'{step:,}' for step in steps)} steps")
    return found


def budgets(places: Mapping[Place, Sequence[Row]]) -> dict[Place, str]:
    """Of arms on one task, where they learned from different numbers of steps.

    >>> budgets({"a": [{"step": 1000}], "b": [{"step": 1004}]})
    {}
    >>> budgets({"a": [{"step": 1000}], "b": [{"step": 9000}]})["b"]
    'after 9,000 steps, others on this task after 1,000'
    """
    found = {place: max(steps) for place, rows in places.items() if (steps := _budgets(rows))}
    if not found or max(found.values()) <= NEAR * min(found.values()):
        return {}
    return {
        place: f"after {step:,} steps, others on this task after "
        + " or ".join(f"{other:,}" for other in sorted({*found.values()} - {step}))
        for place, step in found.items()
    }


def settings(places: Mapping[Place, Sequence[Row]]) -> dict[Place, str]:
    """Of one arm on several tasks, where it was run with different settings.

    >>> rows = {task: [{"settings": {"app": "r2i", "options": {"length": length}}}] for task, length in (("t", 64), ("u", 128))}
    >>> settings(rows)["u"]
    'other settings than on other tasks: length 128'
    """
    flat = {
        place: _flat(made) for place, rows in places.items() if isinstance(made := rows[0].get("settings"), Mapping)
    }
    names = differing(list(flat.values()))
    return {
        place: f"other settings than on other tasks: {', '.join(f'{name} {word(made[name])}' if name in made else f'{name} not given' for name in names)}"
        for place, made in flat.items()
        if names
    }


def _budgets(rows: Sequence[Row]) -> list[int]:
    """Numbers of steps of runs that came to their end."""
    found = {row.get("step") for row in rows if row.get("ended", "whole") == "whole"}
    return sorted(step for step in found if isinstance(step, int) and step > 0)


def _unlike(made: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """In which settings a row is not the suite's."""
    theirs, ours = _flat(made), _flat(asked)
    names = differing([theirs, ours])
    return [f"{name} {word(theirs.get(name))}, the suite says {word(ours.get(name))}" for name in names]


def _flat(made: Mapping[str, Any]) -> dict[str, Any]:
    options = made.get("options")
    return {name: value for name, value in made.items() if name != "options"} | dict(options or {})


def canonical(value: Any) -> str:
    """A text that equal values share."""
    return json.dumps(value, sort_keys=True, default=str)


def word(value: Any) -> str:
    """A value in a sentence.

    >>> word(None), word("x"), word(0.25), word([1])
    ('none', 'x', '0.25', '[1]')
    """
    return "none" if value is None else value if isinstance(value, str) else json.dumps(value, default=str)
