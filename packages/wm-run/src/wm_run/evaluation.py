"""What an evaluation was of, and which file of LOGDIR/eval it is: <step>.json is the run's own, others say what they are.

A run's own is of the task and of every number of the run; how many episodes does not matter. Where the policy acted by its
mode the file's name says so, also where the run wants it so.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, fields
from typing import Any

from wm_core.errors import UserError

from wm_run.config import CHANCE, MACHINE, TRAINING, RunConfig, marked
from wm_run.options import OPTIONS
from wm_run.task_options import flat

INSTEAD = {  # of a field, options that a command may have, and what to do with them
    "eval_episodes": (("episodes",), "give --episodes"),
    "final_episodes": (("episodes",), "give --episodes"),
    "eval_acting": (("mode", "sample"), "give --mode or --sample"),
}


def changed(
    saved: RunConfig | None, asked: RunConfig, command: str = "eval", acting: Collection[str] | None = None
) -> dict[str, Any]:
    """The fields in which an evaluation, a dream or a play differs from its run. Raises UserError for one that it never
    reads, or that would make another agent than the run's.

    acting: the fields of the method that count where nothing is learned (`App.acting`); None: all that are not for training.

    >>> changed(RunConfig(task="toy:catch"), RunConfig(task="toy:catch", seed=7))
    {'seed': 7}
    >>> changed(RunConfig(), RunConfig(eval_episodes=7))
    Traceback (most recent call last):
    wm_core.errors.UserError: --eval_episodes is for training, and `eval` does not read it: give --episodes
    """
    old, new = {} if saved is None else flat(asdict(saved)), flat(asdict(asked))
    found = {name: new.get(name) for name in (old | new if old else {}) if old.get(name) != new.get(name)}
    for name in marked(type(asked), TRAINING):
        if name in found:
            taken = {one.name for one in fields(OPTIONS[command])}
            options, instead = INSTEAD.get(name, ((), ""))
            instead = instead if options and taken.issuperset(options) else "leave it out"
            raise UserError(f"--{name} is for training, and `{command}` does not read it: {instead}")
    if acting is not None:
        free = {*RunConfig.__dataclass_fields__, *acting, *marked(type(asked), MACHINE, CHANCE)}
        own = {one.name for one in fields(asked)} - free
        if odd := [name for name in found if name in own]:
            raise UserError(f"`{command}` takes --{odd[0]} from the run in LOGDIR: leave it out")
    return found


def file_name(step: int, acting: str, differs: Mapping[str, Any], kind: type[RunConfig] = RunConfig) -> str:
    """The name of a result, `stem`.json."""
    return f"{stem(step, acting, differs, kind)}.json"


def stem(step: int, acting: str, differs: Mapping[str, Any], kind: type[RunConfig] = RunConfig) -> str:
    """<step> for the run's own, else with how it acted and a digest of what else differs: it replaces only its like.

    >>> stem(40, "sample", {"device": "cpu"}), stem(40, "mode", {}), stem(40, "mode", {"seed": 7})
    ('40', '40-mode', '40-mode-5f83350f')
    """
    what = {name: value for name, value in differs.items() if name not in marked(kind, MACHINE)}
    digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:8]
    parts = [str(step), *([acting] if acting != "sample" else []), *([digest] if what else [])]
    return "-".join(parts)
