"""`zoo:<module>`: the agents of a PettingZoo environment, as one environment of N."""

# N agents, A actions, S of the global state

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib.util
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from env_adapters.actions import ActionCodec
from env_adapters.alike import Alike
from env_adapters.errors import TaskError, brief
from env_adapters.modules import imported
from env_adapters.nested import Space
from env_adapters.team import TeamEnv

MASK = "action_mask"
SHIPPED = ("mpe2", "pettingzoo")  # packages whose environments `zoo:` is for


class Zoo(TeamEnv):
    """A `pettingzoo.ParallelEnv` whose agents are `possible_agents`, in that order.

    An agent that terminates has left with the record of its termination, which still brings its reward; so has one that is
    truncated while others go on. The episode is over when nobody is left to act: terminal where all terminated, else a truncation,
    whose record still shows those that it stopped. Masks are read from the entry "action_mask" of Dict observations, or from
    info; an observation beside it alone is the whole. The state is `state()` where there is one, made flat, and no picture.

    An episode follows from its seed and its actions alone: the environment is made anew for each, because there are some that
    carry things over (knights_archers_zombies its spawn timer).

    make: gives the environment. name: the task's, for messages and the protocol.

    TaskError where the agents' actions are not alike, or their observations cannot be made so (see `alike.Alike`).
    """

    repeat = 1

    def __init__(self, make: Callable[[], Any], name: str) -> None:
        self._make, self._name = make, name
        self._env = env = make()
        self._names = list(getattr(env, "possible_agents", ()))
        if not self._names:
            raise TaskError(
                f"{name} does not say who its agents may be (possible_agents); only a fixed number of them fits"
            )
        acts = {one: env.action_space(one) for one in self._names}
        odd = next((one for one, space in acts.items() if space != acts[self._names[0]]), None)
        if odd is not None:
            first = self._names[0]
            raise TaskError(
                f"{name}: {first} acts in {brief(acts[first])} and {odd} in {brief(acts[odd])}: all agents share one policy, so "
                "make their actions alike with a wrapper"
            )
        self.agents, self.action_space = len(self._names), acts[self._names[0]]
        self._alike = Alike(name, {one: _bare(env.observation_space(one)) for one in self._names})
        self.observation_space = self._alike.space
        self._width = ActionCodec(self.action_space).spec.size
        self.metadata = dict(getattr(env, "metadata", None) or {})
        self.render_mode = getattr(env, "render_mode", None)
        noop = self.metadata.get("noop")
        actions = int(self.action_space.n) if isinstance(self.action_space, spaces.Discrete) else 0
        self.noop = noop if type(noop) is int and 0 <= noop < actions else None
        self._here: list[Any] = []  # who acts next
        self._all_terminated = True
        self._used = False
        self.state_size = self._find_state()
        self.protocol: dict[str, Any] = {
            "name": name,
            "suite": "zoo",
            "agents": self.agents,
            "names": [str(one) for one in self._names],
            "max_steps": _plain(getattr(getattr(env, "unwrapped", env), "max_cycles", None)),
            "score": "the rewards, mean over the agents",
            "repeat": 1,
            "package": _package(type(getattr(env, "unwrapped", env)).__module__),
        }

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As gymnasium's."""
        super().reset(seed=seed)
        if self._used:
            self._env.close()
            self._env = self._make()
        self._used = True
        shown, info = self._env.reset(seed=seed, options=options)
        self._here, self._all_terminated = [one for one in self._names if one in set(self._env.agents)], True
        return self._record(shown, info, set(self._here))

    def step(self, action: Any) -> tuple[Any, NDArray[Any], bool, bool, dict[str, Any]]:
        """N actions, of which those of absent agents go nowhere."""
        if not self._here:
            raise gymnasium.error.ResetNeeded("nobody is left to act; call reset")
        acts = {name: one for name, one in zip(self._names, action, strict=True) if name in set(self._here)}
        shown, reward, terminated, truncated, info = self._env.step(acts)
        ended = {one for one in self._names if terminated.get(one) or truncated.get(one)}
        left = set(self._env.agents) - ended
        stopped = {one for one in self._here if one not in left and not terminated.get(one)}
        self._all_terminated &= not stopped
        self._here = [one for one in self._names if one in left]
        there = left or stopped  # when all is over, those whose time alone was up are still seen
        over = not left
        earned = np.array([float(reward.get(one, 0.0)) if one in acts else 0.0 for one in self._names])
        seen, beside = self._record(shown, info, there)
        return seen, earned, over and self._all_terminated, over and not self._all_terminated, beside

    def render(self) -> Any:
        """What the environment draws."""
        return self._env.render()

    def close(self) -> None:
        """Ends the environment."""
        self._env.close()

    def _record(self, shown: Mapping[Any, Any], info: Mapping[Any, Any], there: set[Any]) -> tuple[Any, dict[str, Any]]:
        mask = np.ones((len(self._names), self._width), np.bool_)
        seen = {}
        for at, one in enumerate(self._names):
            if one not in there:
                continue
            value, known = shown[one], info.get(one) or {}
            allowed = value.get(MASK) if isinstance(value, Mapping) else None
            seen[one] = _shown(value)
            allowed = known.get(MASK) if allowed is None else allowed
            if allowed is not None:
                mask[at] = self._row(one, allowed)
        beside: dict[str, Any] = {MASK: mask, "alive": np.array([one in there for one in self._names])}
        if self.state_size is not None:
            beside["state"] = np.ravel(self._env.state()).astype(np.float32)
        return self._alike.stacked(seen), beside

    def _row(self, one: Any, allowed: Any) -> NDArray[np.bool_]:
        """(A,) of a mask, also of one array for each component of an action."""
        row = np.concatenate([np.ravel(part) for part in allowed]) if isinstance(allowed, tuple) else np.ravel(allowed)
        if row.shape != (self._width,):
            raise TaskError(
                f"{self._name}: the action_mask of {one} has {row.size} entries; its actions have {self._width}"
            )
        return row.astype(np.bool_)

    def _find_state(self) -> int | None:
        """S, or None without a state, or where that is a picture."""
        with contextlib.suppress(Exception):  # NotImplementedError, and what else those raise who have none
            self._used = True
            self._env.reset(seed=0)
            state = np.asarray(self._env.state())
            if state.dtype.kind in "biuf" and state.size and not (state.dtype == np.uint8 and state.ndim > 1):
                return state.size
        return None


def ours(module: str) -> bool:
    """Whether it is of a package whose environments are meant by `zoo:`, and no module that a task's name chooses."""
    return module.partition(".")[0] in SHIPPED


def _close(module: str) -> str:
    """What was probably meant: modules of the two packages by their last name, with or without its version. Nothing where the
    module is there, and it is what it needs that is not."""
    known: dict[str, str] = {}
    for root in SHIPPED:
        found = importlib.util.find_spec(root)
        for place in map(Path, found.submodule_search_locations or () if found else ()):
            for file in sorted(place.rglob("*_v[0-9]*.py")):
                inside = file.relative_to(place).with_suffix("").parts
                if "test" not in inside:
                    known[inside[-1]] = ".".join(("zoo:" + root, *inside))
    if f"zoo:{module}" in known.values():
        return ""
    last = module.rpartition(".")[2]
    same = [one for one in known if one.rpartition("_v")[0] == last]
    close = same or difflib.get_close_matches(last, list(known), 3, 0.6)
    return f"; close: {', '.join(known[one] for one in close)}" if close else ""


def make_zoo(module: str, **options: Any) -> Zoo:
    """The environment of a module that has `parallel_env`, with its options ("mpe2.simple_spread_v3", N=5).

    TaskError for a module that is not there or has none, and for an option it does not take.
    """
    name = f"zoo:{module}"
    try:
        found = imported(module, known=ours(module))
    except ModuleNotFoundError as error:
        root = str(error.name).partition(".")[0]
        if error.name == root and ours(root):
            raise TaskError(f"{name}: {root} is not installed: install `env-adapters[zoo]`") from error
        if ours(root):
            raise TaskError(f"{name}: {root} has no such module{_close(module)}") from error
        meant = _close(module) if root == module.partition(".")[0] else ""
        raise TaskError(f"{name}: there is no module {error.name!r} to import, or it needs that one{meant}") from error
    except (ImportError, gymnasium.error.Error) as error:
        raise TaskError(f"{name} does not load: {_line(error)}") from error
    make = getattr(found, "parallel_env", None)
    if not callable(make):
        raise TaskError(
            f"{name}: the module has no parallel_env, agents that act at once; one that takes turns does not fit"
        )
    try:
        return Zoo(functools.partial(make, **options), name)
    except TypeError as error:
        if not options:
            raise
        raise TaskError(f"{name} does not take the options {', '.join(options)}: {_line(error)}") from error


def _bare(space: Space) -> Space:
    """What is seen, without the mask."""
    if not isinstance(space, spaces.Dict) or MASK not in space.spaces:
        return space
    rest = {key: kind for key, kind in space.spaces.items() if key != MASK}
    return next(iter(rest.values())) if len(rest) == 1 else spaces.Dict(rest)


def _shown(value: Any) -> Any:
    """The same of an observation."""
    if not isinstance(value, Mapping) or MASK not in value:
        return value
    rest = {key: part for key, part in value.items() if key != MASK}
    return next(iter(rest.values())) if len(rest) == 1 else rest


def _package(module: str) -> str:
    root = module.partition(".")[0]
    try:
        return f"{root} {version(root)}"
    except PackageNotFoundError:
        return root


def _plain(value: Any) -> int | None:
    return int(value) if isinstance(value, int | np.integer) else None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
