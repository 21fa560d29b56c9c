"""Data sets of others -> episodes of records, as environments give them: what arrived together, the action that led there.

`opened(source)` finds the reader: a Minari data set by its id or folder, a LeRobot folder (2.1 and 3.0), a folder of .npz
episodes. They store the action that was taken after an observation; here it is moved to the record that it led to.
"""

# T actions of an episode, A width of the action vector

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from env_adapters.actions import ActionCodec
from env_adapters.errors import TaskError
from env_adapters.nested import Space, leaves, split
from env_adapters.pictures import View, views
from env_adapters.step import Reader, Step, named_drops, named_leaves, no_arrays, observation_space, sources

KINDS = {  # in the order in which a folder is looked at
    "lerobot": "env_adapters.recordings_lerobot",
    "npz": "env_adapters.recordings_npz",
    "minari": "env_adapters.recordings_minari",
}


class DataError(TaskError):
    """A data set that cannot be used; the message is one sentence with the way out."""


class Taken(NamedTuple):
    """An episode as data sets have it. observations: T + 1 in front of every leaf; actions: T in front; reward (T,).

    terminal: whether its end is the task's and no limit of time's. told: name -> (T + 1, k), of the state, for no encoder.
    """

    name: str  # for messages
    observations: Any
    actions: Any
    reward: NDArray[Any]
    terminal: bool
    told: Mapping[str, NDArray[Any]] = {}


class Foreign:
    """A data set. observation_space, action_space, action_spec, sources, views, unseen, repeat, protocol: as of a VectorEnv.

    who: "minari:ID", "lerobot" or "npz". task: a name for `make` where the data set says one, else "". notices: what is not
    as one might think, in sentences. count: of episodes. space: the native one of observations.
    """

    repeat = 1

    def __init__(
        self,
        who: str,
        space: Space,
        action_space: Space,
        episodes: Callable[[], Iterator[Taken]],
        count: int,
        *,
        task: str = "",
        drop: Collection[str] | None = None,
        notices: Collection[str] = (),
        protocol: Mapping[str, Any] | None = None,
    ) -> None:
        named = dict(named_leaves(space))
        drop = no_arrays(named) if drop is None else named_drops(drop, named)
        self.who, self.task, self.count, self.notices = who, task, count, list(notices)
        self.notices += (
            [f"{', '.join(drop)} is left out, which is no array"] if drop and no_arrays(named) == drop else []
        )
        self.observation_space, self.action_space = observation_space(space, drop=drop), action_space
        self._codec = ActionCodec(action_space)
        self.action_spec = self._codec.spec
        every = sources(space)
        self.sources = {key: one for key, one in every.items() if key not in drop}
        self.unseen = frozenset(path for key, (path, _) in every.items() if key in drop)
        self.views: dict[str, View] = views({key: leaf for key, (_, leaf) in self.sources.items()})
        self.protocol = {"name": who, "repeat": 1, **(protocol or {})}
        self._space, self._drop, self._episodes = space, drop, episodes

    def episodes(self) -> Iterator[Step]:
        """Records of each, every value (T + 1, ...). Raises DataError for an episode that does not fit, with its name."""
        for taken in self._episodes():
            try:
                yield self._records(taken)
            except TaskError as error:
                reason = str(error).replace("the environment shows", "it shows").split(": `uv run")[0]
                raise DataError(f"{taken.name}: {reason}") from error

    def _records(self, taken: Taken) -> Step:
        count = _steps(taken)
        for (name, leaf), value in zip(named_leaves(self._space), split(self._space, taken.observations), strict=True):
            array = np.asarray(value)
            if name not in self._drop and array.shape != (count + 1, *(leaf.shape or ())):
                raise DataError(
                    f"{name} has shape {array.shape}, and {count} actions need {(count + 1, *(leaf.shape or ()))}: one "
                    "observation more than actions, all of one shape"
                )
        shown = Reader(self._space, axis=(count + 1,), drop=self._drop)
        records: Step = shown(taken.observations)
        actions = self._actions(taken, count)
        reward = np.asarray(taken.reward)
        if reward.shape != (count,) or reward.dtype.kind not in "biuf" or not np.isfinite(reward).all():
            raise DataError(f"the rewards are {reward.dtype} {reward.shape}, and should be {count} finite numbers")
        records["action"] = np.concatenate([np.zeros((1, self.action_spec.size), np.float32), actions])
        records["reward"] = np.concatenate([[0.0], reward]).astype(np.float32)
        records["first"], records["last"] = np.arange(count + 1) == 0, np.arange(count + 1) == count
        records["terminal"] = records["last"] & bool(taken.terminal)
        for name, value in taken.told.items():
            fact = np.asarray(value, np.float32).reshape(len(value), -1)
            if len(fact) != count + 1:
                raise DataError(f"told/{name} has {len(fact)} records, and the episode {count + 1}")
            records[f"told/{name}"] = fact
        return records

    def _actions(self, taken: Taken, count: int) -> NDArray[np.float32]:
        for leaf, value in zip(leaves(self.action_space), split(self.action_space, taken.actions), strict=True):
            array, shape = np.asarray(value), (count, *(leaf.shape or ()))
            if array.shape != shape or array.dtype.kind not in "biuf" or not np.isfinite(array).all():
                what = "holds what is no finite number" if array.shape == shape else f"has shape {array.shape}"
                raise DataError(f"the action {what}, and should be numbers {shape}")
            low, high = _choices(leaf)
            if low is not None and ((array < low) | (array > high)).any():
                odd = array[(array < low) | (array > high)].flat[0]
                raise DataError(f"the action {odd} is none of {np.min(low)} to {np.max(high)}")
        return self._codec.encode_all(taken.actions)


def _steps(taken: Taken) -> int:
    """T."""
    count = len(np.asarray(taken.reward))
    if count < 1:
        raise DataError("it has no action: an episode has one at least")
    return count


def _choices(leaf: Space) -> tuple[Any, Any]:
    """The least and the largest of discrete actions."""
    if isinstance(leaf, spaces.Discrete):
        return leaf.start, leaf.start + leaf.n - 1
    if isinstance(leaf, spaces.MultiDiscrete):
        return leaf.start, leaf.start + leaf.nvec - 1
    return (0, 1) if isinstance(leaf, spaces.MultiBinary) else (None, None)


def opened(source: str, *, kind: str = "", **options: Any) -> Foreign:
    """The data set of a folder, or of a Minari id. kind: "minari", "lerobot" or "npz" where the folder does not tell.

    options: drop: names of observations that are left out; keep, ends: of LeRobot's alone. Raises DataError for what is none of
    these, or lacks its extra.
    """
    if kind and kind not in KINDS:
        raise DataError(f"there is no kind {kind!r} of data: it is {', '.join(KINDS)}")
    path = Path(source).expanduser()
    for name, module in KINDS.items():
        reader = importlib.import_module(module)
        if kind == name or (not kind and reader.fits(path)):
            return reader.opened(source if name == "minari" else path, **options)
    if path.exists():
        raise DataError(
            f"{source} is no data set that can be read: it has neither meta/info.json (LeRobot), nor data/ of Minari, nor "
            "episodes *.npz"
        )
    return importlib.import_module(KINDS["minari"]).opened(source, **options)


def bounded(values: NDArray[Any]) -> spaces.Box:
    """The box of float actions (T, ...) whose bounds nobody told: those of the values; where all are one, 1 to each side.

    >>> bounded(np.array([[0.0, 5.0], [2.0, 5.0]], np.float32))
    Box([0. 4.], [2. 6.], (2,), float32)
    """
    low, high = values.min(0).astype(np.float32), values.max(0).astype(np.float32)
    return spaces.Box(np.where(low == high, low - 1, low), np.where(low == high, high + 1, high), dtype=np.float32)


def only(reader: str, options: Mapping[str, Any]) -> None:
    """Raises DataError for an option that this kind of data does not have."""
    for name, value in options.items():
        if value:
            raise DataError(f"--{name} is no option of {reader} data: leave it out")
