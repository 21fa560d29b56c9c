"""A mapping of numbers -> a JSON file that is whole on the disk before it has its name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wm_run import durable


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    durable.make_folder(path.parent)
    durable.write(path, json.dumps(value, indent=1) + "\n")


def plain_json(value: Mapping[str, Any]) -> dict[str, Any]:
    """Plain JSON of a mapping with numpy numbers and tuples in it."""

    def plain(one: Any) -> Any:
        return one.item() if isinstance(one, np.generic) else list(one) if isinstance(one, tuple) else str(one)

    return dict(json.loads(json.dumps(value, default=plain)))
