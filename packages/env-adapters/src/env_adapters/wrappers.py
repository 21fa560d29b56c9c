"""Any gymnasium environment -> one with Dict observations, a snapshot, and the facts a score depends on."""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from env_adapters.actions import ActionCodec
from env_adapters.errors import Diverged, TaskError, brief
from env_adapters.facts import fact, offers, repeats
from env_adapters.generators import Generators
from env_adapters.guest import Guest
from env_adapters.kept import LOST, MOST, KeptActions
from env_adapters.nested import join, leaves, rebuilt, split
from env_adapters.pictures import SYMBOLS, arranged, arranged_shape, is_picture, named_grids, order, unclear, views
from env_adapters.step import (
    Environment,
    Reader,
    digest,
    named_drops,
    named_leaves,
    no_arrays,
    observation_space,
    sources,
)
from env_adapters.team import join_actions, sample, split_actions, team_of
from env_adapters.values import number

Wrapper = gymnasium.Wrapper[Any, Any, Any, Any]
PLAYED = 32  # records that are looked at where a space does not tell pictures from symbols


def adapt(
    env: Environment,
    name: str,
    generators: Generators | None = None,
    grids: Collection[str] | None = None,
    drop: Collection[str] | None = None,
) -> Environment:
    """Give an environment what the vector form asks; one of this package that has it all is returned as it is.

    TaskError if its spaces cannot travel in a step dictionary. `name` is the protocol's, if it declares none itself.
    generators: with which the environment was made. grids, drop: see `make.make_vec`.

    >>> adapt(gymnasium.make("CartPole-v1"), "gym").observation_space.spaces.keys()
    dict_keys(['vector'])
    """
    ActionCodec(env.action_space)
    taken = team_of(env).taken
    guest = Guest(env, generators)
    named = dict(named_leaves(env.observation_space, taken))
    odd = no_arrays(named) if drop is None else ()
    drop = odd if drop is None else named_drops(drop, named)
    named = {key: space for key, space in named.items() if key not in drop}
    sizes_kept = fact(env, "sizes_kept", ())  # of pictures, then, whatever their values are
    open_ = unclear({key: space for key, space in named.items() if key not in sizes_kept})
    grids = symbols(guest, open_, taken) if grids is None else named_grids(grids, named)
    flat = observation_space(env.observation_space, taken, grids, sizes_kept, drop)
    native = offers(env) and callable(getattr(env, "snapshot", None)) and callable(getattr(env, "restore", None))
    known = type(env).__module__.partition(".")[0] == __name__.partition(".")[0]
    if known and native and fact(env, "protocol", None) is not None and flat == env.observation_space:
        return env
    adapted = Adapted(guest if native else Reexecuted(guest), name, grids, drop)
    adapted.reader.notices |= {f"{key}: drop": _left_out(key, env.observation_space, taken) for key in odd}
    return adapted


def _left_out(key: str, space: spaces.Space[Any], signals: Collection[str]) -> str:
    kind = type(dict(named_leaves(space, signals))[key]).__name__
    return f"the observation {key!r} is a {kind} and no array: it is left out (`drop` names what is)"


def symbols(env: Environment, keys: Collection[str], signals: Collection[str] = ()) -> list[str]:
    """Of observations whose space does not tell whether they are pictures, those that show no value of 32 or more.

    Some steps are played for it, none where there are no such observations.
    """
    if not keys:
        return []
    highest = dict.fromkeys(keys, 0)
    source, team = copy.deepcopy(env.action_space), team_of(env)
    source.seed(0)
    names = [name for name, _ in named_leaves(env.observation_space, signals)]
    try:
        over = True
        for seed in range(PLAYED):
            if over:
                (value, info), over = env.reset(seed=seed), False
            else:
                value, _, terminated, truncated, info = env.step(sample(source, team, info))
                over = bool(terminated or truncated)
            shown = dict(zip(names, split(env.observation_space, value), strict=True))
            highest = {key: max(high, int(np.max(shown[key]))) for key, high in highest.items()}
    except Exception:  # noqa: BLE001 - whoever uses the environment meets it again, and can say what it means there
        return []
    return [key for key, high in highest.items() if high < SYMBOLS]


class Adapted(Wrapper):
    """Dict observations (see `step.Reader`) and a protocol. grids, drop: as for `step.observation_space`."""

    env_adapters = True

    def __init__(self, env: Environment, name: str, grids: Collection[str] = (), drop: Collection[str] = ()) -> None:
        super().__init__(env)
        team, sizes_kept = team_of(env), fact(env, "sizes_kept", ())
        self.observation_space = observation_space(env.observation_space, team.taken, grids, sizes_kept, drop)
        self.grids, self.drop = tuple(sorted(grids)), tuple(sorted(drop))
        every = sources(env.observation_space, team.taken)
        self.sources = {key: one for key, one in every.items() if key not in drop}
        self.unseen = frozenset(path for key, (path, _) in every.items() if key in drop)
        self.views = views({key: space for key, (_, space) in self.sources.items()}, grids, sizes_kept)
        self.reader = Reader(env.observation_space, team.taken, grids, team.axis, sizes_kept, drop)
        self.repeat: int = int(fact(env, "repeat", 1))
        limit = env.spec.max_episode_steps if env.spec is not None else None
        id = env.spec.id if env.spec is not None else type(env.unwrapped).__name__
        declared = {"name": name, "environment": id, "repeat": self.repeat, "max_episode_steps": limit}
        if team.agents is not None:
            declared |= {"agents": team.agents, "score": "mean over the agents"}
        self.protocol: dict[str, Any] = dict(fact(env, "protocol", declared))
        if drop:
            self.protocol["dropped"] = list(self.drop)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As gymnasium's."""
        value, info = self.env.reset(seed=seed, options=options)
        return self.reader(value), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """As gymnasium's."""
        value, reward, terminated, truncated, info = self.env.step(action)
        return self.reader(value), reward, terminated, truncated, info

    def snapshot(self) -> dict[str, Any]:
        """The inner environment's; this layer remembers nothing."""
        state: dict[str, Any] = self.env.snapshot()  # type: ignore[attr-defined]
        return state

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of `snapshot`."""
        self.env.restore(state)  # type: ignore[attr-defined]


class Reexecuted(Wrapper):
    """A snapshot for environments that have none: the episode's seed and its actions so far, executed again.

    Exact for an environment whose episode follows from its reset seed and its actions. `restore` compares the record
    it arrives at with the one left and raises Diverged where they differ. Its time grows with the episode's length;
    of an episode of more than `kept.MOST` actions, and of an environment that says `metadata["restorable"] = False`
    (what it does cannot be done again: a robot, a server), a snapshot holds only why it cannot be restored.

    >>> env, copy = (Reexecuted(gymnasium.make("CartPole-v1")) for _ in range(2))
    >>> _ = env.reset(seed=3), env.step(1)
    >>> copy.restore(env.snapshot())
    >>> bool((env.step(0)[0] == copy.step(0)[0]).all())
    True
    """

    env_adapters = True

    def __init__(self, env: Environment, most: int = MOST) -> None:
        super().__init__(env)
        self._seed: int | None = None
        self._options: dict[str, Any] | None = None
        self._lost = "" if (env.metadata or {}).get("restorable", True) else 'it says so (metadata["restorable"])'
        if not repeats(fact(env, "protocol", None) or {}):
            self._lost = "it does not repeat under a seed (its protocol's deterministic)"
        self._kinds, self._actions, self._axis = leaves(env.action_space), KeptActions(most), team_of(env).axis
        self._arrived: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As gymnasium's; without a seed one is drawn, because an unseeded episode could not be executed again."""
        self._seed = int(self.np_random.integers(2**31)) if seed is None else int(seed)
        self._options, self._actions = options, KeptActions(self._actions.most)
        value, info = self.env.reset(seed=self._seed, options=options)
        self._arrived = value
        return value, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """As gymnasium's."""
        if not self._lost:
            parts = zip(self._kinds, split_actions(self.action_space, action, self._axis), strict=True)
            self._actions.add([np.asarray(one, kind.dtype) for kind, one in parts])
        result = self.env.step(action)
        self._arrived = result[:4]
        return result

    def snapshot(self) -> dict[str, Any]:
        """`seed`, `actions` (one array (t, ...) per leaf of the action space) and a fingerprint of the last record."""
        if self._options:
            raise TaskError("an episode that was reset with options has no snapshot; give them to the factory instead")
        if self._lost:
            return {LOST: self._lost}
        if self._actions.full:
            return {LOST: f"its episode had more than {self._actions.most:,} actions"}
        return {"seed": self._seed, "actions": self._actions.arrays(), "arrived": digest(self._arrived)}

    def restore(self, state: dict[str, Any]) -> None:
        """Begin the episode again and execute its actions; Diverged where that leads elsewhere."""
        if LOST in state:
            raise Diverged(state[LOST])
        if state["seed"] is None:  # nothing has happened yet
            self._seed, self._actions, self._arrived = None, KeptActions(self._actions.most), None
            return
        self.reset(seed=state["seed"])
        for values in zip(*state["actions"], strict=True):
            native = [_natives(kind, value, self._axis) for kind, value in zip(self._kinds, values, strict=True)]
            self.step(join_actions(self.action_space, native, self._axis))
        if digest(self._arrived) != state["arrived"]:
            raise Diverged("executing the episode's actions again led to another record; it is not deterministic")


def _natives(space: spaces.Space[Any], value: Any, axis: tuple[int, ...]) -> Any:
    return [_native(space, one) for one in value] if axis else _native(space, value)


def _native(space: spaces.Space[Any], value: Any) -> Any:
    return int(value) if isinstance(space, spaces.Discrete) else np.array(value, space.dtype)


class ActionRepeat(Wrapper):
    """Each action is executed `repeat` times or until the episode ends; rewards are summed, the last record stays.

    >>> ActionRepeat(gymnasium.make("CartPole-v1"), 4).repeat
    4
    """

    env_adapters = True

    def __init__(self, env: Environment, repeat: int) -> None:
        super().__init__(env)
        if repeat < 1:
            raise TaskError(f"repeat is {repeat}; it counts environment steps per action and is at least 1")
        if team_of(env).agents is not None:
            raise TaskError(
                "repeat is for a single agent: what may be repeated changes with every step of several; leave it out"
            )
        self.repeat = repeat * int(fact(env, "repeat", 1))
        self._times = repeat

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """As gymnasium's."""
        total = 0.0
        for _ in range(self._times):
            value, reward, terminated, truncated, info = self.env.step(action)
            total += number(reward)
            if terminated or truncated:
                break
        return value, total, terminated, truncated, info


class Resize(Wrapper):
    """Every uint8 image of the observation becomes (size, size, C), each channel by itself, by PIL's bilinear filter.

    Images are (H, W, C), or (C, H, W) where the first axis is the shortest; of several agents each one's by itself.

    Needs pillow (in the extra `atari`); TaskError if it is missing or no observation is an image.
    """

    def __init__(self, env: Environment, size: int) -> None:
        super().__init__(env)
        try:
            from PIL import Image
        except ImportError as error:
            raise TaskError("resizing images needs pillow; install `env-adapters[atari]` or `pillow`") from error
        self._image, self._size, self._inner = Image, size, env.observation_space
        self._axis = team_of(env).axis
        kinds = leaves(self._inner)
        self._images = [one.dtype == np.uint8 and (len(one.shape or ()) == 3 or is_picture(one)) for one in kinds]
        if not any(self._images):
            raise TaskError(
                f"size={size} resizes images, but the observation {brief(self._inner)} has none; leave it out"
            )
        resized = [
            spaces.Box(0, 255, (size, size, arranged_shape(one.shape)[2]), np.uint8) if image and one.shape else one
            for one, image in zip(kinds, self._images, strict=True)
        ]
        self.observation_space = rebuilt(self._inner, iter(resized))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As gymnasium's."""
        value, info = self.env.reset(seed=seed, options=options)
        return self._resize(value), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """As gymnasium's."""
        value, reward, terminated, truncated, info = self.env.step(action)
        return self._resize(value), reward, terminated, truncated, info

    def _resize(self, value: Any) -> Any:
        parts = split(self._inner, value)
        return join(self._inner, iter([self._all(p) if i else p for p, i in zip(parts, self._images, strict=True)]))

    def _all(self, image: Any) -> Any:
        return np.stack([self._one(one) for one in image]) if self._axis else self._one(image)

    def _one(self, image: Any) -> Any:
        image = np.asarray(image)
        image = arranged(image, order(image.shape))
        if image.shape[2] == 3:  # PIL takes others for masks, transparency or nothing at all
            return self._smaller(np.ascontiguousarray(image))
        planes = [self._smaller(np.ascontiguousarray(plane)) for plane in np.moveaxis(image, -1, 0)]
        return np.stack(planes, -1)

    def _smaller(self, plane: NDArray[np.uint8]) -> NDArray[np.uint8]:
        small = self._image.fromarray(plane).resize((self._size, self._size), self._image.Resampling.BILINEAR)
        return np.array(small)
