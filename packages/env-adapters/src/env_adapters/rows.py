"""One row of plain arrays per environment: commands and actions go in, records come out, in or across processes."""

# n environments, A width of the action vector; a team puts its agents behind n

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from env_adapters.actions import ActionCodec
from env_adapters.errors import Diverged
from env_adapters.facts import fact
from env_adapters.faults import Fault, fault_of
from env_adapters.kept import LOST
from env_adapters.step import Environment, Reader, entries
from env_adapters.team import Beside, Team, decoded, team_of
from env_adapters.values import Notices, flag, flags, numbers
from env_adapters.wrappers import Adapted

STEP, SKIP = -1, -2  # a command is a seed (reset with it) or one of these
Layout = dict[str, tuple[tuple[int, ...], np.dtype[Any]]]
LOOK = 64  # steps after which bounds are looked at again, as they are at every reset
Arrays = dict[str, NDArray[Any]]


def layout(n: int, space: spaces.Dict, width: int, team: Team) -> Layout:
    """Names, shapes and dtypes of all arrays of n environments; "/" marks what the caller writes."""
    inner: Layout = {
        "/command": ((), np.dtype(np.int64)),
        "/action": ((*team.axis, width), np.dtype(np.float32)),
        "action": ((*team.axis, width), np.dtype(np.float32)),
        "reward": (team.axis, np.dtype(np.float32)),
        **{name: ((), np.dtype(np.bool_)) for name in ("first", "last", "terminal")},
        **team.shapes(width),
        **{name: ((*team.axis, *shape), dtype) for name, (shape, dtype) in entries(space).items()},
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
    """Environments of this process, and the rows that are theirs. One that raises is closed, and made anew when asked.

    What an environment raises is its own: it loses the row's record, and no other. KeyboardInterrupt alone is passed on.
    """

    def __init__(
        self, factory: Callable[[int], Environment], mine: range, rows: Arrays, made: Environment | None = None
    ) -> None:
        """mine: the rows. made: the environment of the first of them, where there is one already."""
        self._factory, self._mine, self._rows = factory, mine, rows
        self._envs: dict[int, Environment] = {} if made is None else {mine.start: made}
        try:
            for row in mine:
                self._env(row)
        except BaseException:
            self.close()
            raise
        first = self._envs[mine.start]
        self._codec = ActionCodec(first.action_space)
        team = team_of(first)
        self._axis, self._beside = team.axis, Beside(team, self._codec.spec)
        self._signals = {name: team.axis if name in team.agent_signals else () for name in team.signals}
        self._observed = [(key, rows[key]) for key in first.observation_space.spaces]  # type: ignore[attr-defined]
        kept = fact(first, "sizes_kept", ())
        # of what no Adapted has read
        self._reader = Reader(first.observation_space, team.taken, axis=team.axis, sizes_kept=kept)
        self._steps = dict.fromkeys(mine, 0)  # since bounds were looked at
        self._notices: Notices = {}
        self._noticed: set[str] = set()

    def run(self) -> tuple[dict[int, Fault], Notices]:
        """Carry out every row's command and write its record; the rows that gave none, and what was taken though it is not
        as its space says, each kind once."""
        commands, faults = self._rows["/command"], {}
        for row in self._mine:
            command = int(commands[row])
            if command == SKIP:
                continue
            try:
                if command == STEP:
                    self._step(self._env(row), row)
                else:
                    self._reset(self._env(row), row, command)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # noqa: BLE001 - SystemExit and what other languages throw are faults, too
                faults[row] = self._lose(row, error)
        new = {kind: words for kind, words in self._notices.items() if kind not in self._noticed}
        self._noticed |= new.keys()
        self._notices = {}
        return faults, new

    def _env(self, row: int) -> Environment:
        """The environment of a row, made anew where it was lost."""
        if row not in self._envs:
            self._envs[row] = self._factory(row)
        return self._envs[row]

    def _lose(self, row: int, error: BaseException) -> Fault:
        """Let go of an environment that raised; what it holds (a port, a process) is free before the next is made."""
        if row in self._envs:
            close_quietly(self._envs.pop(row))
        return fault_of(error)

    def _step(self, env: Environment, row: int) -> None:
        rows = self._rows
        action = rows["/action"][row]
        observation, reward, terminated, truncated, info = env.step(decoded(self._codec, action))
        terminal = flag("terminated", terminated)
        rows["action"][row] = action
        rows["reward"][row] = numbers(reward, self._axis)
        rows["first"][row] = False
        rows["last"][row] = terminal or flag("truncated", truncated)
        rows["terminal"][row] = terminal
        for name, axis in self._signals.items():
            rows[name][row] = flags(f"info[{name!r}]", info.get(name), axis)
        self._steps[row] += 1
        self._show(env, row, observation, info, look=self._steps[row] >= LOOK)

    def _reset(self, env: Environment, row: int, seed: int) -> None:
        rows = self._rows
        observation, info = env.reset(seed=seed)
        rows["action"][row] = 0.0
        rows["reward"][row] = 0.0
        rows["first"][row] = True
        rows["last"][row] = rows["terminal"][row] = False
        for name in self._signals:
            rows[name][row] = False
        self._show(env, row, observation, info, look=True)

    def _show(self, env: Environment, row: int, observation: Any, info: dict[str, Any], *, look: bool) -> None:
        reader, shown = (
            (env.reader, observation) if isinstance(env, Adapted) else (self._reader, self._reader(observation))
        )
        beside, absent = self._beside(info)
        for key, array in self._observed:
            array[row] = shown[key]
            if absent.size:
                array[row, absent] = 0
        for key, value in beside.items():
            self._rows[key][row] = value
        if look:
            self._steps[row] = 0
            self._notices |= reader.look(shown)

    def reseed(self, env: Environment, seed: int) -> None:
        """Draw anew what outlives the environment's episodes, if there is such a thing."""
        fact(env, "reseed", lambda seed: None)(seed)

    def snapshot(self, env: Environment, _: None) -> dict[str, Any]:
        """The environment's snapshot, or why there is none; that loses an episode at a resume, and no run."""
        try:
            state: dict[str, Any] = env.snapshot()  # type: ignore[attr-defined]
        except Exception as error:  # noqa: BLE001 - see above
            return {LOST: fault_of(error).reason}
        return state

    def restore(self, env: Environment, state: dict[str, Any]) -> str | None:
        """Restore a snapshot; the reason if the environment did not arrive where it was."""
        try:
            env.restore(state)  # type: ignore[attr-defined]
        except Diverged as error:
            return str(error)
        return None

    def get(self, env: Environment, name: str) -> Any:
        """An attribute of the environment or of anything it wraps, None if it has none of that name."""
        return env.get_wrapper_attr(name) if env.has_wrapper_attr(name) else None

    def ask(self, verb: str, arguments: dict[int, Any]) -> tuple[dict[int, Any], dict[int, Fault]]:
        """One of the four verbs above for some rows: row -> argument gives row -> answer, and the rows that raised."""
        method, answers, faults = getattr(self, verb), {}, {}
        for row, argument in arguments.items():
            try:
                answers[row] = method(self._env(row), argument)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # noqa: BLE001 - as in `run`
                faults[row] = self._lose(row, error)
        return answers, faults

    def close(self) -> None:
        """Close the environments. What one raises then is a warning: nothing depends on it any more."""
        for row in list(self._envs):
            close_quietly(self._envs.pop(row))


def close_quietly(env: Environment) -> None:
    """Close an environment; a warning for what it raises."""
    try:
        env.close()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - as in `run`
        warnings.warn(f"an environment could not be closed: {fault_of(error).reason}", stacklevel=2)
