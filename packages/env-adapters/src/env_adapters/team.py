"""Several agents in one environment: the axis they add to every record, and what a record then tells beside observations.

Spaces describe ONE agent; N of them act at once. What an environment returns has the agents along its first axis, what the
vector form records has them behind that of the environments. Without agents the axis is empty and nothing else changes.
"""

# n environments, N agents, A width of an action vector, S of the global state

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from env_adapters.actions import ActionCodec, ActionSpec
from env_adapters.errors import TaskError
from env_adapters.facts import fact
from env_adapters.names import RESERVED, TEAM
from env_adapters.nested import Space, join, split
from env_adapters.step import Environment
from env_adapters.values import Notices, entry

Bools = NDArray[np.bool_]


class TeamEnv(gymnasium.Env[Any, Any]):
    """An environment of several agents; any class that says `env_adapters = True` and has `agents` is one, too.

    `observation_space` and `action_space` are of ONE agent. `reset` gives (observation, info); `step(actions)` takes N native
    actions and gives (observation, rewards (N,), terminated, truncated, info): each entry of the observation has a leading N,
    and the two flags are the team's. In `info`, at every record: `action_mask` (N, A) bool, what may be chosen after it (absent
    where everything may); `alive` (N,) bool (absent where all are); `state` (S,) if there is a `state_size`; and the signals.
    What the record shows of an agent that is not alive is blanked by whoever records it: a zero observation, and a mask of the
    no-op alone, or of everything where there is none.

    agents: N. noop: the action that an absent agent takes, None where there is none. state_size: S, of the global state that is
    for centralised critics alone. signals: names of bools in info; those among agent_signals are (N,). outcomes: signals whose
    value in an episode's last record is its result ("won").

    >>> class Pair(TeamEnv):
    ...     agents, observation_space, action_space = 2, spaces.Box(0, 1, (3,)), spaces.Discrete(2)
    ...     def reset(self, *, seed=None, options=None):
    ...         return np.zeros((2, 3), np.float32), {"action_mask": np.array([[True, True], [False, True]])}
    ...     def step(self, actions):
    ...         return np.ones((2, 3), np.float32), np.ones(2), True, False, {}
    >>> from env_adapters import make_vec
    >>> record = make_vec(Pair, 5).reset(seed=0)
    >>> record["vector"].shape, record["reward"].shape, record["action_mask"][0].tolist(), record["first"].shape
    ((5, 2, 3), (5, 2), [[True, True], [False, True]], (5,))
    """

    env_adapters = True
    agents: int | None = None
    noop: int | None = None
    state_size: int | None = None
    signals: tuple[str, ...] = ()
    agent_signals: tuple[str, ...] = ()
    outcomes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Team:
    """What an environment says of its agents; `agents` is None where records have no such axis. See `TeamEnv`.

    >>> Team(agents=3).axis, Team().axis
    ((3,), ())
    """

    agents: int | None = None
    noop: int | None = None
    state_size: int | None = None
    signals: tuple[str, ...] = ()
    agent_signals: tuple[str, ...] = ()
    outcomes: tuple[str, ...] = ()

    @property
    def axis(self) -> tuple[int, ...]:
        """The agents' axis of an array: (N,), or ()."""
        return () if self.agents is None else (self.agents,)

    @property
    def taken(self) -> tuple[str, ...]:
        """Names that no observation may have, beside those of every step."""
        return (*self.signals, *(TEAM if self.agents is not None else ()))

    def shapes(self, width: int) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
        """Of ONE environment: shape and dtype of each signal, and of what a record tells beside observations."""
        bools = np.dtype(np.bool_)
        found: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {
            name: (self.axis if name in self.agent_signals else (), bools) for name in self.signals
        }
        if self.agents is not None:
            found |= {"action_mask": ((self.agents, width), bools), "alive": (self.axis, bools)}
        if self.state_size is not None:
            found["state"] = (self.state_size,), np.dtype(np.float32)
        return found


def team_of(env: Environment) -> Team:
    """What an environment says of its agents. TaskError where that cannot be.

    >>> team_of(gymnasium.make("CartPole-v1"))
    Team(agents=None, noop=None, state_size=None, signals=(), agent_signals=(), outcomes=())
    """
    agents, noop, size = fact(env, "agents", None), fact(env, "noop", None), fact(env, "state_size", None)
    signals, each, outcomes = (tuple(fact(env, name, ())) for name in ("signals", "agent_signals", "outcomes"))
    name = type(env.unwrapped).__name__
    if agents is None:
        odd = [
            one
            for one, value in (("noop", noop), ("state_size", size), ("agent_signals", each or None))
            if value is not None
        ]
        if odd:
            raise TaskError(f"{name} has {', '.join(odd)} and no agents; say how many there are (agents)")
    elif type(agents) is not int or agents < 1:
        raise TaskError(
            f"{name}: agents is {agents!r}; it counts them and is at least 1, or None where there is no such axis"
        )
    for what, value, most in (("noop", noop, _actions(env.action_space)), ("state_size", size, None)):
        least = 0 if what == "noop" else 1
        if value is not None and not (type(value) is int and least <= value and (most is None or value < most)):
            way = "the index of an action of a Discrete space" if what == "noop" else "a number of entries"
            raise TaskError(f"{name}: {what} is {value!r}; it is {way}, or None")
    for what, names in (("agent_signals", each), ("outcomes", outcomes)):
        if strange := set(names) - set(signals):
            raise TaskError(f"{name}: {what} names {min(strange)!r}, which is none of its signals; add it to signals")
    team = Team(agents, noop, size, signals, each, outcomes)
    if odd_names := set(signals) & {*RESERVED, *(TEAM if agents is not None else ())}:
        raise TaskError(f"the signal {min(odd_names)!r} has the name of an entry of every step; rename it")
    return team


def _actions(space: Space) -> int:
    """How many a no-op can be one of."""
    return int(space.n) if isinstance(space, spaces.Discrete) else 0


class Beside:
    """info -> what a record tells beside observations, and which agents are absent; of a single agent nothing and nobody.

    TaskError where info lacks it, or where an agent that is alive may do nothing.

    >>> beside, absent = Beside(Team(agents=2, noop=0), ActionSpec((3,)))({"alive": [True, False]})
    >>> beside["action_mask"].tolist(), absent.tolist()
    ([[True, True, True], [True, False, False]], [1])
    """

    def __init__(self, team: Team, spec: ActionSpec) -> None:
        self.notices: Notices = {}
        self._team, self._spec = team, spec
        self._everything, self._everyone = np.ones((*team.axis, spec.size), np.bool_), np.ones(team.axis, np.bool_)
        self._absent = np.zeros(spec.size, np.bool_)
        self._absent[slice(None) if team.noop is None else team.noop] = True
        self._mask = entry("action_mask", spaces.MultiBinary((*team.axis, spec.size)), self.notices)
        self._alive = entry("alive", spaces.MultiBinary(team.axis or 1), self.notices)
        self._state = entry("state", spaces.Box(-np.inf, np.inf, (team.state_size or 1,)), self.notices)

    def __call__(self, info: Mapping[str, Any]) -> tuple[dict[str, NDArray[Any]], NDArray[np.intp]]:
        if self._team.agents is None:
            return {}, _NOBODY
        mask = self._bools(self._mask, info.get("action_mask"), self._everything)
        alive = self._bools(self._alive, info.get("alive"), self._everyone)
        absent = np.flatnonzero(~alive)
        mask[absent] = self._absent
        self._check(mask)
        found = {"action_mask": mask, "alive": alive}
        if self._team.state_size is not None:
            found["state"] = self._state.read(info.get("state"))
        return found, absent

    @staticmethod
    def _bools(kind: Any, value: Any, otherwise: Bools) -> Bools:
        """A copy of what info gives, or of what holds where it gives nothing."""
        if value is None:
            return otherwise.copy()
        if type(value) is np.ndarray and value.dtype == np.bool_ and value.shape == otherwise.shape:
            return value.copy()
        return np.asarray(kind.read(value), np.bool_)

    def _check(self, mask: Bools) -> None:
        for part in components(self._spec):
            nothing = ~mask[:, part].any(1)
            if nothing.any():
                agent = int(nothing.argmax())
                raise TaskError(
                    f"the environment's action_mask allows agent {agent} no action: allow one, or say it is not alive"
                )
        mask[:, sum(self._spec.discrete) :] = True  # a mask is about choices


_NOBODY = np.zeros(0, np.intp)


def components(spec: ActionSpec) -> list[slice]:
    """Where each choice stands in an action vector.

    >>> components(ActionSpec((3, 2), 1))
    [slice(0, 3, None), slice(3, 5, None)]
    """
    return [slice(a, b) for a, b in pairwise(np.cumsum([0, *spec.discrete]).tolist())]


def choose(spec: ActionSpec, scores: NDArray[Any], mask: Bools | None = None) -> NDArray[np.float32]:
    """Action vectors (..., A) of scores (..., A): of each choice the one with the largest score of those that the mask allows;
    continuous components pass.

    >>> choose(ActionSpec((3,)), np.array([0.1, 0.9, 0.2]), np.array([True, False, True])).tolist()
    [0.0, 0.0, 1.0]
    """
    action = np.array(scores, np.float32)
    for part in components(spec):
        allowed = scores[..., part] if mask is None else np.where(mask[..., part], scores[..., part], -np.inf)
        action[..., part] = np.eye(part.stop - part.start, dtype=np.float32)[allowed.argmax(-1)]
    return action


def check_allowed(spec: ActionSpec, action: NDArray[Any], step: Mapping[str, NDArray[Any]]) -> None:
    """ValueError for an action (n, N, A) that the mask of the records before it forbids, where their episodes go on.

    >>> step = {"action_mask": np.array([[[True, False]]]), "last": np.array([False])}
    >>> check_allowed(ActionSpec((2,)), np.array([[[0.0, 1.0]]]), step)
    Traceback (most recent call last):
    ...
    ValueError: environment 0, agent 0: action 1 is masked out; it may choose 0
    """
    mask = step.get("action_mask")
    if mask is None:
        return
    for part in components(spec):
        chosen = action[..., part].argmax(-1)
        allowed = np.take_along_axis(mask[..., part], chosen[..., None], -1)[..., 0]
        if not (allowed | step["last"][:, None]).all():
            env, agent = np.argwhere(~(allowed | step["last"][:, None]))[0].tolist()
            rest = ", ".join(map(str, np.flatnonzero(mask[env, agent, part]).tolist()))
            which = f"action {chosen[env, agent]}" + (f" of component {part}" if len(spec.discrete) > 1 else "")
            raise ValueError(f"environment {env}, agent {agent}: {which} is masked out; it may choose {rest}")


def sample(space: Space, team: Team, info: Mapping[str, Any]) -> Any:
    """A random native action, or the random actions of N agents after a record with this info, as far as its masks go."""
    if team.agents is None:
        return space.sample()
    codec, width = ActionCodec(space), range(team.agents)
    mask = Beside(team, codec.spec)(info)[0]["action_mask"]
    noise = np.stack([codec.encode(space.sample()) for _ in width])
    return decoded(codec, choose(codec.spec, noise, mask))


def decoded(codec: ActionCodec, action: NDArray[Any]) -> Any:
    """The native action of a vector (A,), or the native actions of vectors (N, A)."""
    return codec.decode(action) if action.ndim == 1 else [codec.decode(one) for one in action]


def split_actions(space: Space, action: Any, axis: Sequence[int]) -> list[Any]:
    """The values of an action's leaves; of N agents' actions each leaf has N values."""
    return (
        [list(leaf) for leaf in zip(*(split(space, one) for one in action), strict=True)]
        if axis
        else split(space, action)
    )


def join_actions(space: Space, values: Sequence[Any], axis: Sequence[int]) -> Any:
    """The inverse of `split_actions`."""
    return [join(space, iter(one)) for one in zip(*values, strict=True)] if axis else join(space, iter(values))
