"""A folder of EPISODE.npz -> a data set: one file an episode, in the order of their names; about.json is optional.

Of T actions, an episode holds `action` (T, ...), `reward` (T,), `terminated` and `truncated` (one bool, or T of which the last
counts), entries `told/NAME` (T + 1, k) that no encoder sees, and every other array is an observation, (T + 1, ...): the first
before any action, each other one after the action. about.json may say {"actions": 4} (choices, from 0 on), {"low": -1, "high": 1}
(of continuous ones), {"repeat": 4} and {"task": "gym:MyEnv-v0"}.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from env_adapters.recordings import DataError, Foreign, Taken, bounded, only

WORDS = ("action", "reward", "terminated", "truncated")
FACTS = "told/"
ABOUT = ("actions", "low", "high", "repeat", "task")


def fits(path: Path) -> bool:
    """Whether it is such a folder."""
    return path.is_dir() and any(path.glob("*.npz"))


def opened(path: Path, *, drop: Collection[str] | None = None, **rest: Any) -> Foreign:
    """Raises DataError where no space can be made of what the files hold."""
    only("npz", rest)
    files = sorted(path.glob("*.npz")) if path.is_dir() else []
    if not files:
        raise DataError(f"there are no episodes *.npz in {path}")
    about, first = _about(path), _read(files[0])
    observed = sorted(key for key in first if key not in WORDS and not key.startswith(FACTS))
    if not observed:
        raise DataError(f"{files[0].name} holds no observation beside {', '.join(sorted(first))}")
    whole: Any = spaces.Dict({key: _space(key, first[key], files) for key in observed})
    notices = (
        []
        if "terminated" in first or "truncated" in first
        else ["no file says terminated or truncated: all are truncated"]
    )
    notices += [] if "reward" in first else ["no file has a reward: all are 0"]

    def episodes() -> Iterator[Taken]:
        for file in files:
            yield _taken(file, whole)

    found = Foreign(
        "npz",
        whole,
        _actions(first, files, about),
        episodes,
        len(files),
        task=about.get("task", ""),
        drop=drop,
        notices=notices,
    )
    found.repeat = int(about.get("repeat", 1))
    found.protocol["repeat"] = found.repeat
    return found


def _taken(file: Path, space: spaces.Dict) -> Taken:
    arrays = _read(file)
    if odd := {key for key in arrays if key not in WORDS and not key.startswith(FACTS)} ^ space.spaces.keys():
        raise DataError(f"{file.name}: {', '.join(sorted(odd))} is in it or in the first file, and not in both")
    for key, leaf in space.spaces.items():
        if arrays[key].dtype != leaf.dtype:
            raise DataError(f"{file.name}: {key} is {arrays[key].dtype}, and {leaf.dtype} in the first file")
    action = arrays["action"]
    reward = arrays.get("reward", np.zeros(len(action), np.float32))
    if len(reward) != len(action):
        raise DataError(f"{file.name}: {len(action)} actions brought {len(reward)} rewards")
    flags = {name: _flag(file, name, arrays.get(name), len(action)) for name in ("terminated", "truncated")}
    facts = {key.removeprefix(FACTS): value for key, value in arrays.items() if key.startswith(FACTS)}
    return Taken(file.name, {key: arrays[key] for key in space.spaces}, action, reward, flags["terminated"], facts)


def _flag(file: Path, name: str, value: NDArray[Any] | None, count: int) -> bool:
    """Of the episode's end; True before it is a mistake."""
    if value is None:
        return False
    flat = np.asarray(value).reshape(-1)
    if len(flat) not in (1, count) or not np.isin(flat, (0, 1)).all():
        raise DataError(
            f"{file.name}: {name} is one bool, or one for each of {count} actions, not {value.dtype} {value.shape}"
        )
    if flat[:-1].any():
        raise DataError(
            f"{file.name}: {name} is True after action {int(flat.argmax())} of {count}: an episode ends there, so cut the file "
            "in two"
        )
    return bool(flat[-1])


def _read(file: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            found = {key: arrays[key] for key in arrays.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise DataError(
            f"{file.name} cannot be read ({' '.join(str(error).split())[:80]}): write it with numpy.savez"
        ) from error
    if "action" not in found or not found["action"].ndim:
        raise DataError(f"{file.name} holds no 'action' (T, ...): it has {', '.join(sorted(found)) or 'nothing'}")
    for key, value in found.items():
        if value.dtype.kind not in "biuf" or (key not in WORDS[2:] and not value.ndim):
            raise DataError(
                f"{file.name}: {key} is {value.dtype} {value.shape}, and should be numbers with time in front"
            )
    return found


def _space(key: str, first: NDArray[Any], files: list[Path]) -> Any:
    """Of one observation: bytes, floats, or choices from 0 on, of which all files are asked."""
    shape = first.shape[1:]
    if first.dtype.kind == "f":
        return spaces.Box(-np.inf, np.inf, shape, first.dtype.type)
    if first.dtype == np.bool_:
        return spaces.MultiBinary(shape) if shape else spaces.Discrete(2, dtype=np.int64)
    if first.dtype == np.uint8 and len(shape) > 1:
        return spaces.Box(0, 255, shape, np.uint8)
    low, high = _range(key, files)
    if low < 0 or high >= 2**20:
        return spaces.Box(np.iinfo(first.dtype).min, np.iinfo(first.dtype).max, shape, first.dtype.type)
    if shape:
        return spaces.MultiDiscrete(np.full(shape, high + 1), dtype=first.dtype.type)
    return spaces.Discrete(high + 1, dtype=first.dtype.type)


def _actions(first: Mapping[str, NDArray[Any]], files: list[Path], about: Mapping[str, Any]) -> Any:
    action = first["action"]
    if action.dtype.kind == "f":
        if "low" in about or "high" in about:
            low, high = (
                np.broadcast_to(np.asarray(about[name], np.float32), action.shape[1:]) for name in ("low", "high")
            )
            return spaces.Box(low, high, dtype=np.float32)
        values = [_read(file)["action"] for file in files]
        if odd := next(
            (f for f, one in zip(files, values, strict=True) if one.shape[1:] != action.shape[1:] or not one.size), None
        ):
            raise DataError(f"{odd.name}: its actions have another shape than {action.shape[1:]} of the first file")
        return bounded(np.concatenate(values).astype(np.float32))
    least, most = _range("action", files)
    count = int(about.get("actions", most + 1))
    if least < 0 or most >= count:
        raise DataError(f"the actions are {least} to {most}, and should be 0 to {count - 1}: number them from 0 on")
    shape = action.shape[1:]
    return spaces.MultiDiscrete(np.full(shape, count)) if shape else spaces.Discrete(count)


def _range(key: str, files: list[Path]) -> tuple[int, int]:
    values = [array for file in files if (array := _read(file).get(key)) is not None and array.size]
    return min((int(one.min()) for one in values), default=0), max((int(one.max()) for one in values), default=0)


def _about(path: Path) -> dict[str, Any]:
    file = path / "about.json"
    if not file.is_file():
        return {}
    try:
        found = dict(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise DataError(f"{file} is no JSON object: {error}") from error
    if odd := sorted(found.keys() - set(ABOUT)):
        raise DataError(f"{file} says {', '.join(odd)}, and may say {', '.join(ABOUT)}")
    if len(found.keys() & {"low", "high"}) == 1:
        raise DataError(f"{file} says one of low and high: give both")
    return found
