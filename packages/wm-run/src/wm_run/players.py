"""Who plays while a recording is collected: records (n, ...) -> actions (n, A). All that a player is comes back in a resumed one.

Sizes: n environments, N agents of a team, A action vector.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from wm_core.errors import UserError

from wm_run import agents
from wm_run.options import Memory
from wm_run.spaces import described

Record = Mapping[str, NDArray[Any]]


class Player(Protocol):
    """Sees every record of every stream, also where others play, as their actions are in the records."""

    def act(self, record: Record) -> NDArray[np.float32]:
        """Actions (n, A) at records (n, ...)."""

    def state(self) -> Any:
        """All that it will act by, of what a checkpoint takes."""

    def load_state(self, state: Any) -> None:
        """Stand where `state` was taken."""


class Wish(NamedTuple):
    """One of `--who`. kind: "random", "run" or "module"; name: the run's folder or a published agent's name, or
    `module:function`."""

    kind: str
    name: str
    share: float

    @property
    def who(self) -> str:
        """As a recording's source says it."""
        return {"random": "random", "run": f"run:{Path(self.name).name}", "module": self.name}[self.kind]


def wished(words: Sequence[str]) -> list[Wish]:
    """`random:0.5`, `runs/x:0.25`, `module:function:0.25` -> who plays which share of the steps; all alike where nobody
    has one. Raises UserError for shares that do not sum to 1, and for what is no player.

    >>> wished(["random:0.5", "players:follow:0.5"])
    [Wish(kind='random', name='random', share=0.5), Wish(kind='module', name='players:follow', share=0.5)]
    """
    parts = [_share(word) for word in words]
    given = [share for _, share in parts if share is not None]
    if given and len(given) < len(parts):
        raise UserError(
            f"either all of --who have a share or none: give {words[[s for _, s in parts].index(None)]}:SHARE"
        )
    shares = given or [1 / len(parts)] * len(parts)
    if min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
        raise UserError(f"the shares of --who are above 0 and sum to 1, not to {sum(shares):g}")
    names = [name for name, _ in parts]
    if len(set(names)) < len(names):
        raise UserError(f"--who names {next(n for n in names if names.count(n) > 1)} twice: give it one share")
    return [Wish(_kind(name), name, share) for name, share in zip(names, shares, strict=True)]


def _share(word: str) -> tuple[str, float | None]:
    name, colon, last = word.rpartition(":")
    try:
        return (name, float(last)) if colon else (word, None)
    except ValueError:
        return word, None


def _kind(name: str) -> str:
    if name == "random":
        return "random"
    if agents.named(name) or Path(name).expanduser().is_dir():
        return "run"
    module, colon, function = name.partition(":")
    if colon and function.isidentifier() and all(part.isidentifier() for part in module.split(".")):
        return "module"
    raise UserError(f"{name!r} is nobody who plays: give random, the folder of a run, or module:function")


@dataclass
class Random:
    """Actions drawn uniformly, of those that a record's mask allows. actions: an ActionSpec's sizes."""

    actions: Any
    seed: Sequence[int]

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(list(self.seed))

    def act(self, record: Record) -> NDArray[np.float32]:
        """A one-hot for each group, continuous components in [-1, 1].

        >>> from types import SimpleNamespace
        >>> player = Random(SimpleNamespace(discrete=(2, 3), continuous=1), (0,))
        >>> player.act({"action": np.zeros((4, 6), np.float32)})[:, :5].sum(-1).tolist()
        [2.0, 2.0, 2.0, 2.0]
        """
        action = np.zeros_like(record["action"])
        allowed = record.get("action_mask", np.ones(action.shape, np.bool_))
        at = 0
        for size in self.actions.discrete:
            here = (..., slice(at, at + size))
            drawn = np.where(allowed[here], self._rng.random(action[here].shape), -1)
            np.put_along_axis(action[here], drawn.argmax(-1)[..., None], 1.0, -1)
            at += size
        action[..., at:] = self._rng.uniform(-1, 1, action[..., at:].shape)
        return action

    def state(self) -> Any:
        """Of its generator; its numbers are too large for a checkpoint's."""
        state = self._rng.bit_generator.state
        return {**state, "state": {name: str(number) for name, number in state["state"].items()}}

    def load_state(self, state: Any) -> None:
        """Stand where `state` was taken."""
        numbers = {name: int(number) for name, number in state["state"].items()}
        self._rng.bit_generator.state = {**state, "state": numbers}


@dataclass
class Scripted:
    """A function of the records alone, `module:function`: it is given copies of them, (n, ...), and gives actions (n, A)."""

    name: str
    function: Callable[[Record], NDArray[Any]]

    @classmethod
    def named(cls, name: str) -> Scripted:
        """Raises UserError where there is none of the name."""
        module, _, function = name.partition(":")
        if os.getcwd() not in sys.path:  # a file in the folder in which one works, as `python -m` would find it
            sys.path.append(os.getcwd())
        try:
            found = getattr(importlib.import_module(module), function, None)
        except ModuleNotFoundError as error:
            if error.name is not None and not f"{module}.".startswith(f"{error.name}."):
                raise
            raise UserError(f"there is no module {module!r} to import for {name}: is it in this folder?") from error
        if not callable(found):
            raise UserError(f"the module {module} has no function {function!r}")
        return cls(name, found)

    def act(self, record: Record) -> NDArray[np.float32]:
        """Actions (n, A). Raises UserError for what are none of these environments'."""
        given = np.asarray(self.function({key: value.copy() for key, value in record.items()}))
        wanted = record["action"].shape
        if given.shape != wanted or given.dtype.kind not in "biuf" or not np.isfinite(given).all():
            raise UserError(f"{self.name} gives {given.dtype} {given.shape}, and actions are finite numbers {wanted}")
        return given.astype(np.float32)

    def state(self) -> Any:
        """It has none."""

    def load_state(self, state: Any) -> None:
        """It has none."""


class Trained:
    """The agent of a run folder, with sampled actions, as it acts in training; its draws are its own.

    memory: what it knows where it begins, as `eval` has it: training's last steps, or nothing.
    """

    def __init__(
        self, folder: str, envs: Any, seed: Sequence[int], device: str = "auto", memory: Memory = "auto"
    ) -> None:
        from wm_core import draws

        from wm_run import scoring
        from wm_run.dream_made import app_of
        from wm_run.loading import load
        from wm_run.rollout import remembered, rows_of

        path = agents.found(folder if agents.named(folder) else Path(folder).expanduser())
        loaded = load(app_of(path), path, device=device)
        mine, theirs = (
            [described(one.observation_space), described(one.action_space), getattr(one, "team", None)]
            for one in (loaded, _Teamed(envs))
        )
        if mine != theirs:
            raise UserError(
                f"{folder} was trained on {loaded.config.task}, whose observations, actions or agents are others than those of "
                "this task: take a run of the same task with the same options (--env.NAME VALUE)"
            )
        self.step, self._agent = loaded.step, loaded.agent
        self._source = draws.Generator(int(np.random.SeedSequence(list(seed)).generate_state(1)[0]), self._agent.device)
        self.remembers = scoring.begins_remembering(loaded, memory)
        self._carry: Any = (
            remembered(loaded.carry, envs.num_envs, rows_of(self._agent))
            if self.remembers
            else self._agent.initial(envs.num_envs)
        )

    def act(self, record: Record) -> NDArray[np.float32]:
        """Actions (n, A). Its carry goes on within each stream; it is told by `first` where an episode begins."""
        from wm_run.rollout import drawing_from

        with drawing_from(self._agent, self._source):
            self._carry, action, _ = self._agent.act(self._carry, record)
        return action

    def state(self) -> Any:
        """Of what it knows and of its generator."""
        return {"carry": self._carry, "source": self._source.state_dict()}

    def load_state(self, state: Any) -> None:
        """Stand where `state` was taken."""
        from wm_run.loop import to_device

        self._carry = to_device(state["carry"], self._agent.device)
        self._source.load_state_dict(state["source"])


class _Teamed:
    """Environments with their team beside their spaces."""

    def __init__(self, envs: Any) -> None:
        from wm_run.teams import team_of

        self.observation_space, self.action_space, self.team = envs.observation_space, envs.action_space, team_of(envs)


def player(wish: Wish, envs: Any, seed: Sequence[int], device: str = "auto", memory: Memory = "auto") -> Player:
    """Who was wished for, in these environments. device, memory: of a trained one."""
    if wish.kind == "random":
        return Random(envs.action_spec, seed)
    return Scripted.named(wish.name) if wish.kind == "module" else Trained(wish.name, envs, seed, device, memory)
