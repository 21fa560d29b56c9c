"""n environments -> one batched step dictionary: next-step reset, seeds, faults and snapshots in one place."""

# n environments, A width of the action vector

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from env_adapters.errors import TaskError
from env_adapters.rows import SKIP, STEP, Runner, arrays, layout
from env_adapters.seeds import episode_seed, instance_seed
from env_adapters.step import ActionCodec, Environment, Step
from env_adapters.workers import Workers, default_count
from env_adapters.wrappers import fact

_ATTEMPTS = 3  # a reset that kills this many workers in a row will kill the next one, too
_STREAK = 5


class _Local:
    """The environments of this process, with the interface of Workers; nothing is ever lost."""

    def __init__(self, runner: Runner, rows: Step) -> None:
        self.rows, self.faults = rows, list[str]()
        self._runner = runner

    def begin(self) -> None:
        """Nobody else is there to work meanwhile."""

    def finish(self) -> list[int]:
        self._runner.run()
        return []

    def ask(self, verb: str, arguments: dict[int, Any]) -> tuple[dict[int, Any], list[int]]:
        return self._runner.ask(verb, arguments), []

    def pids(self) -> list[int]:
        return []

    def close(self) -> None:
        self._runner.close()


class VectorEnv:
    """n environments that step together; `make_vec` makes one.

    `step` and `reset` return a new step dictionary: `action` float32 (n, A), the vector that led here; `reward` float32
    (n,); `first`, `last`, `terminal` bool (n,); one entry (n, ...) per observation key; and a bool (n,) per name in
    `signals`. `terminal` implies `last`; `last` without it is a truncation. After a record with `last` the next call
    ignores that row's action and returns the reset record: `first`, zero action, zero reward; not an environment step.

    Every episode is reset with a seed that follows from (run seed, environment, episode), or from (run seed,
    environment) alone where the protocol says episode_seed "same".

    `send(action)` and `receive()` are the two halves of `step`: between them the workers play while the caller does
    something else, with the same records as `step` gives. Without workers everything happens in `receive`.

    A worker that dies or hangs is replaced. As the lost record never arrives, its environments repeat their last one
    with `last`, without `terminal`, with the action just sent and reward 0: a truncation. `take_faults` says so.

    num_envs: n. observation_space: Dict of ONE environment. action_space: native, of ONE. action_spec: what (A,) holds.
    protocol: what a score means, JSON-able. repeat: environment steps per agent step. signals: names, mostly none.

    >>> from env_adapters import make_vec
    >>> env = make_vec("toy:catch", 2, size=16)
    >>> step = env.reset(seed=0)
    >>> step["image"].shape, step["first"].tolist(), env.action_spec.size
    ((2, 16, 16, 3), [True, True], 3)
    >>> env.step(np.eye(3, dtype=np.float32)[[0, 2]])["action"].tolist()
    [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """

    def __init__(
        self,
        factory: Callable[[int], Environment],
        n: int,
        *,
        workers: int | None = None,
        timeout: float = 60.0,
    ) -> None:
        """factory: index -> adapted environment; picklable by cloudpickle if there are workers.

        workers: processes, 0 for none (the environments live here), None for the default: none for toys and for a
        single environment, else one per core. timeout: seconds after which a worker counts as hung.
        """
        if n < 1 or (workers is not None and workers < 0) or timeout <= 0:
            raise TaskError(f"needs n >= 1, workers >= 0, timeout > 0; got {n}, {workers}, {timeout}")
        one = factory(0)
        assert isinstance(one.observation_space, spaces.Dict)
        self.num_envs = n
        self.observation_space: spaces.Dict = one.observation_space
        self.action_space = one.action_space
        self.action_spec = ActionCodec(one.action_space).spec
        self.protocol: dict[str, Any] = dict(fact(one, "protocol", {}))
        self.repeat = int(fact(one, "repeat", 1))
        self.signals: tuple[str, ...] = tuple(fact(one, "signals", ()))
        self._one_seed = self.protocol.get("episode_seed") == "same"
        if workers is None:
            workers = 0 if fact(one, "cheap", False) else default_count(n)
        plan = layout(n, self.observation_space, self.action_spec.size, self.signals)
        self._outputs = [name for name in plan if not name.startswith("in/")]
        self._crew: _Local | Workers
        if workers == 0:
            rows = arrays(plan)
            self._crew = _Local(Runner([one, *(factory(row) for row in range(1, n))], rows), rows)
        else:
            one.close()
            self._crew = Workers(factory, plan, n, min(workers, n), timeout)
        self._seed = 0
        self._episode = np.zeros(n, np.int64)
        self._restarts = np.zeros(n, np.int64)
        self._streak = np.zeros(n, np.int64)  # losses since the last step that arrived
        self._lost = np.zeros(n, np.bool_)  # rows whose episode cannot go on; the next step cuts them short
        self._faults: list[str] = []
        self._last: Step | None = None
        self._sent: NDArray[np.int64] | None = None  # commands whose records have not been received
        self._closed = False

    def reset(self, seed: int) -> Step:
        """Begin a run: every environment anew, with its first episode. Records not yet received are dropped."""
        if seed < 0:
            raise TaskError(f"the seed is {seed}; it is a non-negative integer")
        self._drop()
        self._seed = int(seed)
        self._episode[:], self._restarts[:], self._lost[:] = 0, 0, False
        self._last = None
        self._reseed(range(self.num_envs))
        self._begin(self._seeds())
        return self._finish()

    def step(self, action: NDArray[Any]) -> Step:
        """One agent step of every environment; action float32 (n, A)."""
        self.send(action)
        return self._finish()

    def send(self, action: NDArray[Any]) -> None:
        """Begin one agent step of every environment; action float32 (n, A). `receive` gives its records."""
        self._settled()
        if self._last is None:
            raise RuntimeError("call reset(seed) or load_state(state) before step")
        action = np.asarray(action, np.float32)
        if action.shape != (self.num_envs, self.action_spec.size):
            raise ValueError(f"action has shape {action.shape}, not {(self.num_envs, self.action_spec.size)}")
        if not np.isfinite(action).all():
            raise ValueError("action holds NaN or infinity")
        ended = self._last["last"]
        self._episode += ended
        self._crew.rows["in/action"][:] = action
        self._begin(np.where(ended, self._seeds(ended), np.where(self._lost, SKIP, STEP)))

    def receive(self) -> Step:
        """The records of what was sent. Raises what an environment raised."""
        if self._sent is None:
            raise RuntimeError("nothing was sent: call send(action) before receive")
        return self._finish()

    def state(self) -> dict[str, Any]:
        """Everything the future depends on, as nested dicts and lists of arrays, str, int, float, bool and None."""
        if self._last is None:
            raise RuntimeError("there is no state before reset(seed)")
        self._settled()
        alive = {row: None for row in range(self.num_envs) if not self._lost[row]}
        snapshots, lost = self._crew.ask("snapshot", alive)
        self._break(lost)
        return {
            "seed": self._seed,
            "episode": self._episode.copy(),
            "restarts": self._restarts.copy(),
            "lost": self._lost.copy(),
            "step": {name: array.copy() for name, array in self._last.items()},
            "envs": [snapshots.get(row) for row in range(self.num_envs)],
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue where `state` was taken, also in another process.

        An environment that does not get back there has its episode cut short by the next step; see `take_faults`.
        """
        names = set(state["step"])
        if len(state["envs"]) != self.num_envs or names != set(self._outputs):
            raise TaskError(
                f"the state is of {len(state['envs'])} environments with {', '.join(sorted(names))}; this one has "
                f"{self.num_envs} with {', '.join(sorted(self._outputs))}; use the task and the number it was saved with"
            )
        self._drop()
        self._seed = int(state["seed"])
        self._episode = np.array(state["episode"], np.int64)
        self._restarts = np.array(state["restarts"], np.int64)
        self._lost = np.array(state["lost"], np.bool_)
        self._last = {name: np.array(state["step"][name], self._crew.rows[name].dtype) for name in self._outputs}
        known = {row: one for row, one in enumerate(state["envs"]) if one is not None}
        self._reseed(sorted(set(range(self.num_envs)) - set(known)))
        answers, lost = self._crew.ask("restore", known)
        for row, reason in answers.items():
            if reason is not None:
                self._lost[row] = not self._last["last"][row]
                self._faults.append(f"environment {row} could not be restored: {reason}; its episode is cut short")
        self._break(lost)

    def get(self, name: str) -> list[Any]:
        """An attribute of every environment, None where there is none: `get("rule")` for measuring doors."""
        self._settled()
        answers, lost = self._crew.ask("get", dict.fromkeys(range(self.num_envs), name))
        self._break(lost)
        return [answers.get(row) for row in range(self.num_envs)]

    def take_faults(self) -> list[str]:
        """Sentences about lost workers and episodes cut short since the last call."""
        faults, self._faults = self._crew.faults + self._faults, []
        self._crew.faults = []
        return faults

    def pids(self) -> list[int]:
        """Process ids of the workers; none where the environments live in this process."""
        return self._crew.pids()

    def close(self) -> None:
        """End the environments and the workers; twice does no harm."""
        if not self._closed:
            self._closed = True
            self._crew.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _seeds(self, needed: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
        """(n,) seed of each environment's current episode, 0 where it is not needed."""
        rows = range(self.num_envs) if needed is None else np.flatnonzero(needed).tolist()
        seeds = np.zeros(self.num_envs, np.int64)
        for row in rows:
            seeds[row] = episode_seed(self._seed, row, 0 if self._one_seed else int(self._episode[row]))
        return seeds

    def _reseed(self, rows: Sequence[int]) -> None:
        """Begin new instances; a worker lost over it is replaced and asked again."""
        for _ in range(_ATTEMPTS):
            seeds = {row: instance_seed(self._seed, row, int(self._restarts[row])) for row in rows}
            rows = self._crew.ask("reseed", seeds)[1] if seeds else []
            if not rows:
                return
            self._restarts[rows] += 1
        raise RuntimeError(f"environments cannot be seeded: {self._crew.faults[-1]}")

    def _renew(self, rows: Sequence[int]) -> None:
        """Rows of a replaced worker hold new instances."""
        self._restarts[rows] += 1
        self._reseed(rows)

    def _break(self, rows: Sequence[int]) -> None:
        """Rows lost between two steps: the next step cuts their running episodes short."""
        if rows:
            self._renew(rows)
            if self._last is not None:
                self._lost[rows] = ~self._last["last"][rows]

    def _settled(self) -> None:
        if self._sent is not None:
            raise RuntimeError("actions were sent and their records not received: call receive first")

    def _drop(self) -> None:
        """Let the workers finish what was sent, for nobody."""
        if self._sent is not None:
            self._sent = None
            self._crew.finish()

    def _begin(self, command: NDArray[np.int64]) -> None:
        """Hand the commands out."""
        self._crew.rows["in/command"][:] = command
        self._sent = command
        self._crew.begin()

    def _finish(self) -> Step:
        """The records of the commands handed out; rows that are lost before or during them become truncations."""
        rows, command = self._crew.rows, self._sent
        assert command is not None
        self._sent = None
        for attempt in range(_ATTEMPTS):
            if attempt:
                rows["in/command"][:] = command
                self._crew.begin()
            lost = self._crew.finish()
            self._streak[np.setdiff1d(np.flatnonzero(command == STEP), lost)] = 0
            if not lost:
                break
            self._streak[lost] += 1
            if self._streak.max() >= _STREAK:
                raise RuntimeError(f"a worker was lost {_STREAK} times without a step between: {self._crew.faults[-1]}")
            self._renew(lost)
            self._lost[[row for row in lost if command[row] == STEP]] = True
            again = np.full_like(command, SKIP)  # resets that did not happen
            again[lost] = np.where(command[lost] == STEP, SKIP, command[lost])
            command = again
            if (command == SKIP).all():
                break
        else:
            raise RuntimeError(f"resetting environments failed {_ATTEMPTS} times in a row: {self._crew.faults[-1]}")
        step = {name: rows[name].copy() for name in self._outputs}
        if self._lost.any():
            self._cut(step)
        self._last = step
        return {name: array.copy() for name, array in step.items()}

    def _cut(self, step: Step) -> None:
        """Lost rows repeat their last record as a truncation."""
        assert self._last is not None
        lost = self._lost
        for name, array in step.items():
            array[lost] = self._last[name][lost]
        step["action"][lost] = self._crew.rows["in/action"][lost]
        step["reward"][lost] = 0.0
        step["first"][lost] = step["terminal"][lost] = False
        step["last"][lost] = True
        for name in self.signals:
            step[name][lost] = False
        self._faults += [
            f"the episode of environment {row} was cut short as a truncation" for row in np.flatnonzero(lost)
        ]
        self._lost = np.zeros_like(lost)
