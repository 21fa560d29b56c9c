"""One row of plain arrays per environment: commands and actions go in, records come out, in or across processes."""

# n environments, A width of the action vector

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from env_adapters.errors import Diverged, TaskError
from env_adapters.step import ActionCodec, Environment, entries
from env_adapters.wrappers import fact

STEP, SKIP = -1, -2  # a command is a seed (reset with it) or one of these
Layout = dict[str, tuple[tuple[int, ...], np.dtype[Any]]]
Arrays = dict[str, NDArray[Any]]


def layout(n: int, space: spaces.Dict, width: int, signals: Sequence[str]) -> Layout:
    """Names, shapes and dtypes of all arrays of n environments; `in/` marks what the caller writes."""
    flags = ("first", "last", "terminal", *signals)
    inner: Layout = {
        "in/command": ((), np.dtype(np.int64)),
        "in/action": ((width,), np.dtype(np.float32)),
        "action": ((width,), np.dtype(np.float32)),
        "reward": ((), np.dtype(np.float32)),
        **{name: ((), np.dtype(np.bool_)) for name in flags},
        **entries(space),
    }
    return {name: ((n, *shape), dtype) for name, (shape, dtype) in inner.items()}


def size_of(plan: Layout) -> int:
    """Bytes that `arrays` needs, each array aligned to 64."""
    return sum(_aligned(shape, dtype) for shape, dtype in plan.values())


def arrays(plan: Layout, buffer: Any = None) -> Arrays:
    """The arrays of a layout, over `buffer` (shared between processes) or over memory of their own."""
    memory = np.zeros(size_of(plan), np.uint8) if buffer is None else np.frombuffer(buffer, np.uint8)
    result, at = {}, 0
    for name, (shape, dtype) in plan.items():
        result[name] = np.ndarray(shape, dtype, memory.data, at)
        at += _aligned(shape, dtype)
    return result


def _aligned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    return -(-math.prod(shape) * dtype.itemsize // 64) * 64


class Runner:
    """Environments of this process, and the rows `start`, `start + 1`, ... that are theirs."""

    def __init__(self, envs: Sequence[Environment], rows: Arrays, start: int = 0) -> None:
        self.envs = list(envs)
        self._rows, self._start = rows, start
        self._codec = ActionCodec(envs[0].action_space)
        self._signals: tuple[str, ...] = tuple(fact(envs[0], "signals", ()))
        self._observed = [(key, rows[key]) for key in envs[0].observation_space.spaces]  # type: ignore[attr-defined]

    def run(self) -> None:
        """Carry out every row's command and write its record."""
        commands = self._rows["in/command"]
        for row, env in enumerate(self.envs, self._start):
            command = int(commands[row])
            if command == STEP:
                self._step(env, row)
            elif command != SKIP:
                self._reset(env, row, command)

    def _step(self, env: Environment, row: int) -> None:
        rows = self._rows
        action = rows["in/action"][row]
        observation, reward, terminated, truncated, info = env.step(self._codec.decode(action))
        rows["action"][row] = action
        rows["reward"][row] = reward
        rows["first"][row] = False
        rows["last"][row] = terminated or truncated
        rows["terminal"][row] = terminated
        for name in self._signals:
            rows[name][row] = info[name]
        self._show(row, observation)

    def _reset(self, env: Environment, row: int, seed: int) -> None:
        rows = self._rows
        observation, _ = env.reset(seed=seed)
        rows["action"][row] = 0.0
        rows["reward"][row] = 0.0
        rows["first"][row] = True
        rows["last"][row] = rows["terminal"][row] = False
        for name in self._signals:
            rows[name][row] = False
        self._show(row, observation)

    def _show(self, row: int, observation: Any) -> None:
        """Raises TaskError for another shape than the space's, which numpy might stretch to it without a word."""
        for key, array in self._observed:
            value = observation[key]
            if np.shape(value) != array.shape[1:]:
                raise TaskError(
                    f"the environment shows {key!r} of shape {np.shape(value)}, its observation space says "
                    f"{array.shape[1:]}: `python -m env_adapters check` tells more"
                )
            array[row] = value

    def reseed(self, env: Environment, seed: int) -> None:
        """Draw anew what outlives the environment's episodes, if there is such a thing."""
        fact(env, "reseed", lambda seed: None)(seed)

    def snapshot(self, env: Environment, _: None) -> dict[str, Any]:
        """The environment's snapshot."""
        state: dict[str, Any] = env.snapshot()  # type: ignore[attr-defined]
        return state

    def restore(self, env: Environment, state: dict[str, Any]) -> str | None:
        """Restore a snapshot; the reason if the environment did not arrive where it was."""
        try:
            env.restore(state)  # type: ignore[attr-defined]
        except Diverged as error:
            return str(error)
        return None

    def get(self, env: Environment, name: str) -> Any:
        """An attribute of the environment, None if it has none of that name."""
        return fact(env, name, None)

    def ask(self, verb: str, arguments: dict[int, Any]) -> dict[int, Any]:
        """One of the four verbs above for some rows: row -> argument gives row -> answer."""
        method = getattr(self, verb)
        return {row: method(self.envs[row - self._start], argument) for row, argument in arguments.items()}

    def close(self) -> None:
        """Close the environments."""
        for env in self.envs:
            env.close()
