"""LOGDIR.json beside a run: the settings it was begun with, what it has cost over all its processes, and how it ended.

settings; wall_s; spent_s, what of it counts against its limit (`wm_suite.process_time`); done ("whole", "time" where it was ended by its limit, else ""); attempts, the processes that have trained
it; error, the last line of the log of the one that failed, else "".
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wm_suite import durable
from wm_suite.errors import SuiteError
from wm_suite.job import Job
from wm_suite.suites import Cell, several

Diary = dict[str, Any]


def read(job: Job) -> Diary:
    """The diary of a job that may go on, with the settings of the job; a new one where nothing has begun.

    Raises SuiteError for a damaged one, and where the run was begun with other settings: nothing of it may change but
    that more steps are asked for.
    """
    file, kept = job.beside("json"), job.folder / "config.toml"
    new: Diary = {"settings": job.cell.settings, "wall_s": 0.0, "spent_s": 0.0, "done": "", "attempts": 0, "error": ""}
    found = _parsed(file, kept)
    if not kept.exists():  # nothing has begun, whatever the diary says
        return new | {"attempts": found.get("attempts", 0)}
    made = _begun_with(job.cell, found, _config(kept))
    more = longer(job.cell, made)
    if not more and (odd := differing(job.cell, made)):
        raise SuiteError(
            f"was begun with {'; '.join(odd)}: say so in the suite, or move {job.folder} away to begin anew"
        )
    found |= {"spent_s": counted_seconds(found), "settings": job.cell.settings}
    found = new | {name: value for name, value in found.items() if name in new}
    if more or (found["done"] == "time" and found["spent_s"] < 60 * job.minutes):
        found["done"] = ""
    return found


def counted_seconds(found: Mapping[str, Any]) -> float:
    """Seconds of a diary, or of a row, that count against a limit; before these were told apart, all did.

    >>> counted_seconds({"wall_s": 9.0}), counted_seconds({"wall_s": 9.0, "spent_s": 5.0})
    (9.0, 5.0)
    """
    return float(found.get("spent_s", found.get("wall_s", 0.0)))


def write(job: Job, found: Diary) -> None:
    """Raises OSError."""
    durable.write(job.beside("json"), json.dumps(found))


def _parsed(file: Path, kept: Path) -> Diary:
    try:
        found = json.loads(file.read_bytes()) if file.exists() else {}
        whole = isinstance(found, dict) and isinstance(found.get("wall_s", 0.0), (int, float))
        whole = whole and isinstance(found.get("settings", {}), dict)
    except ValueError:
        whole = False
    if not whole and not kept.exists():
        return {}
    if not whole:
        raise SuiteError(f"{file} is damaged: remove it, and {kept} tells what the run was begun with")
    return dict(found)


def _config(kept: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(kept.read_bytes().decode())
    except ValueError as error:
        raise SuiteError(f"{kept} is damaged: {error}") from error


def differing(cell: Cell, made: Mapping[str, Any]) -> list[str]:
    """What the suite says of a run and other settings do not, as "name: theirs, the suite says ours".

    >>> cell = Cell("toy:catch", "r2i", 0, "r2i", "tiny", {"steps": 80})
    >>> differing(cell, {"app": "r2i", "preset": "cpu", "options": {"steps": 40}})
    ["preset: 'cpu', the suite says 'tiny'", 'steps: 40, the suite says 80']
    """
    both = [
        {name: one.get(name, "") for name in ("app", "preset", "ablation")} | dict(one["options"])
        for one in (made, cell.settings)
    ]
    theirs, ours = ({name.replace("-", "_"): value for name, value in one.items()} for one in both)
    names = [name for name in dict.fromkeys([*theirs, *ours]) if theirs.get(name) != ours.get(name)]
    return [f"{name}: {theirs.get(name)!r}, the suite says {ours.get(name)!r}" for name in names]


def longer(cell: Cell, made: Mapping[str, Any]) -> bool:
    """Whether the suite asks for more steps of a run with these settings and for nothing else.

    >>> cell = Cell("toy:catch", "r2i", 0, "r2i", "", {"steps": 80})
    >>> [longer(cell, {"app": "r2i", "preset": "", "options": {"steps": steps}}) for steps in (40, 80, 160)]
    [True, False, False]
    """
    before, now = made["options"].get("steps"), cell.options.get("steps")
    if not isinstance(before, int) or not isinstance(now, int) or now <= before:
        return False
    return not differing(cell, {**made, "options": {**made["options"], "steps": now}})


def _begun_with(cell: Cell, diary: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run that has begun: its diary's. A diary that is lost leaves the config.toml, which says only of the
    suite's options what they were, and of a preset and an ablation not who chose them."""
    origin = config.get("run", {})
    flat = {**config, **origin}
    if "settings" in diary:
        made: dict[str, Any] = {"app": "", "preset": "", "options": {}, **diary["settings"]}
    else:
        options = {name: _as_written(flat.get(name.replace("-", "_")), value) for name, value in cell.options.items()}
        preset = origin.get("preset", "") if cell.preset else ""
        ablation = origin.get("ablation", "")
        made = {"app": origin.get("app", ""), "preset": preset, "ablation": ablation, "options": options}
    if "steps" in cell.options and "steps" not in made["options"]:
        made["options"] = {**made["options"], "steps": flat.get("steps")}  # which a preset gave
    return made


def _as_written(found: Any, asked: Any) -> Any:
    """A field of a config, as the suite writes it where both are the same on the command line.

    >>> _as_written(True, "True"), _as_written(0.5, "0.5"), _as_written(["wandb"], "wandb"), _as_written(3, "4")
    ('True', '0.5', 'wandb', 3)
    """
    return asked if list(map(str, several(found))) == list(map(str, several(asked))) else found
