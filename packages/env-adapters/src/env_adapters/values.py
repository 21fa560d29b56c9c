"""What an environment returns -> the types its spaces declare; one sentence where a value would change on the way.

A cast may round (float64 to float32) and may change a type (whole floats to integers, with a notice), never a value.
Costs a step: 0.2 to 0.4 us an entry of the right type, 1 us more for floats, which have to be finite.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from env_adapters.errors import TaskError, brief
from env_adapters.pictures import View

Notices = dict[str, str]  # what a sentence is about -> the sentence; the first of its kind stays
_F32 = float(np.finfo(np.float32).max)
_WAY = "return what the space declares, or declare what is returned"


class Entry:
    """One observation. `read` gives it as an array of the space's shape, in the dtype with which it travels.

    key: under which the observation travels. space: what the environment declares. notices: where `read` and `look` leave
    theirs. axis: of the agents that each show one, (N,) or (). TaskError for what is no such array.

    >>> entry("speed", spaces.Box(0, 9, (2,), np.uint8), {}).read([1, 2.0])
    array([1, 2], dtype=uint8)
    """

    def __init__(self, key: str, space: spaces.Space[Any], notices: Notices, axis: tuple[int, ...] = ()) -> None:
        self.key, self.space, self.notices, self.axis = key, space, notices, axis
        self.shape: tuple[int, ...] = (*axis, *(space.shape or ()))
        self.dtype: np.dtype[Any] = np.dtype(np.float32 if space.dtype == np.float64 else space.dtype)
        self.low: Any = None  # bounds in the dtype, None where the dtype itself has no others
        self.high: Any = None

    def read(self, value: Any) -> Any:
        """The value as it travels."""
        if type(value) is not np.ndarray or value.dtype != self.dtype:
            value = self.cast(value)
        if value.shape != self.shape:
            each = f"{self.shape[1:]} for each of {self.axis[0]} agents" if self.axis else f"{self.shape}"
            raise TaskError(
                f"the environment shows {self.key!r} of shape {value.shape}, its observation space says {each}: "
                "`uv run -m env_adapters check` tells more"
            )
        return value

    def look(self, array: NDArray[Any]) -> None:
        """Leave a notice where a value that has been read is outside its space's bounds."""
        if self.low is not None and (array < self.low).any():
            self._outside(array[array < self.low])
        elif self.high is not None and (array > self.high).any():
            self._outside(array[array > self.high])

    def cast(self, value: Any) -> NDArray[Any]:
        """An array of the dtype from anything else that has the same values."""
        raise NotImplementedError

    def plain(self, value: Any) -> NDArray[Any]:
        """The value as an array of numbers."""
        try:
            array = np.asarray(value)
        except (TypeError, ValueError, RuntimeError) as error:  # ragged lists, tensors on a device
            raise self.refusal(f"as a {type(value).__name__} that is no array ({_line(error)})") from error
        if array.dtype.kind not in "biuf":
            raise self.refusal(f"as {_shown(value, array)}")
        return array

    def refusal(self, what: str) -> TaskError:
        """The sentence: `what` goes on after "the environment shows 'key'"."""
        return TaskError(f"the environment shows {self.key!r} {what}; its space is {brief(self.space)}: {_WAY}")

    def notice(self, kind: str, what: str) -> None:
        """Leave a notice, the first of its kind."""
        sentence = f"the environment shows {self.key!r} {what}, its space is {brief(self.space)}"
        self.notices.setdefault(f"{self.key}: {kind}", sentence)

    def _outside(self, values: NDArray[Any]) -> None:
        self.notice("outside", f"with the value {values[0]}, which is taken as it is though outside its bounds")


class _Floats(Entry):
    def __init__(self, key: str, space: spaces.Space[Any], notices: Notices, axis: tuple[int, ...] = ()) -> None:
        super().__init__(key, space, notices, axis)
        assert isinstance(space, spaces.Box)
        if np.isfinite(space.low).any():
            self.low = _wider(space.low, -1, self.dtype)
        if np.isfinite(space.high).any():
            self.high = _wider(space.high, 1, self.dtype)

    def read(self, value: Any) -> Any:
        array = super().read(value)
        flat = array.ravel()
        if not math.isfinite(flat.dot(flat)) and not np.isfinite(flat).all():  # a square may overflow
            odd = np.asarray(value).ravel()[np.flatnonzero(~np.isfinite(flat))[0]]
            why = f"which {self.dtype} cannot hold" if np.isfinite(odd) else "which is no finite number"
            raise self.refusal(f"with the value {odd}, {why}")
        return array

    def cast(self, value: Any) -> NDArray[Any]:
        array = self.plain(value)
        with np.errstate(over="ignore"):
            return array.astype(self.dtype)


class _Integers(Entry):
    def __init__(self, key: str, space: spaces.Space[Any], notices: Notices, axis: tuple[int, ...] = ()) -> None:
        super().__init__(key, space, notices, axis)
        boolean = self.dtype.kind == "b"
        self._least, self._most = (0, 1) if boolean else (np.iinfo(self.dtype).min, np.iinfo(self.dtype).max)
        if isinstance(space, spaces.Box) and not boolean:
            self.low = space.low if (space.low > self._least).any() else None
            self.high = space.high if (space.high < self._most).any() else None

    def cast(self, value: Any) -> NDArray[Any]:
        array = self.plain(value)
        if array.dtype.kind == "f" and not (whole := np.isfinite(array) & (array == np.floor(array))).all():
            raise self.refusal(f"with the value {array[~whole].flat[0]}, and {self.dtype} holds whole numbers alone")
        if array.size:
            for odd in (int(array.min()), int(array.max())):
                if not self._least <= odd <= self._most:
                    raise self.refusal(f"with the value {odd}, which {self.dtype} cannot hold")
        if array.dtype.kind == "f":
            self.notice("type", f"as {array.dtype}; whole numbers are taken as they are")
        return array.astype(self.dtype)


class _Choices(_Integers):
    """Discrete, MultiDiscrete and MultiBinary travel as numbers that begin at 0."""

    def __init__(self, key: str, space: spaces.Space[Any], notices: Notices, axis: tuple[int, ...] = ()) -> None:
        super().__init__(key, space, notices, axis)
        self._start: Any = getattr(space, "start", 0)
        self._count: Any = 2
        if isinstance(space, spaces.Discrete):
            self._start, self._count = int(space.start), int(space.n)
        elif isinstance(space, spaces.MultiDiscrete):
            self._count = space.nvec
        self._wide = np.dtype(np.int64)
        self._one = self.shape == ()

    def read(self, value: Any) -> Any:
        if self._one and isinstance(value, int | np.integer):
            at = int(value) - self._start
            if not 0 <= at < self._count:
                raise self._absent(value)
            return self.dtype.type(at)
        array = super().read(value)
        at = np.subtract(array, self._start, dtype=self._wide)
        odd = (at < 0) | (at >= self._count)
        if odd.any():
            raise self._absent(array[odd].flat[0])
        return at.astype(self.dtype)

    def _absent(self, value: Any) -> TaskError:
        return self.refusal(f"with the value {value}, which is none of the values it may have")


class Viewed:
    """An entry that is looked at otherwise than its space declares; the first notice of it says how."""

    def __init__(self, raw: Entry, view: View) -> None:
        self.key, self._raw, self._view = raw.key, raw, view
        self._read: Any = None
        shape = "x".join(map(str, raw.space.shape or ()))
        raw.notices.setdefault(f"{raw.key}: view", f"the observation {raw.key!r} ({shape}) is taken for {view.words}")

    def read(self, value: Any) -> Any:
        """The value as it travels."""
        self._read = self._raw.read(value)
        return np.stack([self._view(one) for one in self._read]) if self._raw.axis else self._view(self._read)

    def look(self, array: NDArray[Any]) -> None:
        """Leave a notice where what was read last is outside its space's bounds."""
        self._raw.look(self._read)


def entry(
    key: str, space: spaces.Space[Any], notices: Notices, view: View | None = None, axis: tuple[int, ...] = ()
) -> Entry | Viewed:
    """The entry of a Box, Discrete, MultiDiscrete or MultiBinary; `view`: how it is looked at, if not as it is; `axis`: of the
    agents that each show one."""
    if not isinstance(space, spaces.Box):
        return _Choices(key, space, notices, axis)
    raw = (_Floats if np.issubdtype(space.dtype, np.floating) else _Integers)(key, space, notices, axis)
    return raw if view is None else Viewed(raw, view)


def number(reward: Any) -> float:
    """A reward: one finite number that float32 can hold, also as an array or list of one element. TaskError for others.

    >>> number(np.array([0.5])), number(True)
    (0.5, 1.0)
    """
    value = reward
    if isinstance(value, int | np.floating | np.integer):
        try:
            value = float(value)
        except OverflowError:  # an int of more than 308 digits
            value = math.inf
    elif type(value) is not float:
        array = _array(value)
        if array is None or array.size != 1 or array.dtype.kind not in "biuf":
            raise TaskError(f"the reward {_brief(reward)} is no finite number: return one number from step")
        value = float(array.reshape(())[()])
    if not -_F32 <= value <= _F32:
        what = (
            "more than float32 can hold: scale it" if math.isfinite(value) else "no finite number: mend the environment"
        )
        raise TaskError(f"the reward {_brief(reward)} is {what}")
    return value


def numbers(rewards: Any, axis: tuple[int, ...]) -> Any:
    """The reward of one (axis ()), or those of N agents (axis (N,)) as an array. TaskError for others.

    >>> numbers([0, 0.5], (2,)).tolist(), numbers(1, ())
    ([0.0, 0.5], 1.0)
    """
    return np.array([number(one) for one in _each("rewards", rewards, axis)]) if axis else number(rewards)


def flags(name: str, value: Any, axis: tuple[int, ...]) -> Any:
    """A bool (axis ()), or one for each of N agents (axis (N,)). TaskError for others.

    >>> flags("info['hit']", [0, 1], (2,)).tolist()
    [False, True]
    """
    return np.array([flag(name, one) for one in _each(name, value, axis)]) if axis else flag(name, value)


def _each(name: str, value: Any, axis: tuple[int, ...]) -> Any:
    array = _array(value)
    if array is None or array.shape != axis:
        raise TaskError(f"the environment gives {_brief(value)} as {name}: return {axis[0]} values, one for each agent")
    return array


def flag(name: str, value: Any) -> bool:
    """`terminated`, `truncated` or a signal: a bool, 0 or 1, also as an array of one element. TaskError for others.

    >>> flag("terminated", np.array([True])), flag("truncated", 0)
    (True, False)
    """
    if type(value) is bool or isinstance(value, np.bool_):
        return bool(value)
    array = _array(value)
    if array is None or array.size != 1 or array.dtype.kind not in "biuf" or array.reshape(())[()] not in (0, 1):
        raise TaskError(f"the environment gives {_brief(value)} as {name}, which is a bool: return True or False")
    return bool(array.reshape(())[()])


def _array(value: Any) -> NDArray[Any] | None:
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError):
        return None


def _wider(bound: NDArray[Any], side: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """A bound with room for rounding."""
    wide = bound.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(wide + side * 1e-5 * np.maximum(1, np.abs(wide)), dtype)


def _shown(value: Any, array: NDArray[Any]) -> str:
    """The value, or of an array its type and the first element that is no real number."""
    if not array.size or not array.shape:
        return _brief(value)
    odd = next(
        (one for one in array.flat if not isinstance(one, int | float | np.integer | np.floating)), array.flat[0]
    )
    return f"{type(value).__name__} with {_brief(odd)}"


def _brief(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
