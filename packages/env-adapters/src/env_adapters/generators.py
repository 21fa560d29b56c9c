"""`random` and `np.random` as one environment sees them: a state of its own, in place while it plays.

Both modules have one generator for the whole process, so what an environment draws there would depend on who else draws:
the other environments of its worker, or of the run.
"""

from __future__ import annotations

import ctypes
import random
from array import array
from collections.abc import Callable
from typing import Any

import numpy as np

from env_adapters.seeds import mix

_GLOBAL = 0x61  # keeps these seeds apart from those of the environment's own generator
_WORDS = 624  # of a Mersenne twister; behind them, or before them, stands the place that is read next

_hidden: Any = random.random.__self__  # type: ignore[attr-defined]  # the instance whose methods the module's functions are
_numpy: Any = np.random  # whose types leave out get_bit_generator and set_bit_generator


class Generators:
    """A state of `random` and one of `np.random`, which stand in for the process's inside `with`.

    About 2.5 us a time, whoever draws, where Python's own getstate and setstate need 30. numpy keeps the second half of a
    pair of normal draws outside its generator; on both sides of `with` that half is dropped, for it cannot be put back.

    >>> one, outside = Generators(seed=3), random.getstate()
    >>> with one:
    ...     draws = random.random(), np.random.rand()
    >>> with Generators(seed=3):
    ...     draws == (random.random(), np.random.rand())
    True
    >>> outside == random.getstate()
    True
    """

    def __init__(self, seed: int) -> None:
        self._numpy, self._python = np.random.MT19937(0), _read()
        self._outside: tuple[Any, Any] | None = None
        self.seed(seed)

    def seed(self, seed: int) -> None:
        """Begin anew, inside `with` or outside."""
        if self._outside is None:
            with self:
                self.seed(seed)
            return
        self._seed = int(seed)
        word = mix(self._seed, _GLOBAL)
        random.seed(word)
        np.random.seed(word & 0xFFFFFFFF)  # noqa: NPY002  # this is about those who use it

    def __enter__(self) -> None:
        self._outside = _read(), _numpy.get_bit_generator()
        _write(self._python)
        _numpy.set_bit_generator(self._numpy)

    def __exit__(self, *_: object) -> None:
        assert self._outside is not None
        self._python = _read()
        _write(self._outside[0])
        _numpy.set_bit_generator(self._outside[1])
        self._outside = None

    def state(self) -> dict[str, Any]:
        """For a snapshot: the seed, and both states where something has been drawn since."""
        fresh = Generators(self._seed)
        mine, begun = self._whole(), fresh._whole()
        same = all(np.array_equal(mine[name], begun[name]) for name in mine)
        return {"seed": self._seed, "states": None if same else mine}

    def load_state(self, state: dict[str, Any]) -> None:
        """Stand where `state` was taken."""
        self.seed(int(state["seed"]))
        if (states := state["states"]) is None:
            return
        key: Any = {"key": np.array(states["numpy"], np.uint32), "pos": int(states["numpy_at"])}
        self._numpy.state = {"bit_generator": "MT19937", "state": key}
        with self:
            words = (*np.array(states["python"], np.uint32).tolist(), int(states["python_at"]))
            gauss = states["gauss"]
            random.setstate((3, words, None if gauss is None else float(gauss)))

    def _whole(self) -> dict[str, Any]:
        with self:
            _, words, gauss = random.getstate()
        state: Any = self._numpy.state["state"]
        return {
            "python": np.array(words[:-1], np.uint32),
            "python_at": int(words[-1]),
            "gauss": gauss,
            "numpy": np.array(state["key"]),
            "numpy_at": int(state["pos"]),
        }


def _access() -> tuple[Callable[[], Any], Callable[[Any], None]]:
    """Read and write the state of `random`'s hidden generator.

    In CPython it is the place and the words, right behind the object's head; as memory they are copied in a fraction
    of a microsecond. Where a generator with a known state does not look like that, Python's own methods do it.
    """
    probe = random.Random(0)
    probe.random()
    (_, words, _), head, size = probe.getstate(), object.__basicsize__, 4 * (_WORDS + 1)
    if type(probe).__basicsize__ < head + size:
        return random.getstate, random.setstate
    expected = array("I", [words[-1], *words[:-1]])
    if expected.itemsize != 4 or ctypes.string_at(id(probe) + head, size) != expected.tobytes():
        return random.getstate, random.setstate
    memory = memoryview((ctypes.c_uint8 * size).from_address(id(_hidden) + head)).cast("B")
    copy, hidden = memory.tobytes, _hidden

    def read() -> tuple[bytes, float | None]:
        return copy(), hidden.gauss_next

    def write(state: tuple[bytes, float | None]) -> None:
        memory[:], hidden.gauss_next = state

    return read, write


_read, _write = _access()
