"""train, eval, dream and info: the commands of every app, from its config, its environments and its `build`."""

from __future__ import annotations

import dataclasses
import json
import math
import shlex
import signal
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from wm_core.agent import Agent
from wm_core.errors import UserError
from wm_core.observations import is_image
from wm_core.ranks import Alone, learning_with, ranks
from wm_core.types import Batch, Index, Past

from wm_run import bound, checkpoint, durable, evaluation, filmstrip, launch, scoring, sensitivity, typed
from wm_run.alarm import NotFinite
from wm_run.allocator import give_back
from wm_run.cli import App, Command, mistaken, resolve, write_run
from wm_run.config import RunConfig
from wm_run.durable import lost
from wm_run.estimate import estimate, sentence, told
from wm_run.folder import Run, default_logdir, plain
from wm_run.loading import build, environments, initialise, restore, runtime
from wm_run.lock import locked
from wm_run.loop import LONGEST, Environments, Position, check_carry, rest, rollout
from wm_run.loop import train as train_loop
from wm_run.openloop import OpenLoop, openloop
from wm_run.options import Dream, Eval, Info, Train
from wm_run.play import key_shown
from wm_run.progress import Progress
from wm_run.replay import Replay
from wm_run.scoring import FRESH, Unmade, fresh
from wm_run.session import Session, seed_all
from wm_run.stop import heeded, say
from wm_run.video import write_video
from wm_run.writers import outside

T = TypeVar("T")
STRIDE = 1_000_003  # between the seeds of the processes of one run
STOPPED = "the run was told to stop"
FPS = 15.0
VIDEO_STEPS = 500
DREAM_STREAMS = 4
DREAM_STEPS = 400  # held-out records of each stream, of which the rows of a dream are taken


def _quoted(path: Path) -> str:
    """As a shell reads it."""
    return shlex.quote(str(path))


# ---- train


def train(app: App, command: Command) -> int:
    """Train, or go on where the logdir's last checkpoint stands. Returns the exit code."""
    options: Train = command.options
    config = runtime(command.config)
    method = "_".join(filter(None, (app.method, command.origin.ablation)))  # readers of the folder's name see both
    logdir = (
        Path(options.logdir) if options.logdir else default_logdir("runs", config.task or "task", method, config.seed)
    )
    launch.check(config.devices, config.device)
    if config.devices > 1 and config.device == "cuda" and command.config.capture == "auto" and not launch.inside():
        say("with --devices, updates are not recorded as graphs and each takes longer than on one GPU alone")
    if config.devices > 1 and not launch.inside():
        words = command.argv if options.logdir else (*command.argv, "--logdir", str(logdir))
        start = typed.again(app.module, command.argv)
        return launch.launch(start, words, config.devices, logdir, says=command.program)
    with launch.joined(config.device) as group:
        if group.index:
            logdir, config = (
                logdir / f"rank-{group.index}",
                dataclasses.replace(config, seed=config.seed + STRIDE * group.index, log=()),
            )
        return _train(app, command, config, logdir)


def _train(app: App, command: Command, config: RunConfig, logdir: Path) -> int:
    """The same in a folder, alone or as one of several."""
    if command.origin.note:  # before the run's own environments are there, which may be the only ones that there can be
        say(f"{command.origin.note}{_what_it_takes(app, command, config)}")
        give_back()  # the paper's setting was tried, and may be many times as large as this run
    with closing(environments(app, config, config.envs)) as envs:
        command, config = bound.settle_command(command, envs), bound.settled(config, envs)
        seed_all(config.seed)
        agent = build(app, dataclasses.replace(config, seed=command.config.seed), envs)  # one seed, one set of weights
        if config.seed != command.config.seed:
            draw_apart(agent, config.seed)
        agent.capture(config.capture, say)
        with locked(logdir):
            replay = Replay(
                logdir / "replay",
                envs.num_envs,
                stores=agent.stores,
                limit_bytes=config.replay_bytes,
                chunk=config.chunk,
                length=config.length,
                seed=config.seed,
                online=agent.online,
                stride=config.online_stride,
            )
            path = _last(logdir)
            saved = checkpoint.load(path, app=app.name) if path else None
            written = write_run(app, command.config, command.origin)
            protocol = {"task": config.task, "repeat": envs.repeat, **envs.protocol}
            about = _json(plain(bound.described(written, protocol)))
            services = outside(config.log, logdir, written, project=app.name)
            with closing(Run(logdir, tensorboard=config.tensorboard, writers=services)) as run:
                return _run(app, command, config, Session(app, config, agent, envs, replay, run, about), saved)


def draw_apart(agent: Agent, seed: int) -> None:
    """One of several processes draws noise of its own, dropout's included; its weights stay those of all."""
    for at, generator in enumerate(agent.generators):
        generator.manual_seed(seed + at)


def _last(logdir: Path) -> Path | None:
    """The checkpoint to go on from: of several processes, the newest that all have."""
    who = ranks()
    if who.count == 1:
        return checkpoint.latest(logdir)
    first = logdir.parent if who.index else logdir
    others = [first, *(first / f"rank-{i}" for i in range(1, who.count))]
    return checkpoint.agreed([logdir, *others])


def _run(app: App, command: Command, config: RunConfig, session: Session, saved: checkpoint.Checkpoint | None) -> int:
    """Start or resume, train to the end or to a signal, save, show."""
    agent, run = session.agent, session.run
    if saved is None:
        at, notices = session.begin()
        for notice in notices:
            say(notice)
        if config.init_from:
            say(f"weights of {initialise(agent, config.init_from)}")
    elif command.saved is None:
        raise UserError(
            f"{run.logdir} holds a checkpoint but no config.toml, which says what it was made with: put it back, or take "
            f"the weights into a new run with --init-from {run.logdir}"
        )
    else:
        bound.check(app, command.saved, saved)
        at, notices = session.load(saved)
        notices += bound.notices(saved, session.about["protocol"])
        if lost(run.logdir / "config.toml"):
            notices.append(f"config.toml was lost, and is written again from the copy in {saved.path}")
        changes = "".join(f"; {change}" for change in command.changes())
        say(f"resuming {run.logdir} at step {at.steps:,}{changes}")
        for notice in notices:
            say(notice)
    if late := session.too_late(at):
        say(late)
    session.check_room(at)  # before the folder holds a run that keeps what it was started with
    run.config(write_run(app, command.config, command.origin))
    run.protocol(session.about["protocol"])
    run.environment()
    parameters = agent.parameters_by_module()["total"]
    say(f"{app.method} on {config.task}: {parameters:,} parameters on {agent.device}, run folder {run.logdir}")
    if config.exclusive and (config.eval_every or config.video_every):
        say("evaluations and videos on the way are left out: the task has room for one set of environments (exclusive)")
    begun, going_on = at.steps, f"{command.program} train --logdir {_quoted(run.logdir)}"
    with heeded() as stop:
        session.stopped = lambda: bool(stop)
        with Progress(config.steps, start=at.steps) as progress:
            watch = Watch(session, progress, at)
            try:
                train_loop(
                    agent,
                    session.envs,
                    session.replay,
                    at,
                    watch,
                    log_every=config.log_every,
                    learning_starts=config.learning_starts,
                    length=config.longest,
                    temperature=config.act_temperature,
                    count_resets=config.ratio_counts == "records",
                    go_on=watch,
                    feed=session.feed,
                    stopped=session.stopped,
                    say=say,
                )
                if watch.saved != at.steps or at.arrived is not None or saved is None and begun == at.steps:
                    session.save(at)
                if not stop and not watch.failed and (numbers := rest(at, agent, session.replay)):
                    run.metrics(at.steps, numbers)  # after the checkpoint: with more steps it is in the next line
            except NotFinite as error:
                say(f"{app.name}: {session.alarm(error, at)}")
                return 1
            except KeyboardInterrupt:
                kept = checkpoint.latest(run.logdir)
                say(
                    f"ended at step {at.steps:,} without saving; "
                    + (f"kept is {kept}; to go on from there: {going_on}" if kept else "no checkpoint had been made")
                )
                return 128 + signal.SIGINT
        if watch.failed:
            why = session.envs.failure or "an environment of another process failed, and that one says why"
            raise UserError(f"{why}; the run is saved at step {at.steps:,}; when that is mended, go on: {going_on}")
        if stop:
            say(f"stopped at step {at.steps:,}; to go on: {going_on}   (kept: {checkpoint.latest(run.logdir)})")
            return 128 + stop.first
        scored, shown = None, list[Path]()
        if not ranks().index:
            with learning_with(Alone()):
                scored, shown = _finish(session, watch, at)
    print(f"finished at step {at.steps:,}")
    print(f"checkpoint  {run.logdir / 'checkpoint' / str(at.steps)}")
    print(f"scores      {run.logdir / 'scores.jsonl'}")
    if scored is not None:
        print(f"evaluation  {scored}")
    for path in shown:
        print(f"video       {path}")
    print(f"next: {command.program} eval {_quoted(run.logdir)}")
    print(f"  or: {command.program} dream {_quoted(run.logdir)}")
    if stop:
        say(
            f"stopped before evaluation and videos of the end were made; the run is saved at its last step, {at.steps:,}"
        )
        return 128 + stop.first
    return 0


class Watch:
    """Asked before every iteration: saves, evaluates and films by step, and says whether to go on. Passes logs on."""

    def __init__(self, session: Session, progress: Progress, at: Position) -> None:
        self.session, self.progress, self.stopped = session, progress, session.stopped
        config = session.config
        shows = {} if config.exclusive else {"eval": config.eval_every, "video": config.video_every}
        self.every = shows | {"save": config.save_every}
        self.past = {name: at.steps // every for name, every in self.every.items() if every}
        self.saved: int | None = at.steps or None
        self.failed = False  # an environment, for good; of any process
        self.beside = False  # whether environments were made beside the run's own
        self.scores: deque[float] = deque(maxlen=20)
        self.learns = config.train_ratio > 0 and not session.too_late(at)
        self.given = 0  # updates when last asked

    def __call__(self, at: Position) -> bool:
        if self.given == 0 < at.ratio.given:
            self.progress.restart(at.steps)  # until here it only acted, which is many times as fast
        self.given = at.ratio.given
        self.progress.measuring = self.learns and self.given < 2  # from one update to another a speed can be told
        failure, due = bool(self.session.envs.failure), self._due(at.steps)
        if not self.beside and due[:1] not in ([], ["save"]):  # a task that cannot have them may end the process
            self.beside = True
            self._save(at)
        for name in due:  # the checkpoint last: it holds what the others have logged
            if name == "save":
                self._save(at)
            elif not ranks().index and not self.stopped() and not failure:  # the first shows for all, and asks nobody
                what, show = {"eval": ("evaluation", self._eval), "video": ("video", self._video)}[name]
                with learning_with(Alone()):
                    _possibly(self.session, f"{what} at step {at.steps:,}", partial(show, at))
        crowded, stopped, failed = ranks().total(self.session.replay.crowded, self.stopped(), failure)
        if crowded:
            self._save(at)
        self.progress.update(at.steps)
        self.failed = bool(failed)
        return at.steps < self.session.config.steps and not stopped and not failed

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self.session.run.metrics(step, values)

    def score(self, step: int, score: float, length: int) -> None:
        self.session.run.score(step, score, length)
        self.scores.append(score)
        self.progress.update(step, score=float(np.mean(self.scores)))

    def _due(self, step: int) -> list[str]:
        due = [name for name in self.past if step // self.every[name] > self.past[name]]
        self.past.update({name: step // self.every[name] for name in due})
        return due

    def _save(self, at: Position) -> None:
        self.session.save(at)
        self.saved = at.steps

    def _eval(self, at: Position) -> None:
        config = self.session.config
        scored = self._scored(at, config.eval_episodes)
        if scored is None:
            return
        numbers = {"eval/score": float(np.mean(scored.scores)), "eval/episodes": len(scored.scores)}
        if key_shown(self.session.envs) is not None:
            found = list(_open_loop_of(self.session).values())
            numbers |= found[0].horizons() if found else {}
            for one in found if len(found) > 1 else ():
                numbers |= one.horizons(key=f"/{one.key}")
        self.metrics(at.steps, numbers)

    def _scored(self, at: Position, episodes: int) -> scoring.Scored | None:
        """An evaluation as the config has it; None where it did not come to its end, of which a sentence tells."""
        session = self.session
        scored = scoring.play(
            session.app,
            session.config,
            session.agent,
            session.envs.protocol,
            episodes=episodes,
            acting=session.config.eval_acting,
            carry=at.carry if session.app.remembers else None,
            go_on=lambda: not self.stopped(),
        )
        if len(scored.episodes) == episodes:
            return scored
        if not self.stopped():
            say(f"no evaluation at step {at.steps:,}: an episode has not ended after {LONGEST:,} steps")
        return None

    def finish(self, at: Position) -> Path | None:
        """The evaluation of the end, where the config has one: its file, LOGDIR/eval/<step>.json."""
        session, config = self.session, self.session.config
        scored = self._scored(at, config.final_episodes) if config.final_episodes and not ranks().index else None
        if scored is None:
            return None
        app, protocol = session.app, _json(session.envs.protocol)
        found = scoring.result(app, config, at.steps, scored, protocol, remembers=app.remembers) | {"changed": {}}
        path = session.run.logdir / "eval" / evaluation.file_name(at.steps, scored.acting, {})
        _write_json(path, _json(found))
        return path

    def _video(self, at: Position) -> None:
        _videos(self.session, at.steps)


def _what_it_takes(app: App, command: Command, config: RunConfig) -> str:
    """What the paper's setting and this run take, said where the preset was chosen for the user."""
    with closing(environments(app, dataclasses.replace(config, workers=0), 1)) as envs:
        here = f"; this run takes {told(app, config, envs)}"
    if command.origin.preset == app.paper or app.paper not in app.files("presets"):
        return here
    paper = resolve(app, app.paper, command.origin.size, command.origin.ablation)
    full = runtime(dataclasses.replace(paper, device=config.device, threads=0, workers=0))
    try:
        with closing(environments(app, full, 1)) as envs:
            return f", which would take {told(app, full, envs)}{here}"
    except ModuleNotFoundError as error:
        return f", which needs the module {error.name}{here}"
    except Exception as error:
        if not mistaken(app, error):
            raise
        return f", which cannot be tried here ({error}){here}"


# ---- eval


def evaluate(app: App, command: Command) -> int:
    """Fresh episodes, scores to stdout and LOGDIR/eval/<step>.json, or beside it where something differs from the run."""
    options: Eval = command.options
    if options.mode and options.sample:
        raise UserError("--mode and --sample exclude each other: give one")
    if options.episodes is not None and options.episodes < 1:
        raise UserError(f"--episodes must be at least 1, not {options.episodes}")
    changed = evaluation.changed(command.saved, command.config)
    logdir = Path(options.logdir)
    loaded = restore(app, logdir, command.config)
    config, agent, protocol = loaded.config, loaded.agent, _json(loaded.protocol)
    count = options.episodes or config.final_episodes or scoring.MANY
    acting = "mode" if options.mode else "sample" if options.sample else config.eval_acting
    if remembers := options.memory == "training" or options.memory == "auto" and app.remembers:
        check_carry(agent, loaded.carry)
    changed |= {"memory": options.memory} if remembers != app.remembers else {}
    carry = loaded.carry if remembers else None
    scored = scoring.play(app, config, agent, loaded.protocol, episodes=count, acting=acting, carry=carry)
    if len(scored.episodes) < count:
        raise UserError(f"an episode has not ended after {LONGEST:,} steps: is there a limit of time in {config.task}?")
    found = scoring.result(app, config, loaded.step, scored, protocol, remembers=remembers)
    result = _json(found | {"changed": changed})
    try:
        print(json.dumps(result), flush=True)  # first, for the folder may be closed to us
    finally:
        _write_json(logdir / "eval" / evaluation.file_name(loaded.step, scored.acting, changed), result)
    return 0


# ---- dream


def dream(app: App, command: Command) -> int:
    """Open loop on held-out frames: the error by horizon, a video and a picture."""
    options: Dream = command.options
    if min(options.observed, options.imagined, options.rows) < 1:
        raise UserError("--observed, --imagined and --rows must be at least 1")
    changed = evaluation.changed(command.saved, command.config, "dream")
    logdir = Path(options.logdir)
    loaded = restore(app, logdir, command.config)
    found, batch = _open_loop(app, loaded.config, loaded.agent, options)
    with closing(environments(app, loaded.config, 1)) as envs:
        untrained = build(app, loaded.config, envs)
    blank = openloop(untrained, dataclasses.replace(batch, past=None), options.observed)
    first, name = next(iter(found.values())), evaluation.stem(loaded.step, "sample", changed)
    paths = _show(logdir, name, first, options.rows) if first.image else []
    maps = sensitivity.show(logdir, loaded, first, name) if options.sensitivity else []
    for key, errors in _measured(logdir, app, loaded.config, loaded.step, found, paths, blank, changed).items():
        measured = "share of wrong values" if found[key].discrete else "mean squared error"
        print(f"{measured} of {key!r}, held-out steps, at step {loaded.step:,}")
        print(f"{'steps ahead':>12}" + "".join(f"{name:>12}" for name in errors))
        for ahead in (1, 5, 15, 45):
            if ahead <= options.imagined and not math.isnan(errors["model"][ahead - 1]):  # episodes may be shorter
                print(f"{ahead:>12}" + "".join(f"{error[ahead - 1]:>12.5f}" for error in errors.values()))
    for path in [*paths, *maps]:
        print(path)
    return 0


def _measured(
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
        measured = {"model": one.error(), "copy": one.copy_error()}
        measured |= {"untrained": blank[key].error()} if key in blank else {}
        errors[key] = {name: error.where(asked, torch.nan).tolist() for name, error in measured.items()}
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
        "changed": _json(changed),
    }
    _write_json(logdir / "dream" / evaluation.file_name(step, "sample", changed), result)
    return errors


def _open_loop(
    app: App, config: RunConfig, agent: Agent, options: Dream, stopped: Callable[[], bool] = lambda: False
) -> tuple[dict[str, OpenLoop], Batch]:
    """Predictions on rows of fresh episodes, those that stay within an episode first."""
    steps = options.observed + options.imagined
    past = max(agent.stores.values(), default=0)
    streams = min(DREAM_STREAMS, config.envs) if config.exclusive else DREAM_STREAMS
    with closing(fresh(app, dataclasses.replace(config, workers=0), streams)) as envs:
        held_out = collect(agent, envs, max(DREAM_STEPS, steps), seed=config.seed + FRESH, stopped=stopped)
    batch = held_out.sample(max(64, options.rows), steps, past)
    later = batch.steps["first"].clone()
    later[:, : options.observed] = False
    order = (later.cumsum(1) == 0).sum(1).argsort(descending=True, stable=True)
    batch = _rows(batch, order[: max(16, options.rows)])
    found = openloop(agent, batch, options.observed)
    if not found:
        raise UserError(f"{app.name} decodes no observation of {config.task}: there is nothing to dream")
    return found, batch


def _open_loop_of(session: Session, rows: int = 6) -> dict[str, OpenLoop]:
    """An open loop of a run that trains, which a picture must not stop: as long as the dynamics can hold; {} for nothing."""
    agent, asked = session.agent, Dream(str(session.run.logdir), rows=rows)
    dynamics = agent.world.dynamics
    room = dynamics.left(dynamics.initial(1)) - asked.observed
    if room < 1:
        say(f"no open loop: the model has no positions for a step beyond the {asked.observed} that it observes")
        return {}
    asked = dataclasses.replace(asked, imagined=int(min(room, asked.imagined)))
    return _open_loop(session.app, session.config, agent, asked, session.stopped)[0]


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


def _show(logdir: Path, name: str, found: OpenLoop, rows: int) -> list[Path]:
    """Video and picture of an open loop."""
    folder = logdir / "video"
    folder.mkdir(parents=True, exist_ok=True)
    end = int(found.valid[:rows].any(0).sum())  # no longer than one of the rows is predicted
    parts = (found.true, found.predicted, found.valid)
    true, predicted, valid = (value[:rows, :end].cpu().numpy() for value in parts)
    paths = [folder / f"openloop-{name}.mp4", folder / f"openloop-{name}.png"]
    write_video(paths[0], filmstrip.film(true, predicted, valid, found.context), FPS / 2)
    filmstrip.save_png(paths[1], filmstrip.strip(true, predicted, valid, found.context))
    return paths


def _videos(session: Session, step: int) -> list[Path]:
    """The policy at play, where there are images, and an open loop; nothing of the run is disturbed."""
    app, config, agent, run = session.app, session.config, session.agent, session.run
    if key_shown(session.envs) is None:
        return []
    paths = []
    if key := image_key(session.envs):
        frames: list[NDArray[np.uint8]] = []
        with closing(fresh(app, config, 1)) as envs:
            for record in rollout(agent, envs, seed=config.seed + FRESH):
                frames.append(filmstrip.rgb(record[key][0]))
                if session.stopped():
                    raise UserError(STOPPED)
                if len(frames) == VIDEO_STEPS or bool(record["last"][0]) and len(frames) >= 100:
                    break
        paths.append(run.video("policy", step, np.stack(frames), FPS))
    found = _open_loop_of(session, rows=4)
    if not found:
        return paths
    first = next(iter(found.values()))
    shown = _show(run.logdir, str(step), first, 4) if first.image else []
    _measured(run.logdir, app, config, step, found, shown, {}, {})
    return [*paths, *shown]


def _finish(session: Session, watch: Watch, at: Position) -> tuple[Path | None, list[Path]]:
    """Evaluation and videos of a finished run, which is saved. Its own environments are closed first, for a task may have
    room for no others beside them."""
    session.envs.close()
    scored, shown = None, list[Path]()
    with suppress(KeyboardInterrupt):  # told by the caller, as any stop is
        scored = _possibly(session, "evaluation at the end", lambda: watch.finish(at))
        if session.config.final_video and not session.stopped():
            shown = _possibly(session, "video at the end", lambda: _videos(session, at.steps)) or []
    return scored, shown


def _possibly(session: Session, what: str, show: Callable[[], T]) -> T | None:
    """What is only shown ends no run: where it cannot be, a sentence says why."""
    try:
        return show()
    except Exception as error:
        if not mistaken(session.app, error):
            raise
        alone = isinstance(error, Unmade) and not session.config.exclusive
        way = " (if only one set of them may live at a time, --exclusive True says so)" if alone else ""
        say(f"no {what}: {error}{way}")
        return None


# ---- info


def info(app: App, command: Command) -> int:
    """The resolved config, parameters per module, and what the run takes on this machine."""
    options: Info = command.options
    config = runtime(command.config)
    with closing(environments(app, dataclasses.replace(config, workers=0), 1)) as envs:
        agent = build(app, config, envs)
        parameters = agent.parameters_by_module()
        protocol = _json({"task": config.task, "repeat": envs.repeat, **envs.protocol})
        numbers = _json(estimate(app, config, envs))
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


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    durable.make_folder(path.parent)
    durable.write(path, json.dumps(value, indent=1) + "\n")


def _json(value: Mapping[str, Any]) -> dict[str, Any]:
    """Plain JSON of a mapping with numpy numbers and tuples in it."""

    def plain(one: Any) -> Any:
        return one.item() if isinstance(one, np.generic) else list(one) if isinstance(one, tuple) else str(one)

    return dict(json.loads(json.dumps(value, default=plain)))
