"""`play LOGDIR`: observe -> what the model expects -> choose -> step, drawn; in the environment or inside the dream.

In a window (pygame, where there is a display) a held key takes the action away from the policy; elsewhere a video. Of a
team one agent is shown, and the others act beside it.
Sizes: N agents (1 where there is no team), A action, H W C image.
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
from wm_core.types import Carry, Latent, Steps, Trace
from wm_core.world import MASK, stack

from wm_run import evaluation
from wm_run.canvas import Canvas
from wm_run.drawing import Draw, drawn
from wm_run.episodes import score_of
from wm_run.filmstrip import Pixels
from wm_run.loading import environments, restore, with_world
from wm_run.loop import Environments
from wm_run.teams import Team, team_of
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
    everyone: NDArray[np.float32]  # (N, A) the actions of the whole team
    allowed: NDArray[np.bool_] | None = None  # (A,) what may be chosen, where that is said


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
    """An agent that says what it expects. Draws depend on `seed` alone. team: where there is one, `which` of its agents
    is asked. draw: of the observation a picture, where it is none."""

    def __init__(
        self,
        agent: Agent,
        key: str | None,
        *,
        seed: int,
        mode: bool = False,
        team: Team | None = None,
        which: int = 0,
        draw: Draw | None = None,
    ) -> None:
        self.agent, self.key, self.mode, self.team, self.which = agent, key, mode, team, which
        self.draw: Draw = draw or flattened
        self.source = draws.Generator(seed, agent.device)
        agent.eval()

    @torch.no_grad()
    def observe(self, carry: Carry, step: Mapping[str, NDArray[Any]]) -> tuple[Trace, Predictions]:
        """One real step (1, ...)."""
        steps, world = self._rows(step), self.agent.world
        with draws.drawing(self.source), self.agent.computing():
            trace = world.observe(carry, steps)
            return trace, self._predictions(world.latest(trace), self._allowed(steps))  # what it was trained to act on

    @torch.no_grad()
    def begin(self, trace: Trace, step: Mapping[str, NDArray[Any]]) -> tuple[Carry, Predictions]:
        """A dream from a trace's last step (1, ...). A world may draw where it begins, and the policy then acts on that
        draw; what is allowed there is known."""
        with draws.drawing(self.source), self.agent.computing():
            carry, latent = self.agent.world.starts(trace, 1)
            return carry, self._predictions(latent, self._allowed(self._rows(step)))

    @torch.no_grad()
    def imagine(self, carry: Carry, actions: NDArray[np.float32]) -> tuple[Carry, Predictions]:
        """One step of a dream, with everyone's actions (N, A)."""
        with draws.drawing(self.source), self.agent.computing():
            carry, latent = self.agent.world.imagine(carry, torch.as_tensor(actions).to(self.agent.device))
            return carry, self._predictions(latent, self.agent.world.mask(latent))

    def seen(self, step: Mapping[str, NDArray[Any]]) -> NDArray[Any] | None:
        """The observation to draw: (H, W, C), or flat."""
        if not self.key:
            return None
        return self.draw(step[self.key][0] if self.team is None else step[self.key][0, self.which])

    def together(self, predicted: Predictions, action: Vector) -> NDArray[np.float32]:
        """Everyone's actions (N, A), with this one of the agent that is asked."""
        actions = predicted.everyone.copy()
        actions[self.which] = action
        return actions

    def sent(self, predicted: Predictions, action: Vector) -> NDArray[np.float32]:
        """The same as one environment takes it: (1, A), or (1, N, A) of a team."""
        actions = self.together(predicted, action)
        return actions if self.team is None else actions[None]

    def _rows(self, step: Mapping[str, NDArray[Any]]) -> Steps:
        """A step (1, ...) as the world model takes it: (N, 1, ...)."""
        given = {name: torch.as_tensor(value)[:, None].to(self.agent.device) for name, value in step.items()}
        return self.agent.rows(given)

    def _allowed(self, steps: Steps) -> Tensor | None:
        return steps[MASK][:, -1] if self.agent.world.masks else None

    def _predictions(self, latent: Latent, mask: Tensor | None) -> Predictions:
        """Of a latent (N, ...) and the mask there."""
        world, behaviour = self.agent.world, self.agent.behaviour
        latent = stack([latent])
        policy = world.act(behaviour.policy, latent, None if mask is None else mask[:, None])
        action = policy.mode() if self.mode else policy.sample()
        critic = getattr(behaviour, "critic", None)  # no promise of Behaviour's
        cont = self._number(world.heads["cont"](latent).mode()) / world.discount
        return Predictions(
            reward=self._number(world.heads["reward"](latent).mode()),
            value=self._number(critic(latent).mode()) if critic is not None else float("nan"),
            cont=min(1.0, cont),
            shown=self.draw(self._array(world.decoder(latent)[self.key].mode())) if self.key else None,
            action=self._array(action),
            everyone=action[:, 0].float().cpu().numpy(),
            allowed=None if mask is None else mask[self.which].cpu().numpy(),
        )

    def _number(self, value: Tensor) -> float:
        """Of (N, 1) that of the agent asked."""
        return float(value[self.which].float().reshape(()).cpu())

    def _array(self, value: Tensor) -> NDArray[np.float32]:
        """Of (N, 1, ...) that of the agent asked."""
        return value[self.which, 0].float().cpu().numpy()


def flattened(value: NDArray[Any]) -> NDArray[Any]:
    """(H, W, C) as it is, anything else flat."""
    return value if value.ndim == 3 else value.reshape(-1)


def obeyed(predicted: Predictions, choose: Choose) -> tuple[Vector, str]:
    """What is chosen, or the policy's action where that is forbidden: a held key is no way around a mask."""
    action, who = choose(predicted.action)
    if predicted.allowed is not None and not predicted.allowed[action > 0].all():
        return predicted.action, "policy"
    return action, who


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
        reward = float(score_of(envs, step)[0])
        t, score = (0, 0.0) if first else (t + 1, score + reward)
        action, who = obeyed(predicted, choose)
        seen = observer.seen(step)
        yield Moment(t, False, seen, predicted, reward, score, action, who, bool(step["last"][0]))
        step = envs.step(observer.sent(predicted, action))


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
                dream, predicted = observer.begin(trace, step)
            seen = observer.seen(step)
            reward = float(score_of(envs, step)[0])
            yield Moment(t, False, seen, predicted, reward, 0.0, predicted.action, "policy", False)
            step = envs.step(observer.sent(predicted, predicted.action))
        action, t, score, over = predicted.action, observed, 0.0, False
        while not over:
            dream, predicted = observer.imagine(dream, observer.together(predicted, action))
            action, who = obeyed(predicted, choose)
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
        team = team_of(envs)
        if not 0 <= options.agent < (1 if team is None else team.agents):
            there = "a single agent" if team is None else f"{team.agents} agents, 0 to {team.agents - 1}"
            raise UserError(f"--agent is {options.agent}, and {config.task} has {there}")
        key = key_shown(envs)
        observer = Observer(
            world, key, seed=seed, mode=options.mode, team=team, which=options.agent, draw=drawn(envs, key)
        )
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
    path = Path(options.logdir) / "video" / f"{name}-{evaluation.stem(loaded.step, 'sample', changed, app.config)}.mp4"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, np.stack(pages), FPS)
    print(path)
    return 0
