"""info: the resolved config, parameters, and what a run takes here; and what `train` says of that before it begins."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from contextlib import closing
from typing import Any

from wm_run import stand_in, unread
from wm_run.app import App
from wm_run.cli import Command, mistaken
from wm_run.config import RunConfig
from wm_run.configs import resolve, write_run
from wm_run.cost import cost
from wm_run.estimate import estimate, sentence, sentence_or_reason
from wm_run.loading import build, environments, played, runtime
from wm_run.options import Info
from wm_run.recording import Recording
from wm_run.results import plain_json
from wm_run.rough import Rough
from wm_run.stop import say
from wm_run.teams import team_of
from wm_run.trust import on_a_strangers_word


def info(app: App, command: Command) -> int:
    """The resolved config, parameters per module, and what the run takes on this machine."""
    options: Info = command.options
    command, recording = stand_in.settle(app, command)
    config = runtime(command.config)
    with (
        on_a_strangers_word(command.strange),
        closing(played(app, dataclasses.replace(config, workers=0), 1, recording)) as envs,
    ):
        unread.tell(app, config, command.given, envs.observation_space, team_of(envs))
        with Rough():  # as many, and nobody acts with them
            parameters = build(app, config, envs).parameters_by_module()
        protocol = plain_json({"task": config.task, "repeat": envs.repeat, **envs.protocol})
        numbers = plain_json((cost if options.count else estimate)(app, config, envs))
    if options.json:
        result = {"app": app.name, "version": app.version, "config": write_run(app, command.config, command.origin)}
        print(json.dumps(result | {"parameters": parameters, "protocol": protocol, "estimate": numbers}))
        return 0
    if command.origin.note:
        say(command.origin.note)
    print(f"{app.name} {app.version}: {app.method}")
    _table("config", {name: value for name, value in dataclasses.asdict(command.config).items()})
    _table("parameters", {name: f"{count:,}" for name, count in parameters.items()})
    _table("protocol", protocol)
    _table(
        "estimate", {name: f"{value:,.6g}" if isinstance(value, float) else value for name, value in numbers.items()}
    )
    print(f"\nthis run takes {sentence(numbers)}")
    return 0


def _table(title: str, values: Mapping[str, Any]) -> None:
    print(f"\n{title}")
    width = max(map(len, values), default=0)
    for name, value in values.items():
        print(f"  {name:<{width}}  {value}")


def say_what_it_takes(app: App, command: Command, config: RunConfig, recording: Recording | None) -> None:
    """What this run takes, and then the paper's setting: where the preset was chosen for the user."""
    with closing(played(app, dataclasses.replace(config, workers=0), 1, recording)) as envs:
        say(f"this run takes {sentence_or_reason(app, config, envs)}")
    if recording is not None:  # the paper's setting is of another task
        return
    if command.origin.preset == app.paper or app.paper not in app.files("presets"):
        return
    paper = resolve(app, app.paper, command.origin.size, command.origin.ablation)
    full = runtime(dataclasses.replace(paper, device=config.device, threads=0, workers=0))
    try:
        with closing(environments(app, full, 1)) as envs:
            say(f"the full setting would take {sentence_or_reason(app, full, envs)}")
    except ModuleNotFoundError as error:
        say(f"the full setting needs the module {error.name}")
    except Exception as error:
        if not mistaken(app, error):
            raise
        say(f"the full setting cannot be tried here ({error})")
