"""A LeRobot folder, format 2.0, 2.1 or 3.0 -> episodes of records. Needs the extra `lerobot`; the layout is read here.

meta/info.json says which columns there are and where parquet and video lie. A frame is an observation and the action that was
taken then; `next.reward` and `next.done` are what that action brought. After the last action no frame was taken: where the
data has rewards or ends, the last frame is shown once more so that they are kept, else the last action is left out.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from env_adapters.recordings import DataError, Foreign, Taken, bounded
from env_adapters.recordings_video import frames, picture

VERSIONS = ("v2.0", "v2.1", "v3.0")
OBSERVED = "observation."
ACTION, REWARD = "action", "next.reward"
ENDS = ("next.terminated", "next.done", "next.success")  # the first that there is says how an episode ends
INDEX = ("timestamp", "frame_index", "episode_index", "index", "task_index")
MISSING = "Reading LeRobot data needs the extra: install env-adapters[lerobot]"


class Piece(NamedTuple):
    """Where an episode lies: its parquet file, and of each camera the video and the second in it where the episode begins."""

    number: int
    length: int
    file: Path
    videos: Mapping[str, tuple[Path, float]]


def fits(path: Path) -> bool:
    """Whether it is such a folder."""
    return (path / "meta" / "info.json").is_file()


def opened(
    path: Path, *, drop: Collection[str] | None = None, keep: Collection[str] | None = None, ends: str = ""
) -> Foreign:
    """keep: columns that are observations, instead of all `observation.*`. drop: of those, by the names that they have then.
    ends: "terminal" or "truncated", whatever the data says of the ends. Raises DataError."""
    if ends not in ("", "terminal", "truncated"):
        raise DataError(f"--ends is terminal or truncated, not {ends!r}")
    data = Folder(path)
    observed = data.observed(keep)
    pieces = data.pieces()
    if not pieces:
        raise DataError(f"{path} holds no episode")
    first = data.columns(pieces[0], observed)
    names = {key: key.removeprefix(OBSERVED) for key in observed}
    space = spaces.Dict({names[key]: _space(first[key]) for key in observed})
    action_space = _action_space(data, pieces)
    end = next((name for name in ENDS if name in data.features), "")
    rewarded = REWARD in data.features
    notices = list(data.notices(observed))
    if not rewarded:
        notices.append("there is no column next.reward: all rewards are 0")
    if not end and not ends:
        notices.append("there is no column next.done: all episodes are truncated (--ends terminal if they are not)")
    again = rewarded or bool(end)
    notices.append(
        "no frame was taken after an episode's last action: "
        + ("the last one is shown again" if again else "it is left out")
    )

    def episodes() -> Iterator[Taken]:
        for piece in pieces:
            columns = data.columns(piece, observed)
            reward = data.column(piece, REWARD).reshape(-1) if rewarded else np.zeros(piece.length, np.float32)
            over = bool(np.asarray(data.column(piece, end)).reshape(-1)[-1]) if end else False
            _check_ends(piece, data.column(piece, end) if end == "next.done" else None)
            shown = {
                names[key]: np.concatenate([value, value[-1:]]) if again else value for key, value in columns.items()
            }
            action = data.column(piece, ACTION)
            if not again:
                action, reward = action[:-1], reward[:-1]
            terminal = ends == "terminal" or (not ends and over)
            yield Taken(f"episode {piece.number}", shown, action, reward, terminal)

    about = {"fps": data.fps, "format": data.version, "robot": str(data.info.get("robot_type") or "")}
    return Foreign("lerobot", space, action_space, episodes, len(pieces), drop=drop, notices=notices, protocol=about)


@dataclass
class Folder:
    """What meta/ says, and the columns of an episode."""

    path: Path

    def __post_init__(self) -> None:
        try:
            self._parquet: Any = importlib.import_module("pyarrow.parquet")
        except ModuleNotFoundError as error:
            raise DataError(MISSING) from error
        file = self.path / "meta" / "info.json"
        try:
            self.info: dict[str, Any] = dict(json.loads(file.read_text(encoding="utf-8")))
            self.version, self.fps = str(self.info["codebase_version"]), float(self.info["fps"])
            self.features: dict[str, dict[str, Any]] = dict(self.info["features"])
            self._data_path, self._video_path = str(self.info["data_path"]), self.info.get("video_path")
        except OSError as error:
            raise DataError(f"{file} cannot be read: name the folder that holds meta/, data/ and videos/") from error
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"{file} is not what LeRobot writes ({error!r})") from error
        if self.version not in VERSIONS:
            raise DataError(
                f"{self.path} has LeRobot's format {self.version}, and {', '.join(VERSIONS)} are read: convert it with LeRobot"
            )
        if ACTION not in self.features:
            raise DataError(f"{self.path} has no column 'action': it has {', '.join(self.features)}")
        self._read: tuple[Path, Any] = (Path(), None)  # the parquet file that was read last
        self._sliced: tuple[int, Any] = (-1, None)  # and the episode of it

    def observed(self, keep: Collection[str] | None) -> list[str]:
        """Columns that are observations: those of `keep`, else `observation.*` that are no texts."""
        if keep:
            for key in keep:
                if key not in self.features or key in (ACTION, *INDEX):
                    raise DataError(f"--keep names {key!r}, and the columns are {', '.join(self.features)}")
            return list(keep)
        found = [key for key, one in self.features.items() if key.startswith(OBSERVED) and one["dtype"] != "string"]
        if not found:
            raise DataError(f"{self.path} has no column observation.*: --keep one of {', '.join(self.features)}")
        return found

    def notices(self, observed: Collection[str]) -> Iterator[str]:
        """What is left out."""
        used = {ACTION, REWARD, *ENDS, *INDEX, *observed}
        if left := sorted(self.features.keys() - used):
            yield f"{', '.join(left)} of the data are no observations here (--keep)"

    def pieces(self) -> list[Piece]:
        """Of every episode, in order."""
        table = self._episodes_3() if self.version == "v3.0" else self._episodes_2()
        return [self._piece(row) for row in sorted(table, key=lambda row: int(row["episode_index"]))]

    def _episodes_2(self) -> list[dict[str, Any]]:
        file = self.path / "meta" / "episodes.jsonl"
        try:
            return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        except (OSError, ValueError) as error:
            raise DataError(f"{file} cannot be read ({error}): format {self.version} has one") from error

    def _episodes_3(self) -> list[dict[str, Any]]:
        files = sorted((self.path / "meta" / "episodes").glob("*/*.parquet"))
        if not files:
            raise DataError(f"{self.path} has no meta/episodes/*/*.parquet: format v3.0 has some")
        found: list[dict[str, Any]] = []
        for file in files:
            table = self._table(file)
            found += table.select([n for n in table.column_names if not n.startswith("stats/")]).to_pylist()
        return found

    def _piece(self, row: Mapping[str, Any]) -> Piece:
        index, cameras = int(row["episode_index"]), [k for k, one in self.features.items() if one["dtype"] == "video"]
        try:
            if self.version == "v3.0":
                place = {"chunk_index": row["data/chunk_index"], "file_index": row["data/file_index"]}
                videos = {
                    key: (
                        self.path
                        / str(self._video_path).format(
                            video_key=key,
                            chunk_index=row[f"videos/{key}/chunk_index"],
                            file_index=row[f"videos/{key}/file_index"],
                        ),
                        float(row[f"videos/{key}/from_timestamp"]),
                    )
                    for key in cameras
                }
            else:
                place = {"episode_chunk": index // int(self.info["chunks_size"]), "episode_index": index}
                videos = {
                    key: (self.path / str(self._video_path).format(video_key=key, **place), 0.0) for key in cameras
                }
            return Piece(index, int(row["length"]), self.path / self._data_path.format(**place), videos)
        except (KeyError, ValueError, TypeError) as error:
            raise DataError(f"meta/ of {self.path} does not say where episode {index} lies: {error!r}") from error

    def columns(self, piece: Piece, keys: Collection[str]) -> dict[str, NDArray[Any]]:
        """(T, ...) of each, pictures as bytes (T, H, W, C)."""
        return {key: self._video(piece, key) if key in piece.videos else self.column(piece, key) for key in keys}

    def _video(self, piece: Piece, key: str) -> NDArray[np.uint8]:
        file, begin = piece.videos[key]
        return frames(file, begin, piece.length, self.fps, f"episode {piece.number}: {key}")

    def column(self, piece: Piece, key: str) -> NDArray[Any]:
        """(T, ...) as its feature says."""
        table = self._rows(piece)
        if key not in table.column_names:
            raise DataError(f"episode {piece.number}: {piece.file.name} has no column {key!r}, which info.json names")
        column, feature = table.column(key), self.features[key]
        if column.null_count:
            raise DataError(f"episode {piece.number}: {key} lacks {column.null_count} of {piece.length} values")
        if feature["dtype"] == "image":
            return np.stack([picture(one, f"episode {piece.number}: {key}") for one in column.to_pylist()])
        shape = tuple(feature["shape"])
        try:
            values = _flat(column).astype(np.dtype(feature["dtype"]), casting="same_kind").reshape(piece.length, *shape)
        except (ValueError, TypeError) as error:
            raise DataError(
                f"episode {piece.number}: {key} is not {feature['dtype']} {shape} in every frame, as info.json says: {error}"
            ) from error
        return values

    def _rows(self, piece: Piece) -> Any:
        if self._sliced[0] == piece.number:
            return self._sliced[1]
        if self._read[0] != piece.file:
            if not piece.file.is_file():
                raise DataError(f"episode {piece.number} lacks its data: {piece.file} is missing")
            self._read = (piece.file, self._table(piece.file))
        table = self._read[1]
        rows = np.flatnonzero(np.asarray(table.column("episode_index")) == piece.number)
        if len(rows) != piece.length:
            raise DataError(
                f"episode {piece.number} has {len(rows)} frames in {piece.file.name}, and {piece.length} by meta/: frames are "
                "missing"
            )
        if len(rows) < 2:
            raise DataError(f"episode {piece.number} has {len(rows)} frames: an episode has two at least")
        table = table.slice(int(rows[0]), len(rows))
        number = (
            np.asarray(table.column("frame_index")) if "frame_index" in table.column_names else np.arange(len(rows))
        )
        if (number != np.arange(len(rows))).any() or rows[-1] - rows[0] != len(rows) - 1:
            raise DataError(
                f"episode {piece.number}: frame_index is not 0 to {len(rows) - 1}: frames are missing or out of order"
            )
        if "timestamp" in table.column_names:
            gaps = np.abs(np.diff(np.asarray(table.column("timestamp"), np.float64)) * self.fps - 1)
            if gaps.max() > 0.5:
                at = int(gaps.argmax())
                raise DataError(
                    f"episode {piece.number}: frames {at} and {at + 1} do not follow each other at {self.fps:g} fps: frames are "
                    "missing, or fps in info.json is wrong"
                )
        self._sliced = (piece.number, table)
        return table

    def _table(self, file: Path) -> Any:
        try:
            return self._parquet.read_table(file)
        except Exception as error:  # whatever a foreign file makes its reader raise
            raise DataError(f"{file} cannot be read: {' '.join(str(error).split())[:150]}") from error


def _flat(column: Any) -> NDArray[Any]:
    """The numbers of a column of numbers or of lists of them."""
    array = column.combine_chunks()
    while hasattr(array, "values"):  # lists, of one length each; `values` alone would pass over where a slice begins
        array = array.flatten()
    if array.null_count:
        raise ValueError(f"{array.null_count} values are missing")
    return np.asarray(array.to_numpy(zero_copy_only=False))


def _check_ends(piece: Piece, done: NDArray[Any] | None) -> None:
    flags = np.zeros(1) if done is None else np.asarray(done).reshape(-1)
    if flags[:-1].any():
        raise DataError(
            f"episode {piece.number}: next.done is True in frame {int(flags.argmax())} of {piece.length}: an episode ends there"
        )


def _space(first: NDArray[Any]) -> Any:
    """Of one column."""
    shape = first.shape[1:]
    if first.dtype == np.uint8:
        return spaces.Box(0, 255, shape, np.uint8)
    if first.dtype.kind == "f":
        return spaces.Box(-np.inf, np.inf, shape, first.dtype.type)
    if first.dtype == np.bool_:
        return spaces.MultiBinary(shape)
    return spaces.Box(np.iinfo(first.dtype).min, np.iinfo(first.dtype).max, shape, first.dtype.type)


def _action_space(data: Folder, pieces: list[Piece]) -> Any:
    """Floats have the bounds of all their values, integers are choices."""
    values = np.concatenate([data.column(piece, ACTION) for piece in pieces])
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise DataError("some action is no finite number: leave those episodes out")
        return bounded(values.astype(np.float32))
    low, high = values.min(0), values.max(0)
    if (low < 0).any():
        raise DataError(f"the actions are integers from {low.min()} on: choices begin at 0")
    return spaces.MultiDiscrete(high + 1)
