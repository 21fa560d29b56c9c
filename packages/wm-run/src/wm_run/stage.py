"""An agent at play, a step at a time: observe -> what the model expects -> choose -> step; in the environment or inside the
dream. Who shows it, in a window (play.py), a film or a browser (browser.py), holds the rest.

Sizes: N agents (1 where there is no team), A action, H W C image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from wm_core import draws
from wm_core.agent import Agent
from wm_core.observations import is_image
from wm_core.types import Carry, Latent, Recollection, Steps, Trace
from wm_core.world import MASK, stack

from wm_run.drawing import Draw
from wm_run.episodes import score_of
from wm_run.loop import Environments
from wm_run.remembered import Album, Recalling
from wm_run.teams import Team

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
    beside: tuple[NDArray[Any], ...] = ()  # of a team what each of its agents decodes, as `shown`


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
    beside: tuple[NDArray[Any], ...] = ()  # of a team what each of its agents sees, as `seen`; () inside a dream
    recalled: Recalling | None = None  # at this step, inside a dream where it began; None of who recalls nothing


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
    def expect(self, trace: Trace, step: Mapping[str, NDArray[Any]]) -> Predictions:
        """Anew of a trace's last step (1, ...): the policy draws again."""
        with draws.drawing(self.source), self.agent.computing():
            return self._predictions(self.agent.world.latest(trace), self._allowed(self._rows(step)))

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

    @torch.no_grad()
    def recalled(self, carry: Carry, step: Mapping[str, NDArray[Any]]) -> Recollection | None:
        """Which past steps `observe` recalls at one real step (1, ...); it draws nothing."""
        with draws.drawing(draws.Fixed()), self.agent.computing():
            return self.agent.world.recalled(carry, self._rows(step))

    def seen(self, step: Mapping[str, NDArray[Any]]) -> NDArray[Any] | None:
        """The observation to draw: (H, W, C), or flat."""
        return None if not self.key else self.pictured(step[self.key][0])

    def pictured(self, frame: NDArray[Any]) -> NDArray[Any]:
        """Of one step's observation, of a team all its agents' (N, ...), that of the agent asked, to draw."""
        return self.draw(frame if self.team is None else frame[self.which])

    def beside(self, step: Mapping[str, NDArray[Any]]) -> tuple[NDArray[Any], ...]:
        """The same of every agent of a team; () of one alone."""
        return () if self.team is None or not self.key else tuple(self.draw(one) for one in step[self.key][0])

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
        shown = world.decoder(latent)[self.key].mode() if self.key else None
        return Predictions(
            reward=self._number(world.heads["reward"](latent).mode()),
            value=self._number(critic(latent).mode()) if critic is not None else float("nan"),
            cont=self._number(world.going(latent)),
            shown=None if shown is None else self.draw(self._array(shown)),
            action=self._array(action),
            everyone=action[:, 0].float().cpu().numpy(),
            allowed=None if mask is None else mask[self.which].cpu().numpy(),
            beside=() if shown is None or self.team is None else self._each(shown),
        )

    def _number(self, value: Tensor) -> float:
        """Of (N, 1) that of the agent asked."""
        return float(value[self.which].float().reshape(()).cpu())

    def _array(self, value: Tensor) -> NDArray[np.float32]:
        """Of (N, 1, ...) that of the agent asked."""
        return value[self.which, 0].float().cpu().numpy()

    def _each(self, value: Tensor) -> tuple[NDArray[Any], ...]:
        """Of (N, 1, ...) that of every agent, drawn."""
        return tuple(self.draw(one) for one in value[:, 0].float().cpu().numpy())


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
    observer: Observer, envs: Environments, *, seed: int, choose: Choose = by_policy, carry: Carry = None
) -> Iterator[Moment]:
    """For ever, episode after episode of one environment. carry: what the agent knows at the start; None: nothing."""
    step, t, score = envs.reset(seed), 0, 0.0
    carry = observer.agent.initial(1) if carry is None else carry
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
    observer: Observer,
    envs: Environments,
    *,
    seed: int,
    observed: int,
    choose: Choose = by_policy,
    carry: Carry = None,
) -> Iterator[Moment]:
    """For ever: `observed` real steps, then a dream until the model expects the end or can hold no more, and so on.

    carry: what the agent knows at the start; None: nothing. Environments that follow a recording say what was `acted` there: no
    promise of Environments."""
    step = envs.reset(seed)
    carry = observer.agent.initial(1) if carry is None else carry
    dynamics = observer.agent.world.dynamics
    while True:
        for t in range(observed):
            trace, predicted = observer.observe(carry, step)
            carry = trace.carry
            if t == observed - 1:
                dream, predicted = observer.begin(trace, step)
            seen = observer.seen(step)
            reward = float(score_of(envs, step)[0])
            action, who = predicted.action, "policy"
            if t < observed - 1 and (acted := getattr(envs, "acted", None)) is not None:
                action, who = acted[0] if observer.team is None else acted[0, observer.which], "recording"
            yield Moment(t, False, seen, predicted, reward, 0.0, action, who, False)
            step = envs.step(observer.sent(predicted, predicted.action))
        action, t, score, over = predicted.action, observed, 0.0, False
        while not over:
            dream, predicted = observer.imagine(dream, observer.together(predicted, action))
            action, who = obeyed(predicted, choose)
            score, over = score + predicted.reward, predicted.cont < OVER or dynamics.left(dream) < 1
            yield Moment(t, True, None, predicted, None, score, action, who, over)
            t += 1


class Stage:
    """One environment and the dream of it, from which either goes on at any step: what is shown is `now`.

    A dream begins at the real step that is shown, and the environment waits there until it is over: at `horizon` steps, where
    the model expects the end, or where it can hold no more. carry: what the agent knows at the start; None: nothing.
    """

    def __init__(
        self, observer: Observer, envs: Environments, *, seed: int, horizon: int = 45, carry: Carry = None
    ) -> None:
        self.observer, self.envs, self.horizon = observer, envs, horizon
        self.step = envs.reset(seed)
        self.carry = observer.agent.initial(1) if carry is None else carry
        self.t, self.score, self.dreamt = 0, 0.0, 0
        self.dream: Carry | None = None
        self.album = Album()
        self.recollection: Recollection | None = None  # at the last real step
        self.which = self.asked = observer.which  # of a team: from the next step on, and where a dream began
        self.now = self._look()

    def go_on(self, choose: Choose = by_policy) -> Moment:
        """One step further, by what is chosen for the moment that is shown; from a dream that is over back to the real step
        where it began."""
        if self.now.imagined and self.now.over:
            return self.wake()
        action, who = obeyed(self.now.predicted, choose)
        if self.dream is not None:
            self.now = self._imagine(action, who)
        else:
            self.step = self.envs.step(self.observer.sent(self.now.predicted, action))
            self.now = self._look(who)
        return self.now

    def sleep(self) -> Moment:
        """The same moment, as the start of a dream: the policy acts on the state that the dream begins with."""
        if self.dream is None and not self.now.over:
            self.dream, predicted = self.observer.begin(self.trace, self.step)
            self.dreamt, self.real, self.asked = 0, self.now, self.which
            self.now = replace(self.now, predicted=predicted, action=predicted.action)
        return self.now

    def wake(self) -> Moment:
        """The real step where the dream began."""
        if self.dream is not None:
            self.dream, self.now = None, self.real
            if self.which != self.asked:
                return self.turn(self.which)
        return self.now

    def turn(self, which: int) -> Moment:
        """To another agent of a team: at once in the environment, in a dream with its next step. What was chosen for the one is
        nothing for the other, who may not even be allowed it."""
        self.which = which
        if self.dream is None:
            self.observer.which = which
            predicted = self.observer.expect(self.trace, self.step)
            seen, recalled = self.observer.seen(self.step), self._recalled()
            self.now = replace(self.now, seen=seen, predicted=predicted, action=predicted.action, recalled=recalled)
        return self.now

    def _look(self, who: str = "policy") -> Moment:
        self.observer.which, key = self.which, self.observer.key
        self.recollection = self.observer.recalled(self.carry, self.step)
        if self.recollection is not None:
            self.album.keep(self.step[key][0] if key else None)
        self.trace, predicted = self.observer.observe(self.carry, self.step)
        self.carry = self.trace.carry
        reward = float(score_of(self.envs, self.step)[0])
        first = bool(self.step["first"][0])
        self.t, self.score = (0, 0.0) if first else (self.t + 1, self.score + reward)
        seen, over = self.observer.seen(self.step), bool(self.step["last"][0])
        beside = self.observer.beside(self.step)
        recalled = self._recalled()
        return Moment(self.t, False, seen, predicted, reward, self.score, predicted.action, who, over, beside, recalled)

    def _recalled(self) -> Recalling | None:
        """By the agent that is shown, at the last real step: a dream recalls nothing more."""
        return None if self.recollection is None else self.album.found(self.recollection, self.which)

    def _imagine(self, action: Vector, who: str) -> Moment:
        before = self.now
        actions = self.observer.together(before.predicted, action)
        self.observer.which = self.which
        self.dream, predicted = self.observer.imagine(self.dream, actions)
        self.dreamt += 1
        short = self.dreamt < self.horizon and self.observer.agent.world.dynamics.left(self.dream) >= 1
        score = (before.score if before.imagined else 0.0) + predicted.reward
        over = predicted.cont < OVER or not short
        moment = Moment(before.t + 1, True, None, predicted, None, score, predicted.action, who, over)
        return replace(moment, recalled=self._recalled())
