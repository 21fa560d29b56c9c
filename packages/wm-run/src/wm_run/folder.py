"""The run folder: what was asked, what it ran on, what came out, and how long it will still take.

<logdir>/{config.toml, protocol.json, env.json, metrics.jsonl, scores.jsonl, events.out.tfevents.*, video/}. Files come
first and TensorBoard beside them; nothing depends on an account or a service. `step` is environment steps including
action repeat, everywhere.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import importlib.util
import itertools
import json
import math
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, TextIO

import numpy as np
from numpy.typing import NDArray
from wm_core.errors import UserError

from wm_run import durable
from wm_run.writers import Writer

LOGS = ("metrics.jsonl", "scores.jsonl")
EXTRA = "install wm-run"


class RunError(UserError):
    """What a user can do about it is in the sentence."""


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
        self._files = {name: _open_log(self.logdir / name) for name in LOGS}
        self._tensorboard, self._writers = tensorboard, writers
        self._events: Events | None = None  # opened at the first number, when it is known what to purge
        self._purge: int | None = None
        self._step = 0

    # ---- what is known at the start

    def config(self, values: Mapping[str, Any] | str) -> None:
        """config.toml: the resolved configuration, as TOML text or as a nested mapping."""
        durable.write(self.logdir / "config.toml", values if isinstance(values, str) else to_toml(values))

    def protocol(self, values: Mapping[str, Any]) -> None:
        """protocol.json: what a score of this run means."""
        durable.write(self.logdir / "protocol.json", json.dumps(plain(values), indent=1) + "\n")

    def environment(self) -> None:
        """env.json: versions, commit and hardware of this start."""
        durable.write(self.logdir / "env.json", json.dumps(describe_environment(), indent=1) + "\n")

    # ---- what happens on the way

    def metrics(self, step: int, values: Mapping[str, Any]) -> None:
        """One line of metrics.jsonl: numbers (Python, numpy, 0-d tensors) by name; nan and inf become null."""
        self._line("metrics.jsonl", step, values)

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

    def flush(self) -> None:
        """Hand everything written so far to the disk."""
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        if self._events is not None:
            self._events.flush()

    def offsets(self) -> dict[str, int]:
        """How far the logs have come, for a checkpoint: bytes by file, and the last step."""
        self.flush()
        return {"step": self._step} | {name: file.tell() for name, file in self._files.items()}

    def cut(self, offsets: Mapping[str, int]) -> None:
        """Drop every line written after `offsets`, and from TensorBoard's view every later step; {} drops all.

        A file that is shorter by now has nothing to drop and stays.
        """
        self._step = offsets.get("step", 0)
        self._purge = self._step + 1 if offsets else 0
        for name in LOGS:
            self._files[name].close()
            path = self.logdir / name
            os.truncate(path, min(path.stat().st_size, offsets.get(name, 0)))
            self._files[name] = _open_log(path)
        if self._events is not None:
            self._events.close()
            self._events = None

    def set_aside(self) -> list[Path]:
        """Keep the lines there are in <log>.before-<k>, for `cut({})` would drop them; gives what was made."""
        kept = []
        for name in LOGS:
            path = self.logdir / name
            if path.stat().st_size:
                k = next(k for k in itertools.count(1) if not path.with_name(f"{name}.before-{k}").exists())
                kept.append(Path(shutil.copy(path, path.with_name(f"{name}.before-{k}"))))
                durable.sync(kept[-1])
        durable.sync(self.logdir)  # before the lines are dropped
        return kept

    def close(self) -> None:
        """Flush and close, once; the folder may be opened again."""
        if self._files[LOGS[0]].closed:
            return
        self.flush()
        for file in self._files.values():
            file.close()
        if self._events is not None:
            self._events.close()
        for writer in self._writers:
            writer.close()

    def _line(self, log: str, step: int, values: Mapping[str, Any]) -> None:
        numbers = {name: _number(value) for name, value in values.items()}
        finite = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
        self._step = max(self._step, step)
        self._files[log].write(json.dumps({"step": step, **finite}, allow_nan=False).encode() + b"\n")
        self._files[log].flush()  # a line is whole or absent when the process is killed
        if self._tensorboard:
            if self._events is None:
                self._events = Events(self.logdir, self._purge)
            self._events.scalars(step, numbers)
        for writer in self._writers:
            writer.scalars(step, numbers)


class Events:
    """A TensorBoard event file. TensorBoard's record format is written directly: its own writer starts a thread, and
    torch's imports more on top of it.
    """

    def __init__(self, logdir: Path, purge: int | None = None) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2  # type: ignore[import-untyped]
        from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]

        self._event, self._summary = event_pb2, summary_pb2
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._file = (logdir / name).open("ab")
        self._records = RecordWriter(self._file)
        self._write(step=purge or 0, file_version="brain.Event:2")
        if purge is not None:  # what earlier files hold of this step and later ones is hidden
            self._write(step=purge, session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """All values in one record."""
        summary = self._summary.Summary()
        for name, value in values.items():
            summary.value.add(tag=name, simple_value=value)
        self._write(step=step, summary=summary)

    def _write(self, **fields: Any) -> None:
        self._records.write(self._event.Event(wall_time=time.time(), **fields).SerializeToString())

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def write_video(path: Path, frames: NDArray[np.uint8], fps: float) -> None:
    """An mp4 (H.264) of frames (T, H, W, 3): enlarged by whole pixels to about 256, edges doubled to even sizes.

    Raises RunError for frames of another kind, or where imageio and av are not installed.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not frames.size:
        raise RunError(f"a video is uint8 (T, H, W, 3), not {frames.dtype} {frames.shape}")
    try:
        import av  # noqa: F401 - imageio's plugin asks for it only while writing
        import imageio.v3 as imageio
    except ModuleNotFoundError as error:
        raise RunError(f"writing a video needs the package {error.name}: {EXTRA}") from error
    height, width = frames.shape[1:3]
    scale = max(1, min(-(-256 // min(height, width)), 2048 // max(height, width)))
    frames = frames.repeat(scale, 1).repeat(scale, 2)
    frames = np.pad(frames, ((0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)), mode="edge")
    draft = path.with_name(f".{path.name}.draft.mp4")
    rate = max(1, round(fps))
    imageio.imwrite(draft, frames, plugin="pyav", codec="libx264", fps=rate, out_pixel_format="yuv420p")
    draft.replace(path)


def describe_environment() -> dict[str, Any]:
    """Versions of everything installed, the commit, the machine: JSON-able.

    >>> sorted(describe_environment())
    ['command', 'commit', 'hardware', 'packages', 'platform', 'python', 'started']
    """
    import torch  # here: the rest of this file does without

    packages = {d.name: d.version for d in importlib.metadata.distributions()}
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "started": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": dict(sorted(packages.items())),
        "commit": _commit(),
        "hardware": {"cpu": _cpu(), "cores": os.cpu_count(), "memory_bytes": memory, "gpus": gpus},
    }


def _commit() -> str | None:
    """The commit of this source, or of the working folder for an installed package; "+" after it: with changes."""
    here = Path(__file__).parent
    folder = Path.cwd() if "site-packages" in here.parts else here
    try:
        git = ["git", "-C", str(folder)]
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True)
        status = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return commit.stdout.strip() + ("+" if status.stdout.strip() else "")


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*:\s*(.+)", info.read_text()) if info.is_file() else []
    return names[0] if names else platform.processor()


def to_toml(values: Mapping[str, Any], section: str = "") -> str:
    """TOML of a nested mapping of plain values. TOML has no null: None is left out, with a comment in its place.

    >>> print(to_toml({"seed": 0, "game": None, "agent": {"lr": 4e-5, "reads": ("deter", "stoch")}}), end="")
    seed = 0
    # game = none
    <BLANKLINE>
    [agent]
    lr = 4e-05
    reads = ["deter", "stoch"]
    """
    lines, tables = [], []
    for key, value in values.items():
        name = key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key, ensure_ascii=False)
        if isinstance(value, Mapping):
            path = f"{section}.{name}" if section else name
            tables.append(f"\n[{path}]\n{to_toml(value, path)}")
        else:
            lines.append(f"# {name} = none\n" if value is None else f"{name} = {_toml(value)}\n")
    return "".join(lines + tables)


def _toml(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (str, Path)):
        return json.dumps(str(value), ensure_ascii=False)
    raise RunError(f"cannot write {value!r} into a config.toml: use numbers, text, lists and tables")


class Progress:
    """Where the run is, how fast it goes and when it will end.

    total, start: steps at the end and now. On a terminal a live bar (rich, where installed); elsewhere one plain line
    every `every` seconds and one at the end. The speed is a mean over about the last `smooth` seconds.

    >>> with Progress(100, stream=sys.stdout, clock=iter([0.0, 10.0, 10.0]).__next__) as progress:
    ...     progress.update(50, score=1.5)
    train 50/100 (50%) | 5.0 steps/s | ETA 10s | score 1.5
    """

    def __init__(
        self,
        total: int,
        *,
        start: int = 0,
        label: str = "train",
        every: float = 30.0,
        smooth: float = 60.0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total, self.step, self.label = total, start, label
        self.values: dict[str, Any] = {}
        self._every, self._smooth, self._clock = every, smooth, clock
        self._stream: TextIO | None = sys.stderr if stream is None else stream
        self._seen = self._shown = clock()
        self._from = start
        self._done = self._spent = 0.0  # steps and seconds, both fading at the same rate
        live = self._stream is not None and self._stream.isatty()  # there is none where it was closed (2>&-)
        self._bar = _bar(self._stream, label, total, start) if live else None
        self._closed = False
        self.measuring = False  # the speed so far is not the one that the rest will have: no time is told

    def update(self, step: int, **values: Any) -> None:
        """The run is at `step`; values (score, loss) stay shown until replaced."""
        now = self._clock()
        self.step = step
        self.values |= values
        self._measure(now)
        if now - self._shown >= (self._every if self._bar is None else 0.2):
            self._show(now)

    def restart(self, step: int) -> None:
        """What was measured before this step says nothing of the rest: measure from here on."""
        self._done = self._spent = 0.0
        self._seen, self._from = self._clock(), step

    def close(self) -> None:
        """Show where the run ended."""
        if self._closed:
            return
        self._closed = True
        now = self._clock()
        self._measure(now, least=0.0)
        self._show(now)
        if self._bar is not None:
            with _unread():
                self._bar[0].stop()

    def speed(self) -> float | None:
        """Steps per second lately, or None before anything was measured."""
        return self._done / self._spent if self._spent else None

    def text(self) -> str:
        """The line: step/total, speed, time left, current values."""
        speed = self.speed()
        share = f" ({self.step / self.total:.0%})" if self.total else ""
        parts = [f"{self.label} {self.step:,}/{self.total:,}{share}"]
        if speed is not None:
            parts.append(f"{speed:,.0f} steps/s" if speed >= 10 else f"{speed:.1f} steps/s")
        left = max(0, self.total - self.step)
        if left:
            parts.append(f"ETA {'measuring' if self.measuring else duration(left / speed) if speed else '?'}")
        parts += [f"{name} {_short(value)}" for name, value in self.values.items()]
        return " | ".join(parts)

    def _measure(self, now: float, least: float = 0.5) -> None:
        """Let the old fade and count the new; not for every call, for a clock is coarse."""
        spent = now - self._seen
        if spent <= least:
            return
        fade = math.exp(-spent / self._smooth)
        self._done = self._done * fade + self.step - self._from
        self._spent = self._spent * fade + spent
        self._seen, self._from = now, self.step

    def _show(self, now: float) -> None:
        self._shown = now
        with _unread():
            if self._bar is not None:
                bar, task = self._bar
                bar.update(task, completed=self.step, text=self.text())
            elif self._stream is not None:
                print(self.text(), file=self._stream, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _unread() -> suppress:
    """Who reads may have gone: a terminal that was closed, a pipe that is broken. The run goes on."""
    return suppress(OSError, ValueError)


def _bar(stream: TextIO | None, label: str, total: int, start: int) -> tuple[Any, Any] | None:
    """A live bar, or None without rich: a nicer line is not worth an error."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar
        from rich.table import Column
    except ModuleNotFoundError:
        return None
    line = TextColumn("{task.fields[text]}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis"))
    bar = Bar(BarColumn(bar_width=20), line, console=Console(file=stream), refresh_per_second=4)
    task = bar.add_task(label, total=total, completed=start, text=label)
    bar.start()
    return bar, task


def duration(seconds: float) -> str:
    """The two largest units that matter.

    >>> duration(42), duration(312), duration(11_000), duration(200_000)
    ('42s', '5m 12s', '3h 3m', '2d 7h')
    """
    if not math.isfinite(seconds):
        return "?"
    whole = round(seconds)
    for unit, size, smaller, part in (("d", 86_400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size}{unit} {whole % size // part}{smaller}"
    return f"{whole}s"


def _short(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else value if isinstance(value, str) else f"{float(value):.4g}"


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


def _open_log(path: Path) -> BinaryIO:
    """Open for appending, after the last whole line."""
    if path.exists():
        text = path.read_bytes()
        os.truncate(path, text.rfind(b"\n") + 1)
    return path.open("ab")
