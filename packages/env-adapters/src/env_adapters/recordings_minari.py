"""A Minari data set, by its id or its folder -> episodes of records. Needs the extra `minari`."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from env_adapters.errors import brief
from env_adapters.recordings import DataError, Foreign, Taken, only


def fits(path: Path) -> bool:
    """Whether it is the folder of such a data set, or its data."""
    return any(
        (folder / "metadata.json").is_file() or (folder / "main_data.hdf5").is_file()
        for folder in (path / "data", path)
    )


def opened(source: str | Path, *, drop: Collection[str] | None = None, **rest: Any) -> Foreign:
    """Raises DataError where there is none, or where it is not one that this Minari reads."""
    only("Minari", rest)
    try:
        minari: Any = importlib.import_module("minari")
    except ModuleNotFoundError as error:
        raise DataError("Minari data need the extra: install env-adapters[minari]") from error
    path = Path(source).expanduser()
    try:
        if path.is_dir():
            data: Any = minari.MinariDataset(path / "data" if (path / "data").is_dir() else path)
        else:
            data = minari.load_dataset(str(source))
    except FileNotFoundError as error:
        raise DataError(
            f"there is no data set {str(source)!r} here: give its folder, or fetch it first with `minari download {source}`"
        ) from error
    except Exception as error:  # whatever a foreign file makes its reader raise
        raise DataError(f"Minari cannot open {source}: {' '.join(str(error).split())[:200]}") from error

    def episodes() -> Iterator[Taken]:
        for at in range(int(data.total_episodes)):
            yield _taken(data, at)

    task = f"gym:{data.env_spec.id}" if data.env_spec is not None else ""
    about = {"dataset": str(data.id), "minari": str(data.minari_version)}
    try:
        return Foreign(
            f"minari:{data.id}",
            data.observation_space,
            data.action_space,
            episodes,
            int(data.total_episodes),
            task=task,
            drop=drop,
            protocol=about,
        )
    except DataError:
        raise
    except ValueError as error:  # a TaskError about its spaces
        raise DataError(f"{data.id}: {error} ({brief(data.observation_space)})") from error


def _taken(data: Any, at: int) -> Taken:
    name = f"episode {at}"
    try:
        one = data[at]
    except Exception as error:  # as above
        raise DataError(f"{name} cannot be read: {' '.join(str(error).split())[:200]}") from error
    terminations, truncations = (np.asarray(flags).reshape(-1) for flags in (one.terminations, one.truncations))
    count = len(np.asarray(one.rewards).reshape(-1))
    if not len(terminations) == len(truncations) == count:
        raise DataError(f"{name}: {count} rewards, {len(terminations)} terminations and {len(truncations)} truncations")
    if early := np.flatnonzero((terminations | truncations)[:-1]).tolist():
        raise DataError(f"{name} ends after action {early[0]} of {count} and goes on: cut it there")
    return Taken(
        name, one.observations, one.actions, np.asarray(one.rewards).reshape(-1), bool(terminations[-1:].any())
    )
