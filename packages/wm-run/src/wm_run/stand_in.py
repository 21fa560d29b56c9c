"""A recording in the place of a run's environments: their spaces and their streams, and nobody who could be acted upon.

What a run takes from its environments beside their steps (spaces, protocol, a team, how many streams there are) it takes
from here, so that no environment is made. Sizes: n streams, T steps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from wm_core.errors import UserError

from wm_run.configs import resolve
from wm_run.recording import FACTS, Recording
from wm_run.trust import strange

if TYPE_CHECKING:
    from wm_run.app import App
    from wm_run.cli import Command

MASK = "action_mask"
OF_A_TEAM = (MASK, "alive")  # entries that the apps of teams read


class StandIn:
    """A recording as `Environments` that cannot be stepped. Raises UserError for records that say too little of a team, or
    more of a single agent than any app would obey."""

    failure = ""

    def __init__(self, recording: Recording) -> None:
        train, about = recording.part("train"), recording.about
        self.recording = recording
        self.num_envs, self.repeat = train.streams, about.repeat
        self.observation_space, self.action_space, self.action_spec = (
            about.observation_space,
            about.action_space,
            about.action,
        )
        self.sources, self.views, self.unseen = about.sources, about.views, about.unseen
        self.cut = np.zeros(self.num_envs, np.bool_)
        if about.team is not None:
            self.agents, self.noop, self.state_size = about.team.agents, about.team.noop, about.team.state
            if lacking := [name for name in OF_A_TEAM if name not in train.keys]:
                raise UserError(
                    f"the records in {recording.folder} lack {' and '.join(lacking)}, which every record of a team needs: "
                    "record it with them (all True where they mean nothing)"
                )
        elif MASK in train.keys:
            raise UserError(
                f"the records in {recording.folder} have masks of what may be chosen, and no app obeys those of a single "
                "agent: record it without them, or as a team of one"
            )

    @property
    def protocol(self) -> Mapping[str, Any]:
        return self.recording.protocol

    @property
    def records(self) -> int:
        """To learn from, of all streams."""
        return self.recording.part("train").position * self.num_envs

    def blocks(self, part: str = "train") -> Iterator[dict[str, NDArray[Any]]]:
        """The records of a part in order, in stretches (n, T, ...), without what is told to probes alone."""
        for block in self.recording.blocks(part):
            yield {name: value for name, value in block.items() if not name.startswith(FACTS)}

    def reset(self, seed: int) -> dict[str, NDArray[Any]]:
        """The first records, whatever the seed."""
        return {name: value[:, 0].copy() for name, value in next(self.blocks()).items()}

    def step(self, action: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """Raises UserError: nobody can act in it."""
        raise UserError(
            f"nothing can be played in the recording {self.recording.folder}: where there is an environment of its spaces, "
            "name it with --task"
        )

    def send(self, action: NDArray[np.float32]) -> None:
        self.step(action)

    def receive(self) -> dict[str, NDArray[Any]]:
        return self.step(np.zeros(0, np.float32))

    def state(self) -> dict[str, Any]:
        return {"recording": self.recording.checksum}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Raises UserError where `state` is of another recording, or of environments."""
        if state.get("recording") != self.recording.checksum:
            raise UserError(f"the checkpoint is of a run that learned from something else than {self.recording.folder}")

    def take_faults(self) -> list[str]:
        return []

    def close(self) -> None:
        """There is nothing to close."""


def settle(app: App, command: Command) -> tuple[Command, Recording | None]:
    """What was asked, with what the recording says of it: task, options of the task, checksum. (None without `--data`.)

    A task that a preset names is not the user's; one that he names is, and stands where the recording knows none. Raises
    UserError for another task than the recording's, another recording than the run began with, bytes that are not what was
    recorded, and for an app or numbers that learn from none.
    """
    config, saved = command.config, command.saved
    if saved is None and config.data_checksum:
        raise UserError("data_checksum is filled in by a run that learns from --data: leave it out")
    if saved is not None and bool(saved.data_checksum) != bool(config.data):
        began = f"from the recording {saved.data}" if saved.data else "in its environments"
        raise UserError(f"this run began {began}, and so it goes on: give another --logdir for another run")
    if not config.data:
        return command, None
    if not app.recordings:
        raise UserError(
            f"{app.name} learns from what it has just played itself, and a recording is nobody's play of now: leave out "
            "--data, or take an app with a world model"
        )
    if config.train_ratio <= 0:
        raise UserError(
            "learning from --data alone needs a --train-ratio above 0: it says how many updates --steps are"
        )
    recording = Recording.open(config.data)
    if saved is not None and recording.checksum != saved.data_checksum:
        raise UserError(
            f"{config.data} is not the recording that this run began with: name that one with --data, or take the weights "
            "into a new run with --init-from"
        )
    if saved is None:
        config = dataclasses.replace(config, **_of_the_task(app, command, recording))
        recording.verify()  # all of it is read once anyway; a run that goes on has a replay of its own
        if (config.task, config.env) != (command.config.task, command.config.env):  # the recording's word
            command = dataclasses.replace(command, strange=strange(app.environments, config))
    place = str(Path(config.data).absolute())
    config = dataclasses.replace(config, data=place, data_checksum=recording.checksum)
    return dataclasses.replace(command, config=config), recording


def _of_the_task(app: App, command: Command, recording: Recording) -> dict[str, Any]:
    """Task and options of a new run. Who calls from Python has typed no words: what differs from the preset is his."""
    config, origin = command.config, command.origin
    task, options = recording.task, dict(recording.about.options)
    preset = resolve(app, origin.preset, origin.size, origin.ablation)
    words = [word.partition("=")[0] for word in command.argv]
    named = "--task" in words or config.task != preset.task
    own = [word for word in words if word.startswith("--env.")]
    own += [f"--env.{name}" for name in config.env if config.env != preset.env]
    if named and task and config.task != task:
        raise UserError(
            f"{recording.folder} is a recording of {task}, not of {config.task}: leave out --task, or name another recording"
        )
    if own and task and config.env != options:
        raise UserError(f"{recording.folder} was recorded with the options {options} of {task}: leave out {own[0]}")
    if task:
        return {"task": task, "env": options}
    return {"task": config.task if named else "", "env": config.env if own else {}}
