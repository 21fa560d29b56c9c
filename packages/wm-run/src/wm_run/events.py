"""Numbers by name -> a TensorBoard event file."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


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
