"""env -> act -> replay -> learn -> env: the one training loop.

Sizes: n environments, A action. `steps` are environment steps with action repeat; reset records are not counted.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from wm_core.learner import Learner
from wm_core.ranks import ranks
from wm_core.types import Carry

from wm_run.alarm import Sentinel
from wm_run.episodes import Episode, outcomes_of, score_of
from wm_run.feed import Feed
from wm_run.meter import Meter
from wm_run.replay import Replay
from wm_run.stop import say

Step = Mapping[str, NDArray[Any]]  # one record of n environments: every value (n, ...)
PRIVATE = ("fps/", "usage/", "time/")  # metrics that are no function of the run's seed


class Environments(Protocol):
    """What the loop asks of n environments: batched step dictionaries under next-step auto-reset.

    A record holds of every environment `action` (n, A), which led here, `reward` (n,), `first`, `last`, `terminal` (n,) bool
    and the observations (n, ...). After one with `last` the next is the reset record of that row, whatever its action. Of
    several agents: `env_adapters.vector.VectorEnv`.
    """

    num_envs: int
    repeat: int  # environment steps per action
    observation_space: Any  # a gymnasium Dict, of one environment
    action_space: Any
    action_spec: Any

    @property
    def protocol(self) -> Mapping[str, Any]:
        """What a score means: task, suite, versions and the options it was played with."""

    def reset(self, seed: int) -> Step:
        """Every environment anew, with its first episode: the reset records."""

    def step(self, action: NDArray[np.float32]) -> Step:
        """One step of every environment with action (n, A): `send`, then `receive`."""

    def send(self, action: NDArray[np.float32]) -> None:
        """Begin one step with action (n, A). ValueError for what is no such action; RuntimeError before `reset`, and where
        records were not received."""

    def receive(self) -> Step:
        """The records of what was sent. RuntimeError where nothing was."""

    def state(self) -> dict[str, Any]:
        """All that the future depends on, of what a checkpoint takes."""

    def load_state(self, state: dict[str, Any]) -> Step | None:
        """Go on where `state` was taken; gives records to go on from, where they are not those saved."""

    def take_faults(self) -> list[str]:
        """Sentences about what went wrong since the last call and was got over."""

    @property
    def cut(self) -> NDArray[np.bool_]:
        """(n,) whose episode a fault has cut short with the last records."""

    @property
    def failure(self) -> str:
        """Why nothing more may be sent, or empty; the state may still be saved."""

    def close(self) -> None:
        """Twice does no harm."""


class Log(Protocol):
    """Where numbers go: the run folder, or a list in a test."""

    def metrics(self, step: int, values: Mapping[str, float], /) -> None:
        """One row of numbers at an environment step."""

    def score(self, step: int, score: float, length: int, /, **outcomes: float) -> None:
        """An episode that ended at an environment step: its score, its length in steps, and what else came of it (`won`)."""


class Ratio:
    """How many updates are due: `train_ratio` replayed steps per policy step, exactly, with fractions kept.

    The first call gives `first` updates, and starts to count; steps before it are not owed (dreamerv3.md section 10).

    >>> ratio = Ratio(train_ratio=4, replayed=16)
    >>> [ratio.due(2) for _ in range(5)]
    [1, 0, 1, 0, 1]
    """

    def __init__(self, train_ratio: float, replayed: int, first: int = 1) -> None:
        self.train_ratio, self.replayed, self.first = train_ratio, replayed, first
        self.owed: float | None = None  # replayed steps not yet made up for; None before learning started
        self.given = 0  # updates in this process

    def due(self, policy_steps: int) -> int:
        """Updates due after that many more policy steps; `replayed` steps each."""
        if self.owed is None:
            self.owed, updates = 0.0, self.first if self.train_ratio else 0
        else:
            self.owed += policy_steps * self.train_ratio
            updates = int(self.owed // self.replayed)
            self.owed -= updates * self.replayed
        self.given += updates
        return updates


@dataclass
class Position:
    """Where the loop stands between two iterations: with agent, environments, replay and logs, all of a run."""

    step: Step  # the records that the next `act` sees
    carry: Carry
    ratio: Ratio
    score: NDArray[np.float64]  # (n,) of the episodes under way
    length: NDArray[np.int64]  # (n,) actions of the episodes under way
    steps: int = 0
    fresh: int = 0  # policy steps since the ratio last looked
    due: int = 0  # updates of the iteration under way that are still to be made, where a stop came between two
    arrived: Step | None = None  # the records of that iteration, which are taken note of when they are made
    logged: int = 0  # steps // log_every at the last log
    updates: int = 0  # since the last log
    played: int = 0  # policy steps since the last log
    meter: Meter = field(default_factory=Meter)
    unshown: list[str] = field(default_factory=list)  # evaluations and films that were due here and are not made yet

    @classmethod
    def begin(cls, agent: Learner, envs: Environments, *, seed: int, **ratio: Any) -> Position:
        """At the first reset, knowing nothing. ratio: of `Ratio`."""
        n = envs.num_envs
        step, carry = envs.reset(seed), agent.initial(n)
        return cls(step, carry, Ratio(**ratio), np.zeros(n), np.zeros(n, np.int64))

    def count(self, envs: Environments, resets: bool = False) -> list[Episode]:
        """Take note of the records that have just arrived; gives the episodes that end here, but for those that a fault has
        cut short: they would count as short ones. The ratio sees actions, or every record where `resets` is said."""
        real = ~self.step["first"]
        self.score = np.where(real, self.score + score_of(envs, self.step), 0.0)
        self.length = np.where(real, self.length + 1, 0)
        played, seen = ranks().total(int(real.sum()), len(real) if resets else int(real.sum()))
        self.steps += played * envs.repeat
        self.fresh += seen
        self.played += played
        return [
            Episode(float(self.score[i]), int(self.length[i]), outcomes_of(envs, self.step, i))
            for i in np.flatnonzero(self.step["last"] & ~envs.cut).tolist()
        ]

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        numbers = ("steps", "fresh", "due", "logged", "updates", "played", "score", "length", "carry")
        return (
            {name: getattr(self, name) for name in numbers}
            | {
                "step": dict(self.step),
                "arrived": None if self.arrived is None else dict(self.arrived),
                "owed": self.ratio.owed,
                "unshown": list(self.unshown),
            }
            | self.meter.state()
        )

    def load_state(self, state: Mapping[str, Any], device: torch.device | str) -> None:
        """Stand where `state` was taken."""
        for name in ("steps", "fresh", "logged", "updates", "played", "score", "length"):
            setattr(self, name, state[name])
        self.step, self.carry = state["step"], to_device(state["carry"], device)
        self.due, self.arrived = state.get("due", 0), state.get("arrived")  # older runs stopped after all updates
        self.ratio.owed, self.unshown = state["owed"], list(state.get("unshown", ()))
        self.meter.load_state(state, device)

    @classmethod
    def resume(cls, state: Mapping[str, Any], device: torch.device | str, **ratio: Any) -> Position:
        """A position from `state` alone. ratio: of `Ratio`."""
        self = cls(state["step"], None, Ratio(**ratio), state["score"], state["length"])
        self.load_state(state, device)
        return self


def train(
    agent: Learner,
    envs: Environments,
    replay: Replay,
    at: Position,
    log: Log,
    *,
    log_every: int,
    learning_starts: int,
    length: int,
    temperature: float = 1.0,
    count_resets: bool = False,
    feed: Feed | None = None,
    go_on: Callable[[Position], bool],
    stopped: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = say,
) -> None:
    """Act (at the `temperature` of the policy's samples), keep, learn, step, until `go_on(at)` says no; it is asked before
    every iteration, and may save or show.

    `stopped` is asked between updates, of which many may be due: what is left of them is made up for when the run goes
    on. It must go on being true, and `go_on` then say no. `feed` lies between agent and replay.

    The environments step while the agent learns, where they have processes of their own. What is learned takes effect
    at the next act, and what arrives is kept after it, so this changes no number: the run is a function of its seed,
    whatever takes how long. No action is out while `go_on` is asked. Everything is triggered by steps, so that a run
    stopped and resumed goes the way of an unbroken one. Raises NotFinite after an update with a loss or gradient that is
    not, before `go_on` is asked again.
    """
    timer, earlier = time.monotonic(), (at.played, at.updates)  # of this interval, but before this process
    feed = feed or Feed(replay)
    sentinel = Sentinel()
    while go_on(at):
        if at.arrived is None:
            at.carry, action, notes = agent.act(at.carry, at.step, temperature=temperature)
            envs.send(action)
            replay.add({**at.step, **notes})
            waiting = replay.steps < learning_starts or not replay.ready(length)
            if ranks().total(waiting) == [0]:
                at.due, at.fresh = at.ratio.due(at.fresh), 0
        while at.due:
            metrics = agent.learn(feed)
            sentinel.look(metrics, feed.advance())
            at.meter.add(metrics)
            at.updates += 1
            at.due -= 1
            if at.due and ranks().total(stopped()) != [0]:
                break
        if at.arrived is None:
            at.arrived = envs.receive()
        if at.due:
            _tell(envs, at, log, say)
            sentinel.check()
            continue
        at.step, at.arrived = at.arrived, None
        before = at.steps
        ended = at.count(envs, count_resets)
        agent.clock.count_steps((at.steps - before) // envs.repeat)
        for episode in ended:
            log.score(at.steps, episode.score, episode.length, **episode.outcomes)
        _tell(envs, at, log, say)
        if at.steps // log_every > at.logged:
            now = time.monotonic()
            speed = (now - timer, (at.played - earlier[0]) * envs.repeat, at.updates - earlier[1])
            log.metrics(at.steps, _numbers(at, agent, replay, *speed))
            at.logged, at.updates, at.played, timer, earlier = at.steps // log_every, 0, 0, now, (0, 0)
        sentinel.check()  # before `go_on` may save; the device has had the whole step of the environments for it


def _tell(envs: Environments, at: Position, log: Log, say: Callable[[str], None]) -> None:
    """What became of environments since this was last asked."""
    for sentence in envs.take_faults():
        say(sentence)
        log.metrics(at.steps, {"env/faults": 1})


def _numbers(
    at: Position, agent: Learner, replay: Replay, seconds: float, steps: int, updates: int
) -> dict[str, float]:
    """One line of metrics; `steps` and `updates` were made in these seconds."""
    speeds = {
        "fps/policy": steps / max(seconds, 1e-9),
        "fps/train": updates * at.ratio.replayed / max(seconds, 1e-9),
    }
    return learned(at, agent, replay, at.meter.take()) | speeds | usage(agent)


def usage(agent: Learner) -> dict[str, float]:
    """What this process has taken of memory, at its most, in GB."""
    unit = 1e9 if sys.platform == "darwin" else 1e6
    found = {"usage/ram_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit}
    if agent.device.type == "cuda":
        found["usage/vram_gb"] = torch.cuda.max_memory_allocated(agent.device) / 1e9
    return found


def learned(at: Position, agent: Learner, replay: Replay, means: Mapping[str, float]) -> dict[str, float]:
    """What is a function of the run's seed."""
    return {f"train/{name}": value for name, value in means.items()} | {
        "train/updates": int(agent.clock.updates),
        "replay/steps": replay.steps,
        "replay/replay_ratio": at.updates * at.ratio.replayed / max(1, at.played),
    }


def rest(at: Position, agent: Learner, replay: Replay) -> dict[str, float]:
    """Of the interval that a run's end cuts short, what a line of it would say but for the machine's speed; {} where nothing
    has happened since the last line. Nothing is forgotten, for a run with more steps goes on with the interval."""
    return learned(at, agent, replay, at.meter.means()) if at.played else {}


def to_device(value: Any, device: torch.device | str) -> Any:
    """Every tensor of nested dicts, lists and tuples on the device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: to_device(item, device) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(to_device(item, device) for item in value)
    return value
