"""A file of frames -> bytes (T, H, W, 3): those of one episode, as many as there should be and when they should be."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from env_adapters.recordings import DataError


def _av() -> Any:
    try:
        import av
    except ModuleNotFoundError as error:
        raise DataError("reading LeRobot's videos needs the extra: install env-adapters[lerobot]") from error
    return av


def frames(file: Path, begin: float, count: int, fps: float, name: str) -> NDArray[np.uint8]:
    """`count` frames from the second `begin` on. name: for messages. Raises DataError for another number of them, or other
    times than those of `fps`."""
    av = _av()
    if not file.is_file():
        raise DataError(f"{name} lacks its video: {file} is missing")
    found: list[NDArray[np.uint8]] = []
    times: list[float] = []
    end = begin + (count - 0.5) / fps
    try:
        with av.open(str(file)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            if begin > 0:
                container.seek(int(begin / stream.time_base), stream=stream, backward=True, any_frame=False)
            for frame in container.decode(stream):
                if frame.time < begin - 0.5 / fps:
                    continue
                if frame.time > end and (begin > 0 or len(found) >= count):
                    break
                found.append(frame.to_ndarray(format="rgb24"))
                times.append(frame.time)
    except (OSError, ValueError, IndexError) as error:  # av's errors are kinds of the first two
        raise DataError(
            f"{name}: {file.name} is no video that can be decoded: {' '.join(str(error).split())[:100]}"
        ) from error
    if len(found) > 1:
        rate = 1 / float(np.median(np.diff(times)))
        if abs(rate / fps - 1) > 0.1:
            raise DataError(f"{name}: {file.name} runs at {rate:.3g} frames a second, and fps is {fps:g} in info.json")
    if len(found) != count:
        raise DataError(f"{name}: {file.name} holds {len(found)} frames of the episode, which has {count}")
    return np.stack(found)


def picture(value: Any, name: str) -> NDArray[np.uint8]:
    """Bytes of a picture's file, as a column of pictures holds them."""
    av = _av()
    data = value.get("bytes") if isinstance(value, dict) else None
    if not data:
        raise DataError(f"{name} holds no bytes of a picture but {str(value)[:60]}: convert the data with LeRobot")
    try:
        with av.open(io.BytesIO(data)) as container:
            return np.asarray(next(container.decode(video=0)).to_ndarray(format="rgb24"))
    except (OSError, ValueError, IndexError, StopIteration) as error:
        raise DataError(
            f"{name} holds a picture that cannot be decoded: {' '.join(str(error).split())[:100]}"
        ) from error
