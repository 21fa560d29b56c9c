"""Run folders -> runs: config, protocol, environment, and every number that was logged."""

from __future__ import annotations

import codecs
import math
import tomllib
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wm_suite import foreign, strangers
from wm_suite.errors import SuiteError
from wm_suite.foreign import Odd
from wm_suite.statistics import Floats

TAIL = 0.1  # the share of a run, at its end, that its final score is the mean of
SCORE = "episode/score"
# Of runs whose config.toml does not name them itself, as wm-run wrote it before wm-suite was there: fields that a resumed
# run may change, and fields in which an evaluation may differ from its run and still be one of the agent as trained.
RESUMABLE = (
    "steps",
    "device",
    "capture",
    "threads",
    "workers",
    "timeout",
    "attempts",
    "restore",
    "exclusive",
    "replay_bytes",
    "log_every",
    "save_every",
    "keep",
    "milestone_every",
    "eval_every",
    "eval_episodes",
    "eval_envs",
    "final_episodes",
    "video_every",
    "final_video",
    "tensorboard",
    "log",
)
INCIDENTAL = ("device", "capture", "threads", "workers", "timeout", "attempts", "seed", "envs", "eval_envs")


@dataclass(frozen=True)
class Logged:
    """One run as its folder tells it; series holds (step, value) of every number logged, in the order of steps."""

    logdir: Path
    config: Mapping[str, Any]
    protocol: Mapping[str, Any]
    environment: Mapping[str, Any]
    series: Mapping[str, tuple[Floats, Floats]]
    notes: tuple[str, ...] = ()  # sentences about what was left out

    @property
    def app(self) -> str:
        return str(self.config.get("run", {}).get("app", "?"))

    @property
    def task(self) -> str:
        return str(self.config.get("task", "?"))

    @property
    def seed(self) -> int:
        return int(self.config.get("seed", 0))

    @property
    def resumable(self) -> frozenset[str]:
        """Fields that make no method, for a resumed run may change them."""
        return frozenset(self.config.get("run", {}).get("resumable", RESUMABLE))

    @property
    def incidental(self) -> frozenset[str]:
        """Fields in which an evaluation may differ from its run and still be one of the agent as trained."""
        return frozenset(self.config.get("run", {}).get("incidental", INCIDENTAL))

    @property
    def reached(self) -> int:
        """The last step of any line."""
        return int(max((steps[-1] for steps, _ in self.series.values()), default=0))

    def last(self, name: str) -> Floats:
        """What was logged of episodes that ended in the last tenth of the run."""
        steps, values = self.series.get(name, (np.zeros(0), np.zeros(0)))
        return values[(steps > self.reached * (1 - TAIL)) & np.isfinite(values)]

    def final(self) -> tuple[float, int]:
        """Mean score of the episodes that ended in the last tenth of the run, and how many; nan, 0 without any."""
        last = self.last(SCORE)
        return (float(last.mean()), len(last)) if len(last) else (math.nan, 0)


def find(folders: Iterable[str | Path]) -> list[Path]:
    """Run folders among these or inside them, at most three levels down; what lies in a run, as the folders of its
    other processes do, is part of it. A folder of another project counts where its scores.jsonl is, and it or its name says
    of which task. Raises SuiteError where there is none."""
    found: list[Path] = []
    for folder in map(Path, folders):
        inside: list[Path] = []
        for depth in ("", "*/", "*/*/", "*/*/*/"):
            configs = {path.parent for path in folder.glob(f"{depth}config.toml") if path.is_file()}
            lost = {path.parents[2] for path in folder.glob(f"{depth}checkpoint/*/manifest.json")}  # it is without
            strange = {path.parent for path in folder.glob(f"{depth}scores.jsonl") if strangers.config(path.parent)}
            inside += [path for path in sorted(configs | lost | strange) if not set(path.parents) & set(inside)]
        if not inside:
            raise SuiteError(f"there is no run in {folder} (no config.toml): name folders that `train` printed")
        found += inside
    unique = {path.resolve(): path for path in found}
    return list(unique.values())


def legible(logdirs: Iterable[Path]) -> tuple[list[Logged], list[str]]:
    """The runs of these folders, and a sentence about each that is left out. Raises SuiteError where none can be read."""
    runs, errors = list[Logged](), list[SuiteError]()
    for logdir in logdirs:
        try:
            runs.append(read(logdir))
        except SuiteError as error:
            errors.append(error)
    if errors and not runs:
        raise errors[0]
    return runs, [f"{error}; its run is left out" for error in errors]


def read(logdir: Path) -> Logged:
    """The run in a folder; a half-written last line is left out, and so are odd ones, which `notes` tell. Raises SuiteError
    for a file that is none of ours."""
    series: dict[str, tuple[list[float], list[float]]] = {}
    notes: list[str] = []
    for name in ("scores.jsonl", "metrics.jsonl"):
        odd: list[str] = []
        for number, row in _lines(logdir / name, odd):
            try:
                step, values = _numbers(row)
            except Odd as error:
                odd.append(f"line {number} ({error})")
                continue
            for key, value in values.items():
                steps, found = series.setdefault(key, ([], []))
                steps.append(step)
                found.append(value)
        if odd:
            more = f" and {len(odd) - 1} more are" if len(odd) > 1 else " is"
            notes.append(f"{odd[0]} of {logdir / name}{more} odd and left out")
    arrays = {key: (np.array(steps), np.array(values)) for key, (steps, values) in series.items()}
    notes += _changed(logdir)
    config, protocol = _config(logdir), _json(logdir / "protocol.json")
    return Logged(logdir, config, protocol, _json(logdir / "env.json"), arrays, tuple(notes))


def _numbers(row: Mapping[str, Any]) -> tuple[float, dict[str, float]]:
    """The step of a line, and its numbers by name. Raises Odd."""
    values = {}
    for key, value in row.items():
        try:
            if key == "step":
                foreign.step(value)
            elif value is None or isinstance(value, (int, float)):
                values[key] = foreign.number(value)
        except Odd as error:
            raise Odd(f"its {key} {error}") from error
    return foreign.step(row.get("step", 0)), values


def _config(logdir: Path) -> dict[str, Any]:
    """config.toml, or where that is missing or a power cut left nothing in it, what the newest checkpoint kept of it; where
    none did, what a folder of another project tells, which may be nothing."""
    path = logdir / "config.toml"
    text = path.read_bytes().strip(b"\0\r\n\t ") if path.is_file() else b""
    if text:
        try:
            return _checked(foreign.plain(tomllib.loads(text.decode("utf-8-sig"))), path)
        except Odd as error:
            raise SuiteError(f"{path} {error}: mend it") from error
        except UnicodeDecodeError as error:
            raise SuiteError(f"{path} is not UTF-8, as TOML has to be: save it in that encoding") from error
        except (ValueError, RecursionError) as error:
            raise SuiteError(f"{path} is not TOML: {error}") from error
    for manifest, kept in _kept(logdir, "config"):
        return _checked(kept, manifest)
    return strangers.config(logdir)


def _kept(logdir: Path, what: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The checkpoints' manifests that keep a table of this name of their run, and it, newest first."""
    manifests = [path for path in logdir.glob("checkpoint/*/manifest.json") if path.parent.name.isdecimal()]
    for manifest in sorted(manifests, key=lambda path: int(path.parent.name), reverse=True):
        try:
            yield manifest, dict(foreign.parsed(manifest.read_bytes())["meta"][what])
        except (OSError, ValueError, KeyError, TypeError):  # being written, or damaged, or of before it was kept
            continue


def _changed(logdir: Path) -> list[str]:
    """Sentences about logs that are not what the newest checkpoint says of them."""
    notes = []
    for _, logs in _kept(logdir, "logs"):
        for name, mark in logs.items():
            path = logdir / Path(name).name
            size, crc = (mark.get("bytes"), mark.get("crc32")) if isinstance(mark, dict) else (None, None)
            if not isinstance(size, int) or not isinstance(crc, int):
                continue
            text = path.read_bytes() if path.is_file() else b""
            text = text[:size] if 0 <= size <= len(text) else text
            if len(text) != size or zlib.crc32(text) != crc:
                odd = "is not what the run wrote there: rows were changed or taken away (its checksum differs)"
                notes.append(f"{path} {odd}; put it back from a copy if that was not meant")
            elif mark.get("altered") is True:
                notes.append(f"{path} holds what another program wrote there while the run was training")
        break
    return notes


def _checked(config: dict[str, Any], path: Path) -> dict[str, Any]:
    """The config, where what a report takes from it is of the right kind. Raises SuiteError."""
    run, seed = config.get("run", {}), config.get("seed", 0)
    if not isinstance(seed, int) and not (isinstance(seed, float) and seed.is_integer()):
        raise SuiteError(f"the seed in {path} is {str(seed)[:40]!r} and no whole number: mend it")
    lists = [run.get(name, []) for name in ("resumable", "incidental")] if isinstance(run, dict) else [None]
    if not all(isinstance(one, list) and all(isinstance(name, str) for name in one) for one in lists):
        raise SuiteError(f"[run] in {path} is not what a run writes there: mend it")
    return config


def _lines(path: Path, odd: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows with their numbers; those that are none are added to `odd`. Raises SuiteError for what is no JSON at all."""
    text = path.read_bytes().removeprefix(codecs.BOM_UTF8) if path.is_file() else b""
    if text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise SuiteError(f"{path} is not UTF-8: save it in that encoding")
    for number, line in enumerate(text.split(b"\n")[:-1], 1):
        try:
            row = foreign.parsed(line)
        except Odd as error:
            odd.append(f"line {number} ({error})")
            continue
        except ValueError as error:
            raise SuiteError(f"line {number} of {path} is not JSON: take it out") from error
        if isinstance(row, dict):
            yield number, row
        else:
            odd.append(f"line {number} (is {type(row).__name__} and no row)")


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = foreign.parsed(path.read_bytes())
    except Odd as error:
        raise SuiteError(f"{path} {error}: mend it") from error
    except ValueError as error:
        raise SuiteError(f"{path} is not JSON: {error}") from error
    return value if isinstance(value, dict) else {}
