"""train and eval: commands of every app, from its config, its environments and its `build`."""

from __future__ import annotations

import dataclasses
import json
import shlex
import signal
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from wm_core.errors import UserError
from wm_core.learner import Learner
from wm_core.ranks import Alone, learning_with, ranks

from wm_run import bound, checkpoint, evaluation, launch, scoring, stand_in, typed, unread, watching
from wm_run.alarm import NotFinite
from wm_run.allocator import give_back
from wm_run.app import App
from wm_run.chunks import LEAST, Chunks
from wm_run.cli import Command
from wm_run.config import RunConfig
from wm_run.configs import write_run
from wm_run.durable import lost
from wm_run.folder import Run, default_logdir, plain
from wm_run.info import say_what_it_takes
from wm_run.loading import build, has_world, initialise, played, restore, runtime
from wm_run.lock import locked
from wm_run.logs import differences
from wm_run.loop import rest
from wm_run.loop import train as train_loop
from wm_run.manifest import kept_marks
from wm_run.offline import Made, fill, learn
from wm_run.options import Eval, Train
from wm_run.progress import Progress
from wm_run.recording import Recording
from wm_run.results import plain_json, write_json
from wm_run.rollout import LONGEST
from wm_run.run_replay import run_replay
from wm_run.session import Session, seed_all
from wm_run.stop import heeded, say
from wm_run.teams import team_of
from wm_run.trust import on_a_strangers_word, remember
from wm_run.writers import outside

if TYPE_CHECKING:
    from wm_run.from_python import Listeners

STRIDE = 1_000_003  # between the seeds of the processes of one run


def _quoted(path: Path) -> str:
    """As a shell reads it."""
    return shlex.quote(str(path))


# ---- train


def train(app: App, command: Command, listeners: Listeners | None = None) -> int:
    """Train, or go on where the logdir's last checkpoint stands. Returns the exit code. listeners: who called from Python."""
    options: Train = command.options
    command, recording = stand_in.settle(app, command)
    config = runtime(command.config)
    method = "_".join(filter(None, (app.method, command.origin.ablation)))  # readers of the folder's name see both
    what = config.task or (recording.folder.name if recording else "task")
    logdir = Path(options.logdir) if options.logdir else default_logdir("runs", what, method, config.seed)
    launch.check(config.devices, config.device)
    if config.devices > 1 and config.device == "cuda" and command.config.capture == "auto" and not launch.inside():
        say("with --devices, updates are not recorded as graphs and each takes longer than on one GPU alone")
    if config.devices > 1 and not launch.inside():
        words = command.argv if options.logdir else (*command.argv, "--logdir", str(logdir))
        start = typed.again(app.module, command.argv)
        return launch.launch(start, words, config.devices, logdir, says=command.program)
    with launch.joined(config.device) as group, on_a_strangers_word(command.strange):
        if group.index:
            logdir, config = (
                logdir / f"rank-{group.index}",
                dataclasses.replace(config, seed=config.seed + STRIDE * group.index, log=()),
            )
        return _train(app, command, config, logdir, recording, listeners)


def _train(
    app: App,
    command: Command,
    config: RunConfig,
    logdir: Path,
    recording: Recording | None,
    listeners: Listeners | None,
) -> int:
    """The same in a folder, alone or as one of several; from a recording, where there is one, and else in environments."""
    room = {"chunk": config.chunk, "length": config.length, "limit_bytes": config.replay_bytes}
    Chunks(None, config.envs, **room).check_limit(LEAST)  # before so many environments are made
    if command.origin.note:  # before the run's own environments are there, which may be the only ones that there can be
        say(f"{command.origin.note}; trying out what that takes here, some seconds")
        say_what_it_takes(app, command, config, recording)
        give_back()  # the paper's networks were made, and may be many times as large as this run's
    with closing(played(app, config, config.envs, recording)) as envs:
        if recording is None:
            command, config = bound.settle_command(command, envs), bound.settled(config, envs)
        if not ranks().index:
            unread.tell(app, config, command.given, envs.observation_space, team_of(envs))
        seed_all(config.seed)
        agent = build(app, dataclasses.replace(config, seed=command.config.seed), envs)  # one seed, one set of weights
        if config.seed != command.config.seed:
            draw_apart(agent, config.seed)
        agent.capture(config.capture, say)
        with locked(logdir):
            newest = agent.online and recording is None  # nothing in a recording is newer than anything else
            replay = run_replay(agent, config, envs.num_envs, logdir / "replay", online=newest)
            path = _last(logdir)
            saved = checkpoint.load(path, app=app.name) if path else None
            written = write_run(app, command.config, command.origin)
            protocol = {"task": config.task, "repeat": envs.repeat, **envs.protocol}
            about = plain_json(plain(bound.described(written, protocol)))
            writers = outside(config.log, logdir, written, project=app.name)
            writers += [] if listeners is None else [listeners]
            with closing(Run(logdir, tensorboard=config.tensorboard, writers=writers)) as run:
                session = Session(app, config, agent, envs, replay, run, about)
                return _run(app, command, config, session, saved, listeners)


def draw_apart(agent: Learner, seed: int) -> None:
    """One of several processes draws noise of its own, dropout's included; its weights stay those of all."""
    for at, generator in enumerate(agent.generators):
        generator.manual_seed(seed + at)


def _last(logdir: Path) -> Path | None:
    """The checkpoint to go on from: of several processes, the newest that all have."""
    who = ranks()
    if who.count == 1:
        return checkpoint.latest(logdir)
    first = _whole(logdir)
    others = [first, *(first / f"rank-{i}" for i in range(1, who.count))]
    return checkpoint.agreed([logdir, *others])


def _whole(logdir: Path) -> Path:
    """The folder of the run, of which one of several processes has a folder of its own: what a user's command is given."""
    return logdir.parent if ranks().index else logdir


def _run(
    app: App,
    command: Command,
    config: RunConfig,
    session: Session,
    saved: checkpoint.Checkpoint | None,
    listeners: Listeners | None,
) -> int:
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
    if not command.strange and (sentence := remember(app.environments, command.config)):
        say(sentence)
    run.protocol(session.about["protocol"])
    run.environment()
    parameters = agent.parameters_by_module()["total"]
    say(
        f"{app.method} on {config.task or config.data}: {parameters:,} parameters on {agent.device}, run folder {run.logdir}"
    )
    if (recorded := session.recorded) is not None and isinstance(at, Made):
        say(_what_it_learns(recorded, config))
        if saved is None:
            fill(session.replay, recorded, session.notes(at))
    if config.exclusive and (config.eval_every or config.video_every):
        say("evaluations and videos on the way are left out: the task has room for one set of environments (exclusive)")
    begun, going_on = at.steps, f"{command.program} train --logdir {_quoted(_whole(run.logdir))}"
    with heeded() as stop:
        session.stopped = lambda: bool(stop)
        if listeners is not None:
            listeners.begin(run.logdir, stop)
        with Progress(config.steps, start=at.steps) as progress:
            watch = watching.Watch(session, progress, at)
            try:
                if isinstance(at, Made):
                    learn(
                        agent,
                        session.replay,
                        at,
                        watch,
                        repeat=session.envs.repeat,
                        log_every=config.log_every,
                        go_on=watch,
                        feed=session.feed,
                    )
                else:
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
                        stopped=watch.between,
                        say=say,
                    )
                if watch.saved != at.steps or at.arrived is not None or saved is None and begun == at.steps:
                    session.save(at)
                if not (stop or watch.halted or watch.failed) and (numbers := rest(at, agent, session.replay)):
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
        if stop or watch.halted:  # where another process heard of it first, this one may not have been told yet
            say(f"stopped at step {at.steps:,}; to go on: {going_on}   (kept: {checkpoint.latest(run.logdir)})")
            return 128 + (stop.first or signal.SIGTERM)
        scored, shown = None, list[Path]()
        if not ranks().index:
            with learning_with(Alone()):
                scored, shown = watching.finish(session, watch, at)
    print(f"finished at step {at.steps:,}")
    print(f"checkpoint  {run.logdir / 'checkpoint' / str(at.steps)}")
    if session.recorded is None:
        print(f"scores      {run.logdir / 'scores.jsonl'}")
    if scored is not None:
        print(f"evaluation  {scored}")
    for path in shown:
        print(f"video       {path}")
    shows = ["eval"] * bool(config.task) + ["dream"] * has_world(session.agent)
    for word, name in zip(("next:", "  or:"), shows, strict=False):
        print(f"{word} {command.program} {name} {_quoted(_whole(run.logdir))}")
    if stop:
        say(
            f"stopped before evaluation and videos of the end were made; the run is saved at its last step, {at.steps:,}"
        )
        return 128 + stop.first
    return 0


def _what_it_learns(recorded: stand_in.StandIn, config: RunConfig) -> str:
    """A sentence about what a run learns from, and what of it."""
    recording = recorded.recording
    held_out = f"{len(recording.episodes('held_out')):,} episodes held out of it"
    what = "world model, and policy in its dreams" if config.behaviour else "world model alone"
    return (
        f"learning ({what}) from {recording.steps('train'):,} recorded steps in {recording.folder}, {held_out}; the run's "
        "steps are those after which as many updates would be due"
    )


def evaluate(app: App, command: Command) -> int:
    """Fresh episodes, scores to stdout and LOGDIR/eval/<step>.json, or beside it where something differs from the run."""
    options: Eval = command.options
    if options.mode and options.sample:
        raise UserError("--mode and --sample exclude each other: give one")
    if options.episodes is not None and options.episodes < 1:
        raise UserError(f"--episodes must be at least 1, not {options.episodes}")
    changed = evaluation.changed(command.saved, command.config, "eval", app.acting)
    logdir = Path(options.logdir)
    loaded = restore(app, logdir, command.config)
    for changed_log in differences(logdir, kept_marks(logdir)):
        say(changed_log)
    unread.tell(app, loaded.config, command.given, loaded.observation_space, loaded.team)
    config, agent, protocol = loaded.config, loaded.agent, plain_json(loaded.protocol)
    count = options.episodes or config.final_episodes or scoring.MANY
    acting = "mode" if options.mode else "sample" if options.sample else config.eval_acting
    remembers = scoring.begins_remembering(loaded, options.memory)
    changed |= {"memory": options.memory} if remembers != scoring.remembers(app, config) else {}
    carry = loaded.carry if remembers else None
    scored = scoring.play(app, config, agent, loaded.protocol, episodes=count, acting=acting, carry=carry)
    if len(scored.episodes) < count:
        raise UserError(f"an episode has not ended after {LONGEST:,} steps: is there a limit of time in {config.task}?")
    found = scoring.result(app, config, loaded.step, scored, protocol, remembers=remembers)
    result = plain_json(found | {"changed": changed})
    try:
        print(json.dumps(result), flush=True)  # first, for the folder may be closed to us
    finally:
        write_json(logdir / "eval" / evaluation.file_name(loaded.step, scored.acting, changed, app.config), result)
    return 0
