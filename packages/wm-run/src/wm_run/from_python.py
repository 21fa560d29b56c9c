"""`dreamer.train(env=MyEnv, preset="cpu", steps=10_000)`: the command `train`, called from Python.

The same run, folder and numbers as on the command line; mistakes are exceptions of one sentence, and what is returned acts.
"""

from __future__ import annotations

import copy
import dataclasses
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from wm_core.errors import UserError

from wm_run.configs import overlay, read_run
from wm_run.options import Train
from wm_run.stop import Stop, say
from wm_run.tasks import Tasks

if TYPE_CHECKING:
    from wm_run.app import App
    from wm_run.loading import Loaded


class Listeners:
    """Callbacks -> a writer of the run folder (`wm_run.writers.Writer`), which hears every number that is logged.

    A callback is any object with `on_log(step, numbers)`, `on_episode(step, score, length, **outcomes)`, or both. One that
    returns True ends the run, which is saved; one that raises does so, too, and its error is kept.

    >>> class Scores(list):
    ...     def on_episode(self, step, score, length, **outcomes):
    ...         self.append(score)
    >>> scores = Scores()
    >>> Listeners([scores]).scalars(40, {"episode/score": 1.0, "episode/length": 9})
    >>> scores
    [1.0]
    """

    def __init__(self, callbacks: Sequence[Any] = ()) -> None:
        self.callbacks, self.logdir = list(callbacks), Path()
        self.error: Exception | None = None
        self._stop: Stop | None = None
        for one in self.callbacks:
            if not any(callable(getattr(one, name, None)) for name in ("on_log", "on_episode")):
                raise UserError(
                    f"a callback has a method on_log(step, numbers) or on_episode(step, score, length, **outcomes), and "
                    f"{type(one).__name__} has neither"
                )

    def begin(self, logdir: Path, stop: Stop) -> None:
        """Where the run is, and by what a callback ends it."""
        self.logdir, self._stop = logdir, stop

    def file(self, step: int, name: str, path: Path) -> None:
        """Films and pictures are files of the run folder, of which no callback is told."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """One line of the logs: of an episode, or of metrics."""
        outcomes = {name.removeprefix("episode/"): value for name, value in values.items()}
        for one in self.callbacks:
            if "episode/score" in values:
                self._call(one, "on_episode", step, **outcomes)
            else:
                self._call(one, "on_log", step, dict(values))

    def close(self) -> None:
        """There is nothing to close."""

    def _call(self, one: Any, name: str, *values: Any, **more: Any) -> None:
        hook = getattr(one, name, None)
        if hook is None or self.error is not None:
            return
        try:
            found = hook(*values, **more)
            enough = isinstance(found, bool | np.bool_) and bool(found)  # a number is no wish to end
        except Exception as error:  # noqa: BLE001 - told when the run is saved
            self.error, enough = error, True
        if enough and self._stop is not None:
            self._stop.note(signal.SIGTERM)


def train(
    app: App,
    env: Any = None,
    *,
    preset: str = "",
    size: str = "",
    ablation: str = "",
    logdir: str | Path = "",
    options: Mapping[str, Any] | None = None,
    callbacks: Any = (),
    **fields: Any,
) -> Loaded:
    """Train an agent, or go on with the run in `logdir`; gives it as `load` does.

    Args:
        env: a task's name, a gymnasium.Env class, a function that makes one, or an instance, of which every environment of
            the run is a copy. None: the preset's task.
        preset, size, ablation, logdir: as on the command line.
        options: keyword arguments of the environment, `--env.NAME` on the command line.
        callbacks: one, or several (`Listeners`).
        fields: any field of the config: steps, seed, envs, batch...

    Raises:
        UserError: what the command line would say in a sentence. What a callback raises, when the run is saved.
    """
    from wm_run import cli, commands, loading, trust

    listeners = Listeners(callbacks if isinstance(callbacks, list | tuple) else [callbacks])
    (task, app), named = named_task(app, env), app.environments
    given = fields | ({"task": task} if task else {}) | ({"env": dict(options)} if options else {})
    given = {name: str(value) if isinstance(value, Path) else value for name, value in given.items()}
    try:
        asked = Train(preset, size, ablation, str(logdir))
        command = cli.settled(app, "train", asked, lambda base: overlay(base, given, "train"), program=app.name)
        if command.config.devices > 1:
            raise UserError("several processes that learn one agent (devices) are started from the command line alone")
        if app.environments is not named:
            trust.hold(named, command.config)
        if command.origin.note:  # said, and not tried out for minutes: whoever calls can name a preset
            say(command.origin.note)
            command = dataclasses.replace(command, origin=dataclasses.replace(command.origin, note=""))
        code = commands.train(app, command, listeners)
        if listeners.error is not None:
            raise listeners.error
        if code == 1:
            raise UserError(
                f"a loss or a gradient was not finite, and the run stopped: see alarm-<step> in {listeners.logdir}"
            )
        if command.strange or command.config.data:
            return loading.load(app, listeners.logdir, device=command.config.device)
        config = dataclasses.replace(read_run(app, listeners.logdir)[0], device=command.config.device, workers=0)
        return loading.restore(app, listeners.logdir, config)  # of the task that was just asked for
    except Exception as error:
        sentence = None if error is listeners.error or isinstance(error, UserError) else cli.sentence_of(app, error)
        if sentence is None:
            raise
        raise UserError(" ".join(sentence.split())) from error


def named_task(app: App, env: Any) -> tuple[str, App]:
    """The task's name, and the app with environments of its own where no name leads to them in another process.

    >>> named_task(None, "toy:catch"), named_task(None, None)
    (('toy:catch', None), ('', None))
    """
    if env is None or isinstance(env, str):
        return env or "", app
    known = hasattr(env, "__qualname__")  # a class or a function
    one = env if known else env.func if isinstance(env, partial) else type(env)
    name = f"{one.__module__}:{one.__qualname__}"
    module = sys.modules.get(one.__module__)
    if known and one.__module__ != "__main__" and getattr(module, one.__qualname__, None) is env:
        return name, app
    if not known and not callable(env):
        env = _copies(env)
    if not callable(env):
        raise UserError(
            f"env is a task's name, a gymnasium.Env class, a function that makes one or an instance, not {env!r}"
        )
    if not isinstance(app.environments, Tasks):
        raise UserError(f"{app.name} makes its environments itself: name a task of its own")
    own = dataclasses.replace(app.environments, make=partial(_made, app.environments.make, env))
    return name, dataclasses.replace(app, environments=own, fresh=None)


def _copies(env: Any) -> Callable[[], Any]:
    """Makes copies of an instance. Raises UserError for one that cannot be copied."""
    if not all(callable(getattr(env, name, None)) for name in ("reset", "step")):
        raise UserError(
            f"env is a task's name, a gymnasium.Env class, a function that makes one or an instance, not {env!r}"
        )
    try:
        held = copy.deepcopy(env)
    except Exception as error:
        raise UserError(
            f"the environment {type(env).__name__} cannot be copied ({error}), and a run needs several, for evaluations at "
            "least: give its class, or a function that makes one"
        ) from error
    return lambda: copy.deepcopy(held)


def _made(make: Any, factory: Callable[..., Any], task: str, n: int, **asked: Any) -> Any:
    """The environments of a factory, whatever the task is called."""
    import importlib

    if isinstance(make, str):
        module, _, name = make.partition(":")
        make = getattr(importlib.import_module(module), name)
    return make(factory, n, **asked)
