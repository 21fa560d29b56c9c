"""`play LOGDIR`: an agent at play (stage.py), drawn; in the environment or inside the dream.

In a window (pygame, where there is a display) a held key takes the action away from the policy; elsewhere a video; with
--browser a page (browser.py). Of a team one agent is shown, and the others act beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from wm_core.errors import UserError

from wm_run import evaluation, scoring, unread
from wm_run.canvas import Canvas
from wm_run.drawing import drawn
from wm_run.dreams import LONGEST
from wm_run.filmstrip import Pixels
from wm_run.loading import environments, restore, with_world
from wm_run.observer import Observer, key_shown
from wm_run.recording import Recording
from wm_run.replaying import Replaying
from wm_run.rollout import remembered, rows_of
from wm_run.stage import Choose, Moment, Stage, by_policy, in_dream, in_environment
from wm_run.teams import team_of
from wm_run.video import write_video
from wm_run.window import FPS, Keyboard, Screen, key_hint, open_window

if TYPE_CHECKING:
    from wm_run.app import App
    from wm_run.cli import Command
    from wm_run.config import RunConfig
    from wm_run.loop import Environments
    from wm_run.options import Play

FRESH = 20_000  # added to a run's seed, so that neither training nor evaluation has seen these episodes


def watch(moments: Iterator[Moment], screen: Screen, hands: Keyboard, episodes: int) -> None:
    """Show until that many episodes or dreams are over, or the user ends it."""
    canvas, paused = Canvas(), False
    hint = key_hint(hands.discrete, hands.continuous)
    moment = next(moments)
    while True:
        screen.show(canvas.draw(moment, f"PAUSED   {hint}" if paused else hint))
        screen.wait()
        hands.held, pressed = screen.poll()
        if "escape" in pressed or "quit" in pressed:
            return
        paused ^= "space" in pressed
        hands.off ^= "tab" in pressed
        if paused:
            continue
        episodes -= moment.over
        if not episodes:
            return
        moment = next(moments)


def film(moments: Iterator[Moment], episodes: int, frames: int) -> list[Pixels]:
    """Pictures until that many episodes or dreams are over, or as many frames."""
    canvas, pages = Canvas(), []
    for moment in islice(moments, frames):
        pages.append(canvas.draw(moment))
        episodes -= moment.over
        if not episodes:
            break
    return pages


def narrate(moments: Iterator[Moment], kind: str) -> Iterator[Moment]:
    """The same, with a line on stdout where an episode or dream is over."""
    count = 0
    for moment in moments:
        if moment.over:
            count += 1
            print(f"{kind} {count}: score {moment.score:.4g} after {moment.t} steps")
        yield moment


# ---- the command


def play(app: App, command: Command) -> int:
    """Window or video of the last checkpoint at play; prints what it was worth, and where the video is."""
    options: Play = command.options
    if options.mode and options.sample:
        raise UserError("--mode and --sample exclude each other: give one")
    if min(options.episodes, options.frames, options.observed, options.imagined) < 1:
        raise UserError("--episodes, --frames, --observed and --imagined must be at least 1")
    if max(options.observed, options.imagined) > LONGEST:  # they are played before anything is shown
        raise UserError(f"--observed and --imagined are at most {LONGEST:,} steps")
    changed = evaluation.changed(command.saved, command.config, "play", app.acting)
    loaded = restore(app, Path(options.logdir), command.config)
    unread.tell(app, loaded.config, command.given, loaded.observation_space, loaded.team)
    config = loaded.config
    world = with_world(app, loaded.agent, "`play` has no expectation to draw; `eval` plays, and says how well")
    remembers = scoring.begins_remembering(loaded, options.memory)
    changed |= {"memory": options.memory} if remembers != scoring.remembers(app, config) else {}
    carry = remembered(loaded.carry, 1, rows_of(world)) if remembers else None
    known = ", with what training remembered (--memory empty begins with nothing)" if remembers else ""
    print(f"{app.name} at step {loaded.step:,}{known}", flush=True)
    seed = config.seed + FRESH
    screen = (
        None
        if options.browser
        else open_window(options.show, f"{app.name}: {config.task}{', dreamed' if options.dream else ''}")
    )
    with closing(_shown(app, config, options)) as envs:
        team = team_of(envs)
        if not 0 <= options.agent < (1 if team is None else team.agents):
            there = "a single agent" if team is None else f"{team.agents} agents, 0 to {team.agents - 1}"
            raise UserError(f"--agent is {options.agent}, and {config.task} has {there}")
        key = key_shown(envs)
        observer = Observer(
            world, key, seed=seed, mode=options.mode, team=team, which=options.agent, draw=drawn(envs, key)
        )
        hands = Keyboard(tuple(envs.action_spec.discrete), int(envs.action_spec.continuous))
        if options.browser:
            from wm_run.browser import serve  # websockets comes with wm-run[play]

            stage = Stage(observer, envs, seed=seed, horizon=options.imagined, carry=carry)
            title = f"{app.name}: {config.task} at step {loaded.step:,}"
            serve(stage, hands, title, port=options.port, dreaming=options.dream)
            return 0
        choose: Choose = by_policy if screen is None else hands
        if options.dream:
            moments = in_dream(observer, envs, seed=seed, observed=options.observed, choose=choose, carry=carry)
        else:
            moments = in_environment(observer, envs, seed=seed, choose=choose, carry=carry)
        moments = narrate(moments, "dream" if options.dream else "episode")
        if screen is not None:
            with closing(screen):
                watch(moments, screen, hands, options.episodes)
            return 0
        pages = film(moments, options.episodes, options.frames)
    name = "play_dream" if options.dream else "play"
    path = Path(options.logdir) / "video" / f"{name}-{evaluation.stem(loaded.step, 'sample', changed, app.config)}.mp4"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, np.stack(pages), FPS)
    print(path)
    return 0


def _shown(app: App, config: RunConfig, options: Play) -> Environments:
    """The environment; where none is known, for a dream the recording that was learned from. Raises UserError for what would
    play in one."""
    if config.task or not config.data or not options.dream:
        return environments(app, replace(config, workers=0), 1)
    if options.browser:
        raise UserError(
            f"a browser plays on where a dream ends, and nothing can be played in the recording {config.data}: leave out "
            "--browser, or name an environment of its spaces with --task"
        )
    return Replaying(Recording.open(config.data))
