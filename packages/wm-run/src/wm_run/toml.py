"""A nested mapping -> TOML. By hand, for a value that is None has to stay to be read, and a list on its line."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wm_run.errors import RunError


def to_toml(values: Mapping[str, Any], section: str = "") -> str:
    """TOML of a nested mapping of plain values. TOML has no null: None is left out, with a comment in its place.

    >>> print(to_toml({"seed": 0, "game": None, "agent": {"lr": 4e-5, "reads": ("deter", "stoch")}}), end="")
    seed = 0
    # game = none
    <BLANKLINE>
    [agent]
    lr = 4e-05
    reads = ["deter", "stoch"]
    """
    lines, tables = [], []
    for key, value in values.items():
        name = key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key, ensure_ascii=False)
        if isinstance(value, Mapping):
            path = f"{section}.{name}" if section else name
            tables.append(f"\n[{path}]\n{to_toml(value, path)}")
        else:
            lines.append(f"# {name} = none\n" if value is None else f"{name} = {_toml(value)}\n")
    return "".join(lines + tables)


def _toml(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (str, Path)):
        return json.dumps(str(value), ensure_ascii=False)
    raise RunError(f"cannot write {value!r} into a config.toml: use numbers, text, lists and tables")
