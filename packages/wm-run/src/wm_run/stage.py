"""An agent at play, a step at a time: observe -> what the model expects -> choose -> step; in the environment or inside the
dream. Who shows it, in a window (play.py), a film or a browser (browser.py), holds the rest.

Sizes: N agents (1 where there is no team), A action, H W C image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray
from wm_core.types import Carry, Recollection

from wm_run.episodes import score_of
from wm_run.loop import Environments
from wm_run.observer import Observer, Predictions, Vector
from wm_run.remembered import Album, Recalling

OVER = 0.5  # a dream ends where the model thinks that going on is less likely than this
Choose = Callable[[Vector], tuple[Vector, str]]  # the policy's action -> the action to take, and who takes it


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
                return self.switch(self.which)
        return self.now

    def switch(self, which: int) -> Moment:
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
