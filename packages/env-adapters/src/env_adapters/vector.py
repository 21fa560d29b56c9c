"""n environments -> one batched step dictionary: next-step reset, faults and snapshots in one place."""

# n environments, A width of the action vector

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from env_adapters.attempts import Attempts
from env_adapters.described import Described
from env_adapters.errors import TaskError
from env_adapters.facts import fact, unread
from env_adapters.faults import Fault, fault_of
from env_adapters.instances import Instances
from env_adapters.kept import LOST
from env_adapters.local import Local
from env_adapters.lost_rows import cut, stand_in
from env_adapters.rows import SKIP, STEP, Runner, arrays, close_quietly, layout
from env_adapters.step import Environment, Step
from env_adapters.team import check_allowed
from env_adapters.workers import Workers, default_count


def _unmade(error: Exception) -> TaskError:
    """What is told where the first environments cannot be made."""
    fault = fault_of(error)
    return TaskError(fault.reason if fault.final else f"an environment could not be made: {fault.reason}")


class VectorEnv(Described):
    """n environments that step together; `make_vec` makes one.

    `step` and `reset` return a new step dictionary: `action` float32 (n, A), the vector that led here; `reward` float32
    (n,); `first`, `last`, `terminal` bool (n,); one entry (n, ...) per observation key; and a bool (n,) per name in
    `signals`. `terminal` implies `last`; `last` without it is a truncation. After a record with `last` the next call
    ignores that row's action and returns the reset record: `first`, zero action, zero reward; not an environment step.

    Episodes are reset with seeds that follow from the run's (`Instances`), all of one environment alike where the protocol
    says episode_seed "same".

    `send(action)` and `receive()` are the two halves of `step`: between them the workers play while the caller does
    something else, with the same records as `step` gives. Without workers everything happens in `receive`.

    A worker that dies or hangs is replaced, an environment that raises is made anew. As the lost record never arrives,
    the environment repeats its last one with `last`, without `terminal`, with the action just sent and reward 0: a
    truncation. `take_faults` says so. Where that cannot help, because an environment failed `attempts` times without a
    step between or because it broke its own word (a TaskError), `failure` is a sentence about it. Nothing may be sent
    then, but the state may be saved; loaded where the cause is mended, it goes on.

    What may be asked of it is in `Described`. Of several agents `action` is (n, N, A), `reward` (n, N), an observation
    (n, N, ...), a signal (n,) or (n, N); beside them come `action_mask` bool (n, N, A), what may be chosen next, `alive` bool
    (n, N), and `state` float32 (n, S) if there is a `state_size`. Of an agent that is not alive the observation is zero and
    the mask allows `noop` alone, or everything where that is None. An action that the mask forbids is a ValueError.

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
        attempts: int = 5,
        restore: bool = True,
    ) -> None:
        """factory: index -> adapted environment; picklable by cloudpickle if there are workers. If it has a method `like`,
        the others are made by what that gives for the first.

        workers: processes, 0 for none (the environments live here), None for the default: none for toys and for a
        single environment, else one per core; at least one where the environment says `apart`. timeout: seconds after
        which a worker counts as hung, in a step or a reset. attempts: failures of an environment without a step between that are one too many. restore: whether a
        state puts episodes under way back; False for what cannot be put back (a robot, a server): they are cut.

        TaskError where the first environment cannot be made.
        """
        if n < 1 or (workers is not None and workers < 0) or timeout <= 0 or attempts < 1:
            given = f"{n}, {workers}, {timeout}, {attempts}"
            raise TaskError(f"needs n >= 1, workers >= 0, timeout > 0, attempts >= 1; got {given}")
        try:
            one = factory(0)
        except Exception as error:
            raise _unmade(error) from error
        super().__init__(one, n)
        if callable(like := getattr(factory, "like", None)):
            factory = like(one)
        if notice := unread(one):
            warnings.warn(notice, stacklevel=3)
        team = self._team
        self._sent_shape = (n, *team.axis, self.action_spec.size)
        if workers is None:
            workers = 0 if fact(one, "cheap", False) else default_count(n)
        variables: dict[str, str] | None = fact(one, "apart", None)
        workers = workers if variables is None else max(1, workers)
        plan = layout(n, self.observation_space, self.action_spec.size, team)
        self._outputs = [name for name in plan if not name.startswith("/")]
        self._crew: Local | Workers
        if workers == 0:
            rows = arrays(plan)
            try:
                self._crew = Local(Runner(factory, range(n), rows, one), rows)
            except Exception as error:
                raise _unmade(error) from error
        else:
            close_quietly(one)
            self._crew = Workers(factory, plan, n, min(workers, n), timeout, variables or {})
        self._attempts, self._restore = Attempts(n, attempts), restore
        self._instances = Instances(self._crew, self._attempts, n, same=self.protocol.get("episode_seed") == "same")
        self._lost = np.zeros(n, np.bool_)  # rows whose episode cannot go on; the next step cuts them short
        self._awaited = np.zeros(n, np.bool_)  # rows whose reset record never came; `load_state` asks for it again
        self.cut = np.zeros(n, np.bool_)  # (n,) whose episode a fault has cut short with the last records
        self._faults: list[str] = []
        self._noticed: set[str] = set()  # kinds of notices that have been given
        self._last: Step | None = None
        self._sent: NDArray[np.int64] | None = None  # commands whose records have not been received
        self._closed = False

    def reset(self, seed: int) -> Step:
        """Begin a run: every environment anew, with its first episode. Records not yet received are dropped."""
        if seed < 0:
            raise TaskError(f"the seed is {seed}; it is a non-negative integer")
        self._drop()
        self._instances.begin(int(seed))
        self._lost[:], self._awaited[:] = False, False
        self._last = None
        self._instances.revive(range(self.num_envs), restarted=False)
        self._refuse()
        self._begin(self._instances.seeds())
        step = self._finish()
        self._refuse()
        return step

    def step(self, action: NDArray[Any]) -> Step:
        """One agent step of every environment; action float32 (n, A)."""
        self.send(action)
        return self._finish()

    def send(self, action: NDArray[Any]) -> None:
        """Begin one agent step of every environment; action float32 (n, A). `receive` gives its records."""
        self._settled()
        if self._last is None:
            raise RuntimeError("call reset(seed) or load_state(state) before step")
        self._refuse()
        action = np.asarray(action, np.float32)
        if action.shape != self._sent_shape:
            raise ValueError(f"action has shape {action.shape}, not {self._sent_shape}")
        if not np.isfinite(action).all():
            raise ValueError("action holds NaN or infinity")
        check_allowed(self.action_spec, action, self._last)
        ended = self._last["last"]
        self._instances.episode += ended
        self._crew.rows["/action"][:] = action
        self._begin(np.where(ended, self._instances.seeds(ended), np.where(self._lost, SKIP, STEP)))

    def receive(self) -> Step:
        """The records of what was sent."""
        if self._sent is None:
            raise RuntimeError("nothing was sent: call send(action) before receive")
        return self._finish()

    def state(self) -> dict[str, Any]:
        """Everything the future depends on, as nested dicts and lists of arrays, str, int, float, bool and None."""
        if self._last is None:
            raise RuntimeError("there is no state before reset(seed)")
        self._settled()
        whole: dict[int, None] = dict.fromkeys(
            np.flatnonzero(~(self._lost | self._awaited | self._instances.gone)).tolist()
        )
        snapshots: dict[int, Any] = {row: {LOST: "the run was told so (restore)"} for row in whole}
        if self._restore:
            snapshots, faults = self._crew.ask("snapshot", whole)
            self._break(faults)
        return self._instances.state() | {
            "lost": self._lost.copy(),
            "cut": self.cut.copy(),
            "awaited": self._awaited.copy(),
            "step": {name: array.copy() for name, array in self._last.items()},
            "envs": [snapshots.get(row) for row in range(self.num_envs)],
        }

    def load_state(self, state: Mapping[str, Any]) -> Step | None:
        """Continue where `state` was taken, also in another process.

        An environment that does not get back there has its episode cut short by the next step; see `take_faults`. Where
        the state was saved after a `failure`, resets that never happened happen now, and the records to go on from are
        given, which are others than those saved. TaskError where such a reset fails again.
        """
        names = set(state["step"])
        if len(state["envs"]) != self.num_envs or names != set(self._outputs):
            raise TaskError(
                f"the state is of {len(state['envs'])} environments with {', '.join(sorted(names))}; this one has "
                f"{self.num_envs} with {', '.join(sorted(self._outputs))}; use the task and the number it was saved with"
            )
        self._drop()
        self._instances.load_state(state)
        self._lost = np.array(state["lost"], np.bool_)
        self.cut = np.array(state.get("cut", np.zeros_like(self._lost)), np.bool_)  # states of before 0.2 have none
        self._awaited = np.zeros_like(self._lost)
        self._last = {name: np.array(state["step"][name], self._crew.rows[name].dtype) for name in self._outputs}
        known, odd = {}, dict[int, str]()
        for row, one in enumerate(state["envs"]):
            if one is not None and not self._restore:
                odd[row] = "the run was told so (restore)"
            elif one is not None and LOST in one:
                odd[row] = str(one[LOST])
            elif one is not None:
                known[row] = one
        self._instances.restarts[list(odd)] += 1
        self._instances.revive(sorted(set(range(self.num_envs)) - set(known)), restarted=False)
        answers, faults = self._crew.ask("restore", known)
        odd |= {row: reason for row, reason in answers.items() if reason is not None}
        self._break(faults)
        for row, reason in sorted(odd.items()):
            if not self._last["last"][row]:
                self._lost[row] = True
                self._faults.append(f"environment {row} could not be restored: {reason}; its episode is cut short")
        self._refuse()
        awaited = np.array(state.get("awaited", self._awaited), np.bool_)  # states of before 0.2 have none
        if not awaited.any():
            return None
        for name, array in self._last.items():
            self._crew.rows[name][:] = array
        held, self._lost = self._lost, np.zeros_like(self._lost)  # to be cut by a step, not by this
        was_cut = self.cut
        self._begin(np.where(awaited, self._instances.seeds(awaited), SKIP))
        step = self._finish()
        self._lost |= held
        self.cut = was_cut & ~awaited
        self._refuse()
        return step

    @property
    def failure(self) -> str:
        """Why nothing more may be sent, or empty."""
        return self._attempts.failure

    def get(self, name: str) -> list[Any]:
        """An attribute of every environment, None where there is none: `get("rule")` for measuring doors."""
        self._settled()
        answers, faults = self._crew.ask("get", dict.fromkeys(range(self.num_envs), name))
        self._break(faults)
        return [answers.get(row) for row in range(self.num_envs)]

    def take_faults(self) -> list[str]:
        """Sentences about lost workers, environments that raised and episodes cut short since the last call."""
        faults, self._faults = self._crew.sentences + self._faults, []
        self._crew.sentences = []
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

    def _break(self, faults: Mapping[int, Fault]) -> None:
        """Rows lost between two steps: the next step cuts their running episodes short."""
        self._attempts.count(faults)
        rows = [*faults, *self._instances.revive(faults)]
        if self._last is not None:
            self._lost[rows] = ~self._last["last"][rows]

    def _refuse(self) -> None:
        """TaskError after a failure."""
        if self.failure:
            raise TaskError(self.failure)

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
        self._crew.rows["/command"][:] = command
        self._sent = command
        self._crew.begin()

    def _finish(self) -> Step:
        """The records of the commands handed out; rows that are lost before or during them become truncations."""
        rows, command = self._crew.rows, self._sent
        assert command is not None
        self._sent = None
        lost, after = self._lost, np.zeros_like(self._lost)  # cut by this step; by the next one
        awaited = np.zeros_like(lost)  # resets that have not happened
        while True:
            faults = self._crew.finish()
            failed = np.isin(np.arange(self.num_envs), list(faults))
            self._attempts.arrived((command == STEP) & ~failed)
            lost |= failed & (command == STEP)
            awaited = failed & (command >= 0)
            after |= failed & (command == SKIP)
            self._attempts.count(faults)
            after[list(self._instances.revive(faults))] = True
            if self.failure or not awaited.any():
                break
            command = np.where(awaited, command, SKIP)
            self._begin(command)
            self._sent = None
        if self._crew.notices:
            self._tell()
        step = {name: rows[name].copy() for name in self._outputs}
        self.cut = lost.copy()
        if lost.any():
            assert self._last is not None
            cut(step, self._last, lost, rows["/action"], self.signals)
            sentence = "the episode of environment {} was cut short as a truncation"
            self._faults += [sentence.format(row) for row in np.flatnonzero(lost)]
        if awaited.any():
            stand_in(step, self._last, awaited, self.signals)
        self._awaited, self._lost = awaited, after & ~awaited & ~step["last"]
        self._last = step
        return {name: array.copy() for name, array in step.items()}

    def _tell(self) -> None:
        """Warn of what the environments' rows could hold though it is not as their spaces say, each kind once."""
        for kind, notice in self._crew.notices.items():
            if kind not in self._noticed:
                self._noticed.add(kind)
                warnings.warn(notice, stacklevel=4)  # whoever called reset, step or receive
        self._crew.notices = {}
