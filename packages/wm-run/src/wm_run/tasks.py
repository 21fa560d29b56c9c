"""config -> the environments of its task, made by env-adapters: what an app hands over as its `environments`."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from wm_core.errors import UserError

from wm_run.config import RunConfig

if TYPE_CHECKING:
    from wm_run.loop import Environments


OWN = (
    "task",
    "n",
    "seed",
    "workers",
    "timeout",
    "attempts",
    "restore",
    "grids",
    "drop",
    "wishes",
)  # what `make_vec` takes


class MakeVec(Protocol):
    """`env_adapters.make_vec`, or another of the same call."""

    def __call__(
        self,
        task: str,
        n: int,
        *,
        workers: int | None,
        timeout: float,
        attempts: int,
        restore: bool,
        grids: tuple[str, ...] | None,
        drop: tuple[str, ...] | None,
        wishes: Mapping[str, Any],
        **options: Any,
    ) -> Environments: ...


@dataclass(frozen=True)
class Tasks:
    """n environments of a config's task.

        options: fields of the config that are an option of some suites, handed to tasks that have it and dropped elsewhere.
        make: who makes them, imported when it is needed: this package does without env-adapters. code: task -> the code that its
    name chooses, or None (see `wm_run.trust`); asked of names alone, so None as well where `make` is the caller's own. known:
        task, names of options -> those that the task has.
    """

    options: tuple[str, ...] = ()
    make: str | MakeVec = "env_adapters:make_vec"
    code: str = "env_adapters.make:code_of"
    known: str = "env_adapters.make:options_of"

    def code_of(self, task: str) -> str | None:
        """The module that is run because the task's name says so, and where it lies; None where it names none."""
        if not isinstance(self.make, str):
            return None
        found: str | None = _part(self.code)(task)
        return found

    def foreign(self, config: RunConfig) -> tuple[str, ...]:
        """The fields that are options of other tasks than this one, and dropped for it."""
        if not self.options or not isinstance(self.make, str):
            return self.options
        known: Collection[str] = _part(self.known)(config.task, self.options)
        return tuple(name for name in self.options if name not in known)

    def __call__(self, config: RunConfig, n: int, **more: Any) -> Environments:
        """Raises what the maker raises of a task that does not exist or lacks its extra. more: further options."""
        found: Callable[..., Environments] = _part(self.make) if isinstance(self.make, str) else self.make
        for name in config.env:
            if name in OWN or name in self.options:
                field = f"--{name}" if hasattr(config, name) else "a field of the run"
                raise UserError(f"--env.{name} is no option that a task may have here: give {field} instead")
        return found(
            config.task,
            n,
            workers=None if config.workers < 0 else config.workers,
            timeout=config.timeout,
            attempts=config.attempts,
            restore=config.restore,
            grids=config.grids,
            drop=config.drop,
            wishes={name: getattr(config, name) for name in self.options} | more,
            **config.env,
        )


def _part(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found
