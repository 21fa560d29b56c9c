"""An app without its environment: its agent, random frames, a replay full of them, and the batch its `learn` makes."""

from __future__ import annotations

import dataclasses
import importlib
import math
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from types import SimpleNamespace
from typing import Any, NamedTuple, cast
from unittest import mock

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from wm_core.types import Batch
from wm_run import cli, loading
from wm_run.replay import Replay
from wm_run.teams import Team, team_of

from bench.rows import here


class Case(NamedTuple):
    """An app at one config, and what its environments would show."""

    config: Any
    agent: Any
    spaces: Mapping[str, Any]
    dtypes: Mapping[str, Any]
    action: Any  # an ActionSpec
    team: Team | None = None


def configured(app: str, options: Sequence[str]) -> tuple[Any, Any]:
    """The app as data, and the config of its options: one thread unless they say otherwise. Raises UserError."""
    found = importlib.import_module(f"{app}.cli").APP
    threads = [] if any(option.partition("=")[0] == "--threads" for option in options) else ["--threads", "1"]
    return found, loading.runtime(cli.parse(found, ["info", *options, *threads]).config)


def prepare(app: str, options: Sequence[str], image: int | None = None) -> Case:
    """The agent of an app's options. The environment is asked for its spaces alone. Raises UserError.

    `image` makes every image a square of that side instead of what the environment shows.
    """
    found, config = configured(app, options)
    with closing(loading.environments(found, dataclasses.replace(config, workers=0), 1)) as envs:
        dtypes = {key: value.dtype for key, value in envs.reset(config.seed).items()}
        spaces = dict(envs.observation_space.spaces)
        if image is not None:
            spaces = {key: resized(space, image) for key, space in spaces.items()}
        team = team_of(envs)
        shown = SimpleNamespace(observation_space=gymnasium.spaces.Dict(spaces), action_spec=envs.action_spec)
        if team is not None:
            shown = SimpleNamespace(**vars(shown), agents=team.agents, noop=team.noop, state_size=team.state)
        return Case(config, loading.build(found, config, cast(Any, shown)), spaces, dtypes, envs.action_spec, team)


def resized(space: gymnasium.Space[Any], side: int) -> gymnasium.Space[Any]:
    """A space of images (H, W, C) as one of (side, side, C); any other as it is."""
    if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 3:
        return space
    return gymnasium.spaces.Box(0, 255, (side, side, space.shape[2]), np.uint8)


def records(case: Case, n: int, seed: int = 0) -> Iterator[dict[str, NDArray[Any]]]:
    """Random steps of n environments, without end: every value (n, ...), or (n, N, ...) of teams. About one episode in 100
    steps."""
    rng = np.random.default_rng(seed)
    lead = (n,) if case.team is None else (n, case.team.agents)
    many = math.prod(lead)
    for space in case.spaces.values():
        space.seed(seed)
    first, coming = np.ones(n, np.bool_), np.zeros((*lead, case.action.size), np.float32)
    while True:
        last = rng.random(n) < 0.01
        step = {
            key: np.stack([space.sample() for _ in range(many)]).reshape(*lead, *space.shape)
            for key, space in case.spaces.items()
        }
        begun = first.reshape(n, *[1] * (len(lead) - 1))
        step |= {
            "action": random_actions(case.action, many, rng).reshape(*lead, -1) * ~begun[..., None],
            "reward": rng.standard_normal(lead) * ~begun,
            "first": first,
            "last": last & ~first,
            "terminal": last & ~first & (rng.random(n) < 0.5),
        }
        if case.team is not None:
            step |= beside(case.team, case.action.size, n, rng) | {"action": coming * ~begun[..., None]}
            coming = random_actions(case.action, many, rng).reshape(*lead, -1)
            step["action_mask"] |= coming > 0  # what the next record holds was allowed
        yield {key: value.astype(case.dtypes[key]) for key, value in step.items()}
        first = step["last"]


def beside(team: Team, actions: int, n: int, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    """What a team's record has beside what its agents see, do and earn: random masks that allow something, a few dead."""
    mask = rng.random((n, team.agents, actions)) < 0.5
    mask[..., 0] = True
    found: dict[str, NDArray[Any]] = {"action_mask": mask, "alive": rng.random((n, team.agents)) < 0.9}
    return found if team.state is None else found | {"state": rng.random((n, team.state))}


def random_actions(spec: Any, n: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Random action vectors (n, A): a one-hot for each discrete component, then numbers in [-1, 1]."""
    parts = [np.eye(size, dtype=np.float32)[rng.integers(size, size=n)] for size in spec.discrete]
    return np.concatenate([*parts, rng.uniform(-1, 1, (n, spec.continuous)).astype(np.float32)], 1)


def fill(case: Case, streams: int = 2) -> Replay:
    """A replay in memory whose streams are longer than the past of a row and two rows."""
    agent, length = case.agent, case.config.length
    past = max(agent.stores.values(), default=0)
    steps, source = past + 2 * length, records(case, streams)
    replay = Replay(None, streams, stores=agent.stores, limit_bytes=2**40, chunk=steps, length=length, online=False)
    carry, notes = agent.initial(streams), []
    for t, step in zip(range(steps), source, strict=False):
        if t < 4:  # acting on every one of them would take longer than what is to be measured
            carry, _, noted = agent.act(carry, step)
            notes.append(noted)
        replay.add({**step, **notes[t % 4]})
    return replay


def batches_of(case: Case) -> tuple[Batch, ...]:
    """All that the app's own `learn` hands to its `update`. One update is made of it."""
    with mock.patch.object(case.agent, "update", wraps=case.agent.update) as update:
        case.agent.learn(fill(case))
    given: tuple[Batch, ...] = update.call_args_list[0].args
    return given


def about(case: Case, app: str) -> dict[str, Any]:
    """What a number of it needs beside it to mean something."""
    return here() | {
        "app": app,
        "task": case.config.task,
        "parameters": case.agent.parameters_by_module()["total"],
        "device": str(case.agent.device),
        "precision": case.agent.precision,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "config": dataclasses.asdict(case.config),
    }


def waiting(device: torch.device) -> Callable[[], object]:
    """What returns when the device has done what it was asked for."""
    return (lambda: torch.cuda.synchronize(device)) if device.type == "cuda" else lambda: None
