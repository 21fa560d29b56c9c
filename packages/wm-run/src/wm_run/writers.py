"""Numbers for services that draw them elsewhere: Weights & Biases, Trackio. What fails there never stops a run.

Each service has a thread and a bounded queue of its own: it connects, logs and finishes there, so that a slow network
costs the loop nothing; the first failure is one line on stderr, and ends that service alone. The run's own files hold
everything in any case.
"""

from __future__ import annotations

import importlib
import os
import queue
import secrets
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from wm_run import durable

Numbers = Mapping[str, float]
Say = Callable[[str], None]
ROOM = 10_000  # lines that wait for a service; about a day of metrics
PATIENCE = 15.0  # seconds that the end of a run waits for a service


def say_on_stderr(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


class Writer(Protocol):
    """What the run folder passes its numbers to; neither method raises."""

    def scalars(self, step: int, values: Numbers, /) -> None:
        """Numbers by their names at an environment step."""

    def file(self, step: int, name: str, path: Path, /) -> None:
        """A film (.mp4) or a picture (.png) at an environment step."""

    def close(self) -> None:
        """The run has ended, or stops; nothing comes after it."""


class Service(Protocol):
    """A connected service, used from one thread; everything here may raise."""

    def log(self, step: int, values: dict[str, float], /) -> None:
        """Numbers by their names at an environment step."""

    def show(self, step: int, name: str, path: Path, /) -> None:
        """A film (.mp4) or a picture (.png), where the service takes such."""

    def finish(self) -> None:
        """Send what is left; nothing comes after it."""


class Outside:
    """A `Writer` that hands numbers to a service made by `connect`, in a thread of its own.

    >>> class Broken:
    ...     def log(self, step, values): raise ConnectionError("the network is gone")
    ...     def finish(self): pass
    >>> writer = Outside("nowhere", Broken, say=print)
    >>> writer.scalars(1, {"score": 2.0})
    >>> writer.close()
    --log nowhere: ConnectionError: the network is gone; the run goes on without it
    """

    def __init__(
        self,
        name: str,
        connect: Callable[[], Service],
        *,
        say: Say = say_on_stderr,
        room: int = ROOM,
        patience: float = PATIENCE,
    ) -> None:
        self.name, self._connect, self._say, self._patience = name, connect, say, patience
        self._lines: queue.Queue[Callable[[Service], None] | None] = queue.Queue(room)
        self._broken = self._late = False
        self._thread = threading.Thread(target=self._work, name=f"log-{name}", daemon=True)
        self._thread.start()

    def scalars(self, step: int, values: Numbers) -> None:
        """Queue one line; a line without room is left out, and the first such is told."""
        line = dict(values)
        self._put(lambda service: service.log(step, line))

    def file(self, step: int, name: str, path: Path) -> None:
        """The same for a film or a picture."""
        self._put(lambda service: service.show(step, name, path))

    def _put(self, line: Callable[[Service], None]) -> None:
        if self._broken:
            return
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            if not self._late:
                self._late = True
                self._say(f"--log {self.name}: the service does not keep up; lines are left out there")

    def close(self) -> None:
        """Let what is queued go out, for a limited time."""
        if not self._thread.is_alive():
            return
        try:
            self._lines.put(None, timeout=self._patience)
            self._thread.join(self._patience)
        except queue.Full:
            pass
        if self._thread.is_alive() and not self._broken:
            self._broken = True
            self._say(
                f"--log {self.name}: no end after {self._patience:.0f} seconds; what it lacks is in the run folder"
            )

    def _work(self) -> None:
        try:
            service = self._connect()
            while (line := self._lines.get()) is not None:
                line(service)
            service.finish()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever it is, it must not stop a run
            if not self._broken:
                self._broken = True
                self._say(f"--log {self.name}: {_words(error)}; the run goes on without it")


def _words(error: BaseException) -> str:
    """One line about an error, with the way out where a package is missing."""
    if isinstance(error, ModuleNotFoundError):
        return f"the package {error.name} is missing (uv pip install {error.name})"
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


def outside(
    names: tuple[str, ...], logdir: Path, config: Mapping[str, Any], *, project: str, say: Say = say_on_stderr
) -> list[Writer]:
    """A writer for each service named; unknown names are a ValueError. The services' own variables (WANDB_PROJECT,
    WANDB_MODE, TRACKIO_PROJECT) win over `project`.
    """
    kinds: dict[str, Callable[[Path, Mapping[str, Any], str], Service]] = {"wandb": Wandb, "trackio": Trackio}
    if missing := set(names) - set(kinds):
        raise ValueError(f"no service {sorted(missing)}; there are {sorted(kinds)}")

    def connect(name: str) -> Callable[[], Service]:
        return lambda: kinds[name](logdir, dict(config), project)

    return [Outside(name, connect(name), say=say) for name in dict.fromkeys(names)]


class Wandb:
    """Weights & Biases as a `Service`. `step` is a metric of its own and every other's axis: a resumed run may go back in steps, which
    the service's own counter refuses. The run's id stays in the folder (wandb-id), so that resuming goes on there.
    """

    def __init__(self, logdir: Path, config: Mapping[str, Any], project: str) -> None:
        wandb = importlib.import_module("wandb")
        path = logdir / "wandb-id"
        if not path.exists():
            durable.write(path, secrets.token_hex(4))
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", project),
            name=logdir.name,
            id=path.read_text().strip(),
            resume="allow",
            dir=str(logdir),
            config=dict(config),
            settings=wandb.Settings(silent=True, console="off"),
        )
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, values: dict[str, float]) -> None:
        self._run.log({"step": step, **values})

    def show(self, step: int, name: str, path: Path) -> None:
        wandb = importlib.import_module("wandb")
        shown = wandb.Video(str(path), format="mp4") if path.suffix == ".mp4" else wandb.Image(str(path))
        self._run.log({"step": step, name: shown})

    def finish(self) -> None:
        self._run.finish()


class Trackio:
    """Trackio as a `Service`: a local database, looked at with `trackio show`. It gets numbers and the config; films stay in the folder."""

    def __init__(self, logdir: Path, config: Mapping[str, Any], project: str) -> None:
        self._trackio = importlib.import_module("trackio")
        project = os.environ.get("TRACKIO_PROJECT", project)
        self._trackio.init(project=project, name=logdir.name, config=dict(config), resume="allow")

    def log(self, step: int, values: dict[str, float]) -> None:
        self._trackio.log(values, step=step)

    def show(self, step: int, name: str, path: Path) -> None:
        pass

    def finish(self) -> None:
        self._trackio.finish()
