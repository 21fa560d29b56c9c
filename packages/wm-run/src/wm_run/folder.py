"""The run folder: what was asked, what it ran on, and what came out.

<logdir>/{config.toml, protocol.json, env.json, metrics.jsonl, scores.jsonl, events.out.tfevents.*, video/}. Files come
first and TensorBoard beside them; nothing depends on an account or a service. `step` is environment steps including
action repeat, everywhere.
"""

from __future__ import annotations

import datetime
import importlib.util
import json
import math
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wm_run import durable
from wm_run.errors import EXTRA, RunError
from wm_run.events import Events
from wm_run.logs import Log
from wm_run.machine import describe_environment
from wm_run.toml import to_toml
from wm_run.video import gif, write_video
from wm_run.writers import Writer

LOGS = ("metrics.jsonl", "scores.jsonl")
WALL = "time/wall"  # seconds since 1970 when a row was written
CPU = "time/cpu"  # CPU seconds of the process by then, of all its threads, not of its workers: anew when a run goes on


def default_logdir(root: Path | str, task: str, method: str, seed: int) -> Path:
    """<root>/<stamp>-<task>-<method>-<seed>: four parts, so `-`, `/` and `:` inside a name become `_`.

    The stamp moves on by seconds while such a folder exists, for the same folder would mean to resume.

    >>> default_logdir("runs", "gym:CartPole-v1", "dreamer", 3).name[15:]
    '-gym_CartPole_v1-dreamer-3'
    """
    names = "-".join(re.sub(r"[-/:\s]", "_", name) for name in (task, method))
    moment = datetime.datetime.now()
    while (path := Path(root) / f"{moment:%Y%m%dT%H%M%S}-{names}-{seed}").exists():
        moment += datetime.timedelta(seconds=1)
    return path


class Run:
    r"""One run's folder, opened for writing; opened again, it goes on where the files end.

    tensorboard: write event files too; raises RunError where that is not installed. writers: get the same numbers
    (wm_run.writers), and are closed with the run.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as logdir:
    ...     run = Run(logdir, tensorboard=False)
    ...     run.score(400, 12.0, 100)
    ...     before = run.offsets()
    ...     run.metrics(500, {"train/loss/image": float("nan")})
    ...     run.cut(before)
    ...     run.close()
    ...     (Path(logdir) / "scores.jsonl").read_text(), (Path(logdir) / "metrics.jsonl").read_text()
    ('{"step": 400, "episode/score": 12.0, "episode/length": 100}\n', '')
    """

    def __init__(self, logdir: Path | str, *, tensorboard: bool = True, writers: Sequence[Writer] = ()) -> None:
        if tensorboard and importlib.util.find_spec("tensorboard") is None:
            raise RunError(f"TensorBoard logs need the package tensorboard: {EXTRA}, or turn them off")
        self.logdir = Path(logdir)
        durable.make_folder(self.logdir)
        self._logs = {name: Log(self.logdir / name) for name in LOGS}
        self._tensorboard, self._writers = tensorboard, writers
        self._config = ""
        self._events: Events | None = None  # opened at the first number, when it is known what to purge
        self._purge: int | None = None
        self._step = 0

    # ---- what is known at the start

    def config(self, values: Mapping[str, Any] | str) -> None:
        """config.toml: the resolved configuration, as TOML text or as a nested mapping."""
        self._config = values if isinstance(values, str) else to_toml(values)
        durable.write(self.logdir / "config.toml", self._config)

    def protocol(self, values: Mapping[str, Any]) -> None:
        """protocol.json: what a score of this run means."""
        durable.write(self.logdir / "protocol.json", json.dumps(plain(values), indent=1) + "\n")

    def environment(self) -> None:
        """env.json: versions, commit and hardware of this start."""
        durable.write(self.logdir / "env.json", json.dumps(describe_environment(), indent=1) + "\n")

    # ---- what happens on the way

    def metrics(self, step: int, values: Mapping[str, Any]) -> None:
        """One line of metrics.jsonl: numbers (Python, numpy, 0-d tensors) by name, and times; nan and inf become null."""
        self._line("metrics.jsonl", step, {**values, WALL: round(time.time(), 3), CPU: round(time.process_time(), 2)})

    def score(self, step: int, score: float, length: int, **extra: Any) -> None:
        """One line of scores.jsonl for a finished episode; extra numbers appear as episode/<name>."""
        named = {f"episode/{name}": value for name, value in extra.items()}
        self._line("scores.jsonl", step, {"episode/score": score, "episode/length": length, **named})

    def video(self, name: str, step: int, frames: NDArray[np.uint8], fps: float) -> Path:
        """video/<name>-<step>.mp4 of uint8 frames (T, H, W, 3), small ones enlarged by whole pixels. Returns the path."""
        folder = self.logdir / "video"
        folder.mkdir(exist_ok=True)
        path = folder / f"{re.sub(r'[^A-Za-z0-9_.]', '_', name)}-{step}.mp4"
        write_video(path, frames, fps)
        return path

    def shown(self, step: int, paths: Sequence[Path]) -> None:
        """Films and pictures of this step, which are files already, to TensorBoard and to every service that takes them."""
        for path in paths:
            kind = "film" if path.suffix == ".mp4" else "picture"
            name = f"{path.stem.removesuffix(f'-{step}')}/{kind}"
            if self._tensorboard:
                self._opened().image(step, name, gif(path) if kind == "film" else path.read_bytes())
            for writer in self._writers:
                writer.file(step, name, path)

    def flush(self) -> None:
        """Hand everything written so far to the disk."""
        for log in self._logs.values():
            log.sync()
        if self._events is not None:
            self._events.flush()

    def offsets(self) -> dict[str, int]:
        """How far the logs have come, for a checkpoint: bytes by file, and the last step."""
        self.flush()
        return {"step": self._step} | {name: log.bytes for name, log in self._logs.items()}

    def marks(self) -> dict[str, Any]:
        """After `offsets`: the checksum of every log up to there, by file."""
        return {name: log.mark() for name, log in self._logs.items()}

    def take_notices(self) -> list[str]:
        """Sentences about what other programs did to the logs, since this was last asked."""
        notices = [sentence for log in self._logs.values() for sentence in log.notices]
        for log in self._logs.values():
            log.notices.clear()
        return notices

    def check(self, offsets: Mapping[str, int]) -> None:
        """Raises ValueError for offsets that `offsets` never gave."""
        for name, value in offsets.items():
            if not isinstance(value, int) or not 0 <= value < 2**62:
                raise ValueError(f"its logs end at {name} = {str(value)[:40]}")

    def cut(self, offsets: Mapping[str, int], marks: Any = None) -> None:
        """Drop every line written after `offsets`, and from TensorBoard's view every later step; {} drops all.

        A file that is shorter by now has nothing to drop and stays. marks: of the same moment. A file that is not what they
        say loses no line of an earlier step, and is kept whole beside it; `take_notices` says so.
        """
        self._step = offsets.get("step", 0)
        self._purge = self._step + 1 if offsets else 0
        for name, log in self._logs.items():
            log.cut(offsets.get(name, 0), self._step, marks.get(name) if isinstance(marks, Mapping) else None)
        if self._events is not None:
            self._events.close()
            self._events = None

    def set_aside(self) -> list[Path]:
        """Keep the lines there are in <log>.before-<k>, for `cut({})` would drop them; gives what was made."""
        kept = [log.set_aside() for log in self._logs.values() if log.bytes]
        durable.sync(self.logdir)  # before the lines are dropped
        return kept

    def close(self) -> None:
        """Flush and close, once; the folder may be opened again."""
        if self._logs[LOGS[0]].closed:
            return
        for log in self._logs.values():
            log.close()
        if self._events is not None:
            self._events.flush()
            self._events.close()
        for writer in self._writers:
            writer.close()

    def _line(self, log: str, step: int, values: Mapping[str, Any]) -> None:
        numbers = {name: _number(value) for name, value in values.items()}
        finite = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
        self._step = max(self._step, step)
        self._logs[log].write(json.dumps({"step": step, **finite}, allow_nan=False).encode() + b"\n")
        timeless = {
            name: value for name, value in numbers.items() if name not in {WALL, CPU}
        }  # these have clocks of their own
        if self._tensorboard:
            self._opened().scalars(step, timeless)
        for writer in self._writers:
            writer.scalars(step, timeless)

    def _opened(self) -> Events:
        """The event file, which begins with the config."""
        if self._events is None:
            self._events = Events(self.logdir, self._purge)
            if self._config:
                self._events.text("config", f"```toml\n{self._config}```")
        return self._events


def _number(value: Any) -> int | float:
    return int(value) if isinstance(value, (int, np.integer, np.bool_)) else float(value)


def plain(value: Any) -> Any:
    """JSON for what protocols are made of: numpy scalars as numbers, tuples as lists, nan and inf as null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
