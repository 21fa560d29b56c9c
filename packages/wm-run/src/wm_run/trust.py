"""Whether the code that a task names may be run: what this account asked for itself is, what a folder says is not.

`my_env:Walk` imports a module and calls it, with the options of the task as its arguments; `subprocess:getoutput` is such a
name, too. Typed by the user it is the user's word. A config.toml, a published agent's or a recording's is a file's: then
the same task, with the same options and the same module's file, must have been asked for here before, which a list outside
of all run folders says ($XDG_STATE_HOME/wm-run/tasks.jsonl, else ~/.local/state/wm-run), or the user says `--trust`. A list
of names, no signature in the run folder: it can be read, and lines can be taken out.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wm_run.tasks import Tasks

if TYPE_CHECKING:
    from wm_run.config import RunConfig

TRUST = "ENV_ADAPTERS_TRUST"  # read where a task's module is imported: see env_adapters.modules; workers inherit it
_said = set[str]()  # lines of tasks that this process was given as a class or a function, see `hold`


def asked_for() -> Path:
    """The list of the tasks that this account asked for: a line for each."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "wm-run" / "tasks.jsonl"


def strange(environments: Any, config: RunConfig) -> bool:
    """Whether the task of a config that a file holds names code that this account never asked for. environments: who makes
    them, of which `Tasks` alone know tasks that name code."""
    line = _line(environments, config)
    if line is None:
        return False
    if line in _said:
        return False
    try:
        return line not in asked_for().read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError, RuntimeError):  # the last of an account without a home
        return True


def unsaid(environments: Any, saved: RunConfig, change: Callable[[RunConfig], RunConfig]) -> bool:
    """The same, unless the user says the task, and all options of it, anew. change: what the user makes of a config."""
    if not strange(environments, saved):
        return False
    given, said = change(saved), change(replace(saved, task="", env={}))
    return (given.task, given.env) != (said.task, said.env)


def remember(environments: Any, config: RunConfig) -> str:
    """Note that this account asked for the task; gives a sentence where that cannot be written, else ""."""
    line = _line(environments, config)
    if line is None or not strange(environments, config):
        return ""
    where = "the list of tasks asked for"
    try:
        path = asked_for()
        where = str(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
    except (OSError, RuntimeError) as error:  # the latter of an account without a home
        return (
            f"{where} cannot be written ({getattr(error, 'strerror', None) or error}), so later commands on this run ask for its task again: give "
            f"them --task {config.task}, or --trust"
        )
    return ""


def hold(environments: Any, config: RunConfig) -> None:
    """Note that this process was given the task itself, as the class or function that its name names: `__main__:Walk` of a
    notebook is code that runs already. Of another process it says nothing, so it is written nowhere."""
    line = _line(environments, config)
    if line is not None:
        _said.add(line)


def _line(environments: Any, config: RunConfig) -> str | None:
    """A task as the list holds it; None of one that names no code."""
    if not config.task or not isinstance(environments, Tasks):
        return None
    code = environments.code_of(config.task)
    if code is None:
        return None
    options: Mapping[str, Any] = config.env
    return json.dumps({"task": config.task, "env": options, "code": code}, sort_keys=True, default=str)


@contextmanager
def on_a_strangers_word(stranger: bool) -> Iterator[None]:
    """Inside, a task imports no module that its name names; unless the user said that they trust it (`--trust`).

    >>> with on_a_strangers_word(True):
    ...     os.environ[TRUST]
    '0'
    """
    before = os.environ.get(TRUST)
    if not stranger or before == "1":
        yield
        return
    os.environ[TRUST] = "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ[TRUST]
        else:
            os.environ[TRUST] = before
