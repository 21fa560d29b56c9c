"""Numbers, texts and pictures by name -> a TensorBoard event file."""

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
        from tensorboard.compat.proto import (  # type: ignore[import-untyped]
            event_pb2,
            summary_pb2,
            tensor_pb2,
            tensor_shape_pb2,
            types_pb2,
        )
        from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]

        self._event, self._summary = event_pb2, summary_pb2
        self._tensor, self._shape, self._types = tensor_pb2, tensor_shape_pb2, types_pb2
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

    def text(self, name: str, markdown: str) -> None:
        """A text, beside no step."""
        shape = self._shape.TensorShapeProto(dim=[self._shape.TensorShapeProto.Dim(size=1)])
        tensor = self._tensor.TensorProto(dtype=self._types.DT_STRING, tensor_shape=shape)
        tensor.string_val.append(markdown.encode())
        plugin = self._summary.SummaryMetadata.PluginData(plugin_name="text")
        summary = self._summary.Summary()
        summary.value.add(tag=name, metadata=self._summary.SummaryMetadata(plugin_data=plugin), tensor=tensor)
        self._write(step=0, summary=summary)

    def image(self, step: int, name: str, encoded: bytes) -> None:
        """A picture as PNG, or a film as GIF, which moves on the page of images."""
        summary = self._summary.Summary()
        summary.value.add(tag=name, image=self._summary.Summary.Image(colorspace=3, encoded_image_string=encoded))
        self._write(step=step, summary=summary)

    def _write(self, **fields: Any) -> None:
        self._records.write(self._event.Event(wall_time=time.time(), **fields).SerializeToString())

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()
