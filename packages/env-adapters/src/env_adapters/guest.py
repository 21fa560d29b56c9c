"""An environment that is not ours, at the border: random numbers of its own, and what it returns as gymnasium says."""

from __future__ import annotations

import inspect
import traceback
from typing import Any

import gymnasium

from env_adapters.errors import TaskError
from env_adapters.facts import fact
from env_adapters.generators import Generators
from env_adapters.step import Environment

_KEY = "random, np.random"  # in a snapshot, beside what the environment puts there
_NOTHING = {"seed": 0, "states": None}  # of snapshots that were made before environments had generators of their own


class Guest(gymnasium.Wrapper[Any, Any, Any, Any]):
    """`random` and `np.random` are the environment's own while it resets and steps; a seeded reset seeds them.

    generators: which the environment was made with. TaskError where it keeps the interface of the old package gym.

    >>> env = Guest(gymnasium.make("CartPole-v1"))
    >>> len(env.reset(seed=0)), len(env.step(0))
    (2, 5)
    """

    env_adapters = True

    def __init__(self, env: Environment, generators: Generators | None = None) -> None:
        super().__init__(env)
        self._generators = Generators(0) if generators is None else generators
        _check_reset(env.unwrapped)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As gymnasium's."""
        try:
            with self._generators:
                if seed is not None:
                    self._generators.seed(seed)
                result: Any = self.env.reset(seed=seed, options=options)
        except ValueError as error:
            if not _miscounted(error, "reset", 2):
                raise
            raise TaskError(_old_reset("the observation alone")) from error
        if type(result) is not tuple or len(result) != 2 or not isinstance(result[1], dict):
            raise TaskError(_old_reset(_outline(result)))
        return result

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """As gymnasium's."""
        try:
            with self._generators:
                result: Any = self.env.step(action)
        except ValueError as error:
            if not _miscounted(error, "step", 5):
                raise
            raise TaskError(_old_step("4 values")) from error
        if type(result) is not tuple or len(result) != 5:
            raise TaskError(_old_step(_outline(result)))
        return result

    def reseed(self, seed: int) -> None:
        """Draw anew what outlives episodes."""
        with self._generators:
            self._generators.seed(seed)
            fact(self.env, "reseed", lambda seed: None)(seed)

    def snapshot(self) -> dict[str, Any]:
        """The environment's, and the state of both generators."""
        state: dict[str, Any] = self.env.snapshot()  # type: ignore[attr-defined]
        return state | {_KEY: self._generators.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of `snapshot`."""
        with self._generators:
            self.env.restore({name: value for name, value in state.items() if name != _KEY})  # type: ignore[attr-defined]
        self._generators.load_state(state.get(_KEY, _NOTHING))


def _check_reset(env: Environment) -> None:
    """TaskError for a `reset` that takes no seed."""
    try:
        known = inspect.signature(env.reset).parameters
    except (TypeError, ValueError):
        return
    if any(one.kind is inspect.Parameter.VAR_KEYWORD for one in known.values()):
        return
    lacking = [name for name in ("seed", "options") if name not in known]
    if lacking:
        raise TaskError(
            f"reset of {type(env).__name__} does not take {' and '.join(lacking)}: begin it with "
            "`def reset(self, *, seed=None, options=None)` and `super().reset(seed=seed)`"
        )


def _old_reset(what: str) -> str:
    return f"reset does not return (observation, info) but {what}: return a dict as well, empty if there is nothing to tell"


def _old_step(what: str) -> str:
    return (
        f"step does not return (observation, reward, terminated, truncated, info) but {what}: say terminated where the task "
        "is over and truncated where time alone is up, which the done of the old package gym does not tell apart"
    )


def _miscounted(error: ValueError, method: str, count: int) -> bool:
    """Whether a wrapper's method of this name could not unpack so many values from the environment."""
    where = traceback.extract_tb(error.__traceback__)[-1].name
    return where == method and f"values to unpack (expected {count}" in str(error)


def _outline(result: Any) -> str:
    return f"{len(result)} values" if isinstance(result, tuple) else f"a {type(result).__name__}"
