"""A trained agent -> open loops on held-out frames: errors by horizon, videos, pictures; and films of its policy."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from wm_core.agent import Agent
from wm_core.errors import UserError
from wm_core.observations import is_image
from wm_core.types import Batch, Index, Past

from wm_run import evaluation, filmstrip, sensitivity, unread
from wm_run.app import App
from wm_run.cli import Command
from wm_run.config import RunConfig
from wm_run.drawing import Draw, drawn
from wm_run.loading import build, environments, has_world, restore, with_world
from wm_run.loop import Environments
from wm_run.observer import key_shown
from wm_run.openloop import OpenLoop, openloop
from wm_run.options import Dream
from wm_run.recording import Recording
from wm_run.replay import Replay
from wm_run.results import plain_json, write_json
from wm_run.rollout import rollout
from wm_run.scoring import FRESH, fresh
from wm_run.session import Session
from wm_run.stop import say
from wm_run.traces import traces
from wm_run.video import write_video

STATE = "state"  # of the whole game, in the records of several agents
STOPPED = "the run was told to stop"
FPS = 15.0
VIDEO_STEPS = 500
LONGEST, MOST = 10_000, 1_000  # steps of an open loop, and rows, all of which are played, and predicted at once
DREAM_STREAMS = 4
DREAM_STEPS = 400  # held-out records of each stream, of which the rows of a dream are taken


def dream(app: App, command: Command) -> int:
    """Open loop on held-out frames: the error by horizon, a video and a picture."""
    options: Dream = command.options
    if min(options.observed, options.imagined, options.rows) < 1:
        raise UserError("--observed, --imagined and --rows must be at least 1")
    if max(options.observed, options.imagined) > LONGEST or options.rows > MOST:
        raise UserError(f"--observed and --imagined are at most {LONGEST:,} steps, and --rows at most {MOST:,}")
    changed = evaluation.changed(command.saved, command.config, "dream", app.acting)
    logdir = Path(options.logdir)
    loaded = restore(app, logdir, command.config)
    unread.tell(app, loaded.config, command.given, loaded.observation_space, loaded.team)
    found, batch = open_loop(app, loaded.config, with_world(app, loaded.agent), options)
    first, name = next(iter(found.values())), evaluation.stem(loaded.step, "sample", changed, app.config)
    with closing(environments(app, loaded.config, 1)) as envs:
        untrained = with_world(app, build(app, loaded.config, envs))
        paths = show(logdir, name, first, options.rows, drawn(envs, first.key))
    blank = openloop(untrained, dataclasses.replace(batch, past=None), options.observed)
    maps = sensitivity.show(logdir, loaded, first, name) if options.sensitivity else []
    for key, errors in measured(logdir, app, loaded.config, loaded.step, found, paths, blank, changed).items():
        unit = "share of wrong values" if found[key].discrete else "mean squared error"
        print(f"{unit} of {key!r}, held-out steps, at step {loaded.step:,}")
        print(f"{'steps ahead':>12}" + "".join(f"{name:>12}" for name in errors))
        for ahead in (1, 5, 15, 45):
            if ahead <= options.imagined and not math.isnan(errors["model"][ahead - 1]):  # episodes may be shorter
                print(f"{ahead:>12}" + "".join(f"{error[ahead - 1]:>12.5f}" for error in errors.values()))
    for path in [*paths, *maps]:
        print(path)
    return 0


def measured(
    logdir: Path,
    app: App,
    config: RunConfig,
    step: int,
    found: Mapping[str, OpenLoop],
    paths: list[Path],
    blank: Mapping[str, OpenLoop],
    changed: Mapping[str, Any],
) -> dict[str, dict[str, list[float]]]:
    """Errors of every observation by horizon, nan where no row reaches; written to LOGDIR/dream/<step>.json too, where
    `error` is that of the first one."""
    first = next(iter(found.values()))
    asked = first.valid[:, first.context :].any(0)
    errors = {}
    for key, one in found.items():
        found_of = {"model": one.error(), "copy": one.copy_error()}
        found_of |= {"untrained": blank[key].error()} if key in blank else {}
        errors[key] = {name: error.where(asked, torch.nan).tolist() for name, error in found_of.items()}
    rounded = {
        key: {name: [None if math.isnan(e) else float(f"{e:.6g}") for e in each] for name, each in one.items()}
        for key, one in errors.items()
    }
    result = {
        "app": app.name,
        "task": config.task,
        "step": step,
        "seed": config.seed + FRESH,
        "key": first.key,
        "context": first.context,
        "rows": len(first.true),
        "rows_at_horizon": first.valid[:, first.context :].sum(0).tolist(),
        "error": rounded[first.key],
        "errors": rounded,
        "discrete": [
            key for key, one in found.items() if one.discrete
        ],  # of which an error is the share of wrong values
        "video": [str(path) for path in paths],
        "changed": plain_json(changed),
    }
    write_json(logdir / "dream" / evaluation.file_name(step, "sample", changed, app.config), result)
    return errors


def open_loop(
    app: App, config: RunConfig, agent: Agent, options: Dream, stopped: Callable[[], bool] = lambda: False
) -> tuple[dict[str, OpenLoop], Batch]:
    """Predictions on rows of fresh episodes, those that stay within an episode first."""
    steps = options.observed + options.imagined
    if not config.task and config.data:
        batch = _recorded(Recording.open(config.data), max(64, options.rows), steps)
    else:
        batch = _played(app, config, agent, max(64, options.rows), steps, stopped)
    later = batch.steps["first"].clone()
    later[:, : options.observed] = False
    order = (later.cumsum(1) == 0).sum(1).argsort(descending=True, stable=True)
    batch = _rows(batch, order[: max(16, options.rows)])
    found = openloop(agent, batch, options.observed)
    if not found:
        raise UserError(f"{app.name} decodes no observation of {config.task or config.data}: there is nothing to dream")
    return found, batch


def _recorded(recording: Recording, rows: int, steps: int) -> Batch:
    """Rows of the episodes that a recording holds out, or where these are none or too few, of those that were learned from."""
    part = "held_out" if recording.part("held_out").position >= steps else "train"
    if part == "train":
        say(f"{recording.folder} holds out no row of {steps} steps: these are rows that were learned from")
    return recording.rows(part, rows, steps, seed=FRESH)


def _played(app: App, config: RunConfig, agent: Agent, rows: int, steps: int, stopped: Callable[[], bool]) -> Batch:
    """Rows of episodes that the policy plays in environments of its own."""
    past = max(agent.stores.values(), default=0)
    streams = min(DREAM_STREAMS, config.envs) if config.exclusive else DREAM_STREAMS
    with closing(fresh(app, dataclasses.replace(config, workers=0), streams)) as envs:
        held_out = collect(agent, envs, max(DREAM_STEPS, steps), seed=config.seed + FRESH, stopped=stopped)
    return held_out.sample(rows, steps, past)


def open_loop_of(session: Session, rows: int = 6) -> dict[str, OpenLoop]:
    """An open loop of a run that trains, which a picture must not stop: as long as the dynamics can hold; {} for nothing."""
    agent, asked = with_world(session.app, session.agent), Dream(str(session.run.logdir), rows=rows)
    dynamics = agent.world.dynamics
    room = dynamics.left(dynamics.initial(1)) - asked.observed
    if room < 1:
        say(f"no open loop: the model has no positions for a step beyond the {asked.observed} that it observes")
        return {}
    asked = dataclasses.replace(asked, imagined=int(min(room, asked.imagined)))
    return open_loop(session.app, session.config, agent, asked, session.stopped)[0]


def image_key(envs: Environments) -> str | None:
    """The name of the first image among the observations, or None."""
    return min((key for key, space in envs.observation_space.spaces.items() if is_image(space)), default=None)


def collect(
    agent: Agent, envs: Environments, steps: int, *, seed: int, stopped: Callable[[], bool] = lambda: False
) -> Replay:
    """`steps` records of each environment under the agent's policy, in memory, with its notes. Raises UserError if told to
    stop on the way."""
    replay = Replay(
        None,
        envs.num_envs,
        stores=agent.stores,
        limit_bytes=2**40,
        chunk=steps,
        length=steps,
        online=False,
        seed=seed,
    )
    for t, step in enumerate(rollout(agent, envs, seed=seed), 1):
        replay.add(step)
        if t == steps:
            return replay
        if stopped():
            raise UserError(STOPPED)
    raise AssertionError("a rollout does not end")


def _rows(batch: Batch, rows: Tensor) -> Batch:
    """Some rows of a batch."""

    def take(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {key: value[rows] for key, value in values.items()}

    past = batch.past
    if past is not None:
        past = Past(take(past.stored), past.action[rows], past.first[rows], past.valid[rows])
    return Batch(take(batch.steps), past, Index(batch.index.stream[rows], batch.index.start[rows]))


def show(logdir: Path, name: str, found: OpenLoop, rows: int, draw: Draw | None = None) -> list[Path]:
    """Video and picture of an open loop of images, or of what `draw` makes of it; a picture of one of vectors; of discrete
    values there is none."""
    if found.discrete:
        return []
    folder = logdir / "video"
    folder.mkdir(parents=True, exist_ok=True)
    end = int(found.valid[:rows].any(0).sum())  # no longer than one of the rows is predicted
    parts = (found.true, found.predicted, found.valid)
    true, predicted, valid = (value[:rows, :end].cpu().numpy() for value in parts)
    if draw is not None:
        true, predicted = (draw(value).astype(np.float32) / 255 for value in (true, predicted))
    elif not found.image:
        path = folder / f"openloop-{name}.png"
        filmstrip.save_png(path, traces(true, predicted, valid, found.context))
        return [path]
    paths = [folder / f"openloop-{name}.mp4", folder / f"openloop-{name}.png"]
    write_video(paths[0], filmstrip.film(true, predicted, valid, found.context), FPS / 2)
    filmstrip.save_png(paths[1], filmstrip.strip(true, predicted, valid, found.context))
    return paths


def videos(session: Session, step: int) -> list[Path]:
    """The policy at play, where there are images or the environments draw their state, and an open loop; nothing of the run is
    disturbed."""
    app, config, agent, run = session.app, session.config, session.agent, session.run
    if key_shown(session.envs) is None:
        return []
    paths = []
    key = image_key(session.envs)
    draw = drawn(session.envs, STATE) if key is None else filmstrip.rgb
    if draw is not None and config.task:
        frames: list[NDArray[np.uint8]] = []
        with closing(fresh(app, config, 1)) as envs:
            for record in rollout(agent, envs, seed=config.seed + FRESH):
                frames.append(filmstrip.beside(draw(record[key or STATE][0])))
                if session.stopped():
                    raise UserError(STOPPED)
                if len(frames) == VIDEO_STEPS or bool(record["last"][0]) and len(frames) >= 100:
                    break
        paths.append(run.video("policy", step, np.stack(frames), FPS))
    found = open_loop_of(session, rows=4) if has_world(agent) else {}
    if found:
        first = next(iter(found.values()))
        shown = show(run.logdir, str(step), first, 4, drawn(session.envs, first.key))
        measured(run.logdir, app, config, step, found, shown, {}, {})
        paths += shown
    run.shown(step, paths)
    return paths
