"""`play LOGDIR`: observe -> what the model expects -> choose -> step, drawn; in the environment or inside the dream.

In a window (pygame, where there is a display) a held key takes the action away from the policy; elsewhere a video.
Sizes: A action, H W C image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from wm_core import draws
from wm_core.agent import Agent
from wm_core.errors import UserError
from wm_core.observations import is_image
from wm_core.types import Carry, Latent, Trace
from wm_core.world import stack

from wm_run import evaluation
from wm_run.canvas import Canvas
from wm_run.filmstrip import Pixels
from wm_run.loading import environments, restore, with_world
from wm_run.loop import Environments
from wm_run.video import write_video
from wm_run.window import FPS, KEYS, Keyboard, Screen, open_window

if TYPE_CHECKING:
    from wm_run.app import App
    from wm_run.cli import Command
    from wm_run.options import Play

FRESH = 20_000  # added to a run's seed, so that neither training nor evaluation has seen these episodes
OVER = 0.5  # a dream ends where the model thinks that going on is less likely than this
Vector = NDArray[np.float32]
Choose = Callable[[Vector], tuple[Vector, str]]  # the policy's action -> the action to take, and who takes it


@dataclass(frozen=True)
class Predictions:
    """What the model makes of one state: everything it predicts there, and the action that the policy would take."""

    reward: float
    value: float
    cont: float  # probability that the episode goes on, without the discount
    shown: NDArray[Any] | None  # the observation as decoded: (H, W, C) in [0, 1], or a vector (X,)
    action: Vector  # (A,)


@dataclass(frozen=True)
class Moment:
    """One frame: the action in it leads to the next one."""

    t: int  # steps since the episode or dream began
    imagined: bool
    seen: NDArray[Any] | None  # the real observation; None inside a dream
    predicted: Predictions
    reward: float | None  # arrived; None inside a dream
    score: float  # of arrived rewards, inside a dream of predicted ones
    action: Vector  # (A,) taken
    who: str
    over: bool


def key_shown(envs: Environments) -> str | None:
    """The observation to draw: the first image, else the first vector, else none."""
    spaces = envs.observation_space.spaces
    images = [key for key, space in spaces.items() if is_image(space)]
    vectors = [key for key, space in spaces.items() if np.dtype(space.dtype).kind == "f" and space.shape]
    return next(iter([*sorted(images), *sorted(vectors)]), None)


class Observer:
    """An agent that says what it expects. Draws depend on `seed` alone."""

    def __init__(self, agent: Agent, key: str | None, *, seed: int, mode: bool = False) -> None:
        self.agent, self.key, self.mode = agent, key, mode
        self.source = draws.Generator(seed, agent.device)
        agent.eval()

    @torch.no_grad()
    def observe(self, carry: Carry, step: Mapping[str, NDArray[Any]]) -> tuple[Trace, Predictions]:
        """One real step (1, ...)."""
        steps = {name: torch.as_tensor(value)[:, None].to(self.agent.device) for name, value in step.items()}
        with draws.drawing(self.source), self.agent.computing():
            trace = self.agent.world.observe(carry, steps)
            return trace, self._predictions(self.agent.world.latest(trace))  # what the policy was trained to act on

    @torch.no_grad()
    def begin(self, trace: Trace) -> tuple[Carry, Predictions]:
        """A dream from a trace's last step. A world may draw where it begins, and the policy then acts on that draw."""
        with draws.drawing(self.source), self.agent.computing():
            carry, latent = self.agent.world.starts(trace, 1)
            return carry, self._predictions(latent)

    @torch.no_grad()
    def imagine(self, carry: Carry, action: Vector) -> tuple[Carry, Predictions]:
        """One step of a dream."""
        with draws.drawing(self.source), self.agent.computing():
            given = torch.as_tensor(action)[None].to(self.agent.device)
            carry, latent = self.agent.world.imagine(carry, given)
            return carry, self._predictions(latent)

    def seen(self, step: Mapping[str, NDArray[Any]]) -> NDArray[Any] | None:
        """The observation to draw: (H, W, C), or flat."""
        value = step[self.key][0] if self.key else None
        return value if value is None or value.ndim == 3 else value.reshape(-1)

    def _predictions(self, latent: Latent) -> Predictions:
        """Of a latent (1, ...)."""
        world, behaviour = self.agent.world, self.agent.behaviour
        latent = stack([latent])
        policy = behaviour.policy(latent)
        action = policy.mode() if self.mode else policy.sample()
        critic = getattr(behaviour, "critic", None)  # no promise of Behaviour's
        cont = _number(world.heads["cont"](latent).mode()) / world.discount
        return Predictions(
            reward=_number(world.heads["reward"](latent).mode()),
            value=_number(critic(latent).mode()) if critic is not None else float("nan"),
            cont=min(1.0, cont),
            shown=_array(world.decoder(latent)[self.key].mode()) if self.key else None,
            action=_array(action),
        )


def _number(value: Tensor) -> float:
    return float(value.float().reshape(()).cpu())


def _array(value: Tensor) -> NDArray[np.float32]:
    """Without its two leading ones."""
    return value[0, 0].float().cpu().numpy()


def by_policy(action: Vector) -> tuple[Vector, str]:
    """Nobody else chooses."""
    return action, "policy"


def in_environment(
    observer: Observer, envs: Environments, *, seed: int, choose: Choose = by_policy
) -> Iterator[Moment]:
    """For ever, episode after episode of one environment."""
    step, carry, t, score = envs.reset(seed), observer.agent.initial(1), 0, 0.0
    while True:
        trace, predicted = observer.observe(carry, step)
        carry, first = trace.carry, bool(step["first"][0])
        t, score = (0, 0.0) if first else (t + 1, score + float(step["reward"][0]))
        action, who = choose(predicted.action)
        seen = observer.seen(step)
        yield Moment(t, False, seen, predicted, float(step["reward"][0]), score, action, who, bool(step["last"][0]))
        step = envs.step(action[None])


def in_dream(
    observer: Observer, envs: Environments, *, seed: int, observed: int, choose: Choose = by_policy
) -> Iterator[Moment]:
    """For ever: `observed` real steps, then a dream until the model expects the end or can hold no more, and so on."""
    carry, step = observer.agent.initial(1), envs.reset(seed)
    dynamics = observer.agent.world.dynamics
    while True:
        for t in range(observed):
            trace, predicted = observer.observe(carry, step)
            carry = trace.carry
            if t == observed - 1:
                dream, predicted = observer.begin(trace)
            seen = observer.seen(step)
            yield Moment(t, False, seen, predicted, float(step["reward"][0]), 0.0, predicted.action, "policy", False)
            step = envs.step(predicted.action[None])
        action, t, score, over = predicted.action, observed, 0.0, False
        while not over:
            dream, predicted = observer.imagine(dream, action)
            action, who = choose(predicted.action)
            score, over = score + predicted.reward, predicted.cont < OVER or dynamics.left(dream) < 1
            yield Moment(t, True, None, predicted, None, score, action, who, over)
            t += 1


def watch(moments: Iterator[Moment], screen: Screen, hands: Keyboard, episodes: int) -> None:
    """Show until that many episodes or dreams are over, or the user ends it."""
    canvas, paused = Canvas(), False
    moment = next(moments)
    while True:
        screen.show(canvas.draw(moment, KEYS))
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
    if min(options.episodes, options.frames, options.observed) < 1:
        raise UserError("--episodes, --frames and --observed must be at least 1")
    changed = evaluation.changed(command.saved, command.config, "play")
    loaded = restore(app, Path(options.logdir), command.config)
    config = loaded.config
    world = with_world(app, loaded.agent, "`play` has no expectation to draw; `eval` plays, and says how well")
    print(f"{app.name} at step {loaded.step:,}", flush=True)
    seed = config.seed + FRESH
    screen = open_window(options.show, f"{app.name}: {config.task}{', dreamed' if options.dream else ''}")
    with closing(environments(app, replace(config, workers=0), 1)) as envs:
        observer = Observer(world, key_shown(envs), seed=seed, mode=options.mode)
        hands = Keyboard(tuple(envs.action_spec.discrete), int(envs.action_spec.continuous))
        choose: Choose = by_policy if screen is None else hands
        if options.dream:
            moments = in_dream(observer, envs, seed=seed, observed=options.observed, choose=choose)
        else:
            moments = in_environment(observer, envs, seed=seed, choose=choose)
        moments = narrate(moments, "dream" if options.dream else "episode")
        if screen is not None:
            with closing(screen):
                watch(moments, screen, hands, options.episodes)
            return 0
        pages = film(moments, options.episodes, options.frames)
    name = "play_dream" if options.dream else "play"
    path = Path(options.logdir) / "video" / f"{name}-{evaluation.stem(loaded.step, 'sample', changed)}.mp4"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, np.stack(pages), FPS)
    print(path)
    return 0
