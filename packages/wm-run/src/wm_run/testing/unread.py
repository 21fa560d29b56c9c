"""The law of what a config says is not read: another value of it changes no weight, at the beginning or after an update."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from torch import Tensor
from wm_core.errors import UserError

from wm_run.app import App
from wm_run.bounds import metadata
from wm_run.cli import parse
from wm_run.config import RunConfig, check, check_together
from wm_run.feed import Feed
from wm_run.loading import build, runtime
from wm_run.loop import Position
from wm_run.offline import fill
from wm_run.recording import Recording
from wm_run.run_replay import run_replay
from wm_run.stand_in import StandIn
from wm_run.teams import team_of
from wm_run.testing.data import random_recording
from wm_run.testing.nursery import Failed
from wm_run.unread import FACTS, Only, facts_of, unread

UNSEEN = frozenset(RunConfig.__dataclass_fields__)  # of loop and commands, which are not run here


def check_unread(app: App, envs: StandIn, config: RunConfig) -> dict[str, tuple[str, ...]]:
    """Hold an app to what its config says of fields that nothing reads, on a recording of its task; which fields were tried,
    by the settings in which nothing reads them. Raises Failed, naming those that are read.

    Every value of a field on which another one depends is tried in turn; then all fields that are not read get other
    values at once, and where that changes a weight, each by itself.
    """
    found: dict[str, tuple[str, ...]] = {}
    facts = facts_of(envs.observation_space, team_of(envs))
    for setting, one in settings(config):
        names = [name for name, lacks in unread(one, facts) if lacks and name not in UNSEEN]
        if not names:
            continue
        found[setting] = tuple(names)
        before = weights(app, one, envs)
        if _same(before, weights(app, varied(one, names), envs)):
            continue
        read = [name for name in names if not _same(before, weights(app, varied(one, [name]), envs))]
        raise Failed(
            f"{app.name} with {setting} reads {', '.join(read or names)}, and its config says that it does not"
        )
    return found


def settings(config: RunConfig) -> Iterator[tuple[str, RunConfig]]:
    """The config, and others with another value of a field on which others depend, where these fit together."""
    yield "its preset", config
    said = metadata(type(config))
    depended = {name for marks in said.values() for mark in marks if isinstance(mark, Only) for name, _ in mark.wanted}
    for name in sorted(depended - set(FACTS) - {"data", "eval_every"}):
        for value in _others(type(config), name, getattr(config, name)):
            one = dataclasses.replace(config, **{name: value})
            try:
                check_together(one)
            except UserError:
                continue
            yield f"{name} {value}", one


def varied(config: RunConfig, names: list[str]) -> RunConfig:
    """The config with another value of each of these."""
    for name in names:
        for value in _others(type(config), name, getattr(config, name)):
            one = dataclasses.replace(config, **{name: value})
            try:
                check(one)
                check_together(one)
            except UserError:
                continue
            config = one
            break
    return config


def _others(kind: type[RunConfig], name: str, value: Any) -> list[Any]:
    hint = typing.get_type_hints(kind)[name]
    if typing.get_origin(hint) is Literal:
        return [one for one in typing.get_args(hint) if one != value]
    if isinstance(value, bool):
        return [not value]
    return [value + 2, value * 2] if isinstance(value, int) else [value / 2 + 0.01, value + 1]


def weights(app: App, config: RunConfig, envs: StandIn) -> Mapping[str, Tensor]:
    """Of a new agent, and of the same after two updates on the recording."""
    config = runtime(config)
    agent = build(app, config, envs)
    begun = {f"new {name}": value.clone() for name, value in agent.state_dict().items()}
    at = Position.begin(agent, envs, seed=config.seed, train_ratio=1.0, replayed=1, first=1)
    notes = agent.act(at.carry, at.step)[2]
    with TemporaryDirectory() as folder:
        replay = run_replay(agent, config, envs.num_envs, Path(folder), online=False)
        fill(replay, envs, notes)
        feed = Feed(replay)
        for _ in range(2):
            agent.learn(feed)
            feed.advance()
    return begun | {name: value.detach().clone() for name, value in agent.state_dict().items()}


def _same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def on_recording(app: App, folder: Path, *options: str) -> tuple[StandIn, RunConfig]:
    """A recording of random play in a task, and the config of a run in it: of the preset tiny, with these options."""
    words = ["--preset", "tiny", "--device", "cpu", *options]
    recording = Recording.open(random_recording(app, folder, words))
    return StandIn(recording), parse(app, ["train", *words]).config
