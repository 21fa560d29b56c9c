"""`publish LOGDIR`: a run's last checkpoint -> weights, memory, config, protocol and card in a folder, or on a hub."""

from __future__ import annotations

import dataclasses
import json
import shlex
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from wm_core.errors import UserError

from wm_run import agents, card, evaluation, inference, published, scoring
from wm_run.config import MACHINE, marked
from wm_run.configs import write_run
from wm_run.loading import Loaded, has_world, restore
from wm_run.published import ABOUT, CARD, CONFIG
from wm_run.results import plain_json
from wm_run.rollout import remembered, rows_of
from wm_run.toml import to_toml

if TYPE_CHECKING:
    from wm_run.app import App
    from wm_run.cli import Command
    from wm_run.options import Publish

MEASURED = "of fresh episodes, each seed's as its row in {file} has them"


def publish(app: App, command: Command) -> int:
    """Write the folder, or upload it; prints where it is and how to look at it."""
    options: Publish = command.options
    logdir, to = Path(options.logdir), options.to
    if to.startswith(agents.PRETRAINED):
        raise UserError(
            f"--to {to} is a name for reading: give a folder, pretrained/NAME in a checkout, or hf:ORG/NAME"
        )
    if options.memories < 1:
        raise UserError(
            f"--memories must be at least 1, not {options.memories}: an agent that remembers plays with one"
        )
    changed = evaluation.changed(command.saved, command.config, "publish")
    if odd := [name for name in changed if name not in marked(app.config, MACHINE)]:
        raise UserError(f"--{odd[0]} would be another agent than the run's: `publish` takes it as it is, leave it out")
    again = published.there(logdir)
    if again and not to.startswith(agents.HUB):
        raise UserError(f"{logdir} is published already: give --to hf:ORG/NAME to send it, or copy the folder")
    if to.startswith(agents.HUB):
        from wm_run import hub

        hub.split(to.removeprefix(agents.HUB))  # before time is spent
    about, files, text = _sent_on(logdir) if again else _made(app, command, logdir)
    if to.startswith(agents.HUB):
        whole = dict(files)
        message = f"{about['app']} on {about['task']}, step {about['step']}"
        whole |= {ABOUT: published.described(about, files), CARD: text.encode()}
        commit = hub.sent(to.removeprefix(agents.HUB), whole, message, private=options.private)
        print(f"sent to {to.partition('@')[0]}@{commit}")
        where = to
    else:
        folder = Path(to) if to else logdir / "published"
        published.write(folder, about, files, text)
        for path in sorted(folder.iterdir()):
            print(f"{path.stat().st_size:>10,}  {path}")
        where = shlex.quote(str(folder))
    verb = "play" if card.facts(text).get("world_model", True) else "eval"  # which a learner without one does not
    print(f"next: {command.program} {verb} {where}")
    return 0


def _sent_on(folder: Path) -> tuple[dict[str, Any], dict[str, bytes], str]:
    """A folder that was published before, as it is."""
    about = published.checked(folder)
    files = {name: published.content(folder, name, facts["bytes"]) for name, facts in about["files"].items()}
    try:
        text = published.content(folder, CARD, published.LONGEST).decode()
    except ValueError as error:  # no text, or no file
        raise UserError(f"{folder / CARD} is missing or no card: publish the run anew") from error
    card.facts(text)
    return {name: value for name, value in about.items() if name not in ("format", "files", "seal")}, files, text


def _made(app: App, command: Command, logdir: Path) -> tuple[dict[str, Any], dict[str, bytes], str]:
    """What agent.json says beside format and files; the files; the card."""
    options, saved, origin = command.options, command.saved, command.origin
    assert saved is not None
    if not saved.task:
        raise UserError(
            f"{logdir} has learned from a recording of no known environment, and an agent is loaded with its environment: "
            "there is nothing to publish that could be played"
        )
    ran = _ran(logdir)
    rows = card.of_rows(Path(options.rows), app, saved, origin) if options.rows else None  # before time is spent
    loaded = restore(app, logdir, command.config)
    measured = MEASURED.format(file=Path(options.rows).name)
    if rows is None:
        rows, measured = card.of_evaluation(logdir, saved, loaded.step, ran["commit"])
    protocol = plain_json({"task": saved.task, **loaded.protocol})
    count = (
        min(options.memories, loaded.environments) if scoring.remembers(app, saved) and loaded.carry is not None else 0
    )
    memory = remembered(loaded.carry, count, rows_of(loaded.agent)) if count else None
    files, structure = inference.files(loaded.agent.state_dict(), memory)
    stated = dataclasses.replace(saved, data="", init_from="")  # places of this machine
    files[CONFIG] = to_toml(write_run(app, stated, origin)).encode()
    about = {
        "app": app.name,
        "version": app.version,
        "wm_run": version("wm-run"),
        "step": loaded.step,
        "task": saved.task,
        "protocol": protocol,
        "spaces": spaces(loaded),
        "environments": count,
        "memory": structure,
    }
    facts: dict[str, Any] = {
        "library_name": "wm-run",
        "license": options.licence,
        "tags": ["reinforcement-learning", "world-model", app.name],
        **{name: about[name] for name in ("app", "version", "task", "protocol", "step")},
        "module": app.module,
        "seed": saved.seed,
        **({"memories": count, "memories_of": loaded.environments} if count else {}),
        "world_model": has_world(loaded.agent),
        "parameters": loaded.agent.parameters_by_module()["total"],
        "scores": rows,
        "measured": measured,
        "command": card.command(app, saved, origin),
        **ran,
    }
    facts = plain_json(facts | ({"model-index": listed} if (listed := card.index(facts)) else {}))
    return about, files, card.written(facts, card.prose(facts))


def spaces(loaded: Loaded) -> dict[str, Any]:
    """Of one agent: shapes and dtypes of what it sees, and the width of what it does; how many of them there are."""
    seen = {
        name: {"shape": list(space.shape), "dtype": str(np.dtype(space.dtype))}
        for name, space in sorted(loaded.observation_space.spaces.items())
    }
    return {"observation": seen, "action": loaded.action_size, "agents": loaded.team.agents if loaded.team else None}


def _ran(logdir: Path) -> dict[str, Any]:
    """Commit and hardware of the run's last start, as far as env.json tells; what it says of paths stays here."""
    try:
        environment = json.loads((logdir / "env.json").read_text(encoding="utf-8"))
        machine = environment["hardware"]
        names = [*machine["gpus"], f"{machine['cores']} cores of {machine['cpu']}"]
        return {"commit": environment["commit"], "hardware": ", ".join(map(str, names))}
    except (OSError, ValueError, KeyError, TypeError):
        return {"commit": None, "hardware": None}
