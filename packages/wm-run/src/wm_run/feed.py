"""replay -> batches, and notes back into it: beside a device that works by itself, one update ahead and one late.

While the device makes an update, the next batch is sampled and on its way to it, and the notes of the update before are
written back. All of this happens at fixed places of the loop, whatever takes how long: a run stays a function of its
seed, and what is under way is part of its state. Without a lane, on a CPU, nothing is early and nothing late.

The price: a batch is drawn before the steps that arrive meanwhile, and without the notes of the update under way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor
from wm_core.types import Batch, Index, Past, moved

from wm_run.replay import Replay

Notes = Mapping[str, NDArray[Any] | Tensor]


class Lane(Protocol):
    """The way between the host's memory and a device that works by itself. Both calls begin something and return."""

    def upload(self, batch: Batch) -> Callable[[], Batch]:
        """Send a batch (B, T, ...); what is returned gives it on the device, for whatever the device is told next."""

    def download(self, notes: Mapping[str, Tensor]) -> Callable[[], Mapping[str, Tensor]]:
        """Fetch tensors (...) as they are when the device gets there; what is returned waits for them."""


class CudaLane:
    """A `Lane`: pinned memory, a stream beside the main one for what goes up, events for both."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.stream = device, torch.cuda.Stream(device)

    def upload(self, batch: Batch) -> Callable[[], Batch]:
        pinned = moved(batch, lambda tensor: tensor.pin_memory())
        with torch.cuda.stream(self.stream):
            there = moved(pinned, lambda tensor: tensor.to(self.device, non_blocking=True))
            arrived = self.stream.record_event()

        def take() -> Batch:
            main = torch.cuda.current_stream(self.device)
            main.wait_event(arrived)

            def known(tensor: Tensor) -> Tensor:
                tensor.record_stream(main)  # its memory was given out on the other stream
                return tensor

            assert pinned is not None  # held until here
            return moved(there, known)

        return take

    def download(self, notes: Mapping[str, Tensor]) -> Callable[[], Mapping[str, Tensor]]:
        here = {name: torch.empty(value.shape, dtype=value.dtype, pin_memory=True) for name, value in notes.items()}
        for name, value in notes.items():
            here[name].copy_(value, non_blocking=True)
        arrived = torch.cuda.current_stream(self.device).record_event()

        def take() -> Mapping[str, Tensor]:
            arrived.synchronize()
            return here

        return take


def lane_to(device: torch.device) -> Lane | None:
    """None for a CPU, where all is at hand."""
    return CudaLane(device) if device.type == "cuda" else None


class _Ahead(NamedTuple):
    request: tuple[int, int, int]
    batch: Batch  # in the host's memory, for a checkpoint
    take: Callable[[], Batch]


class _Late(NamedTuple):
    rows: Index
    take: Callable[[], Notes]


class Feed:
    """An `Experience` over a replay. `advance` after every update says that the update is on its way.

    >>> import numpy as np
    >>> replay = Replay(None, streams=1, stores={}, limit_bytes=10**6, chunk=64, length=2)
    >>> for t in range(4):
    ...     replay.add({"action": np.zeros((1, 1), np.float32), "first": np.full(1, t == 0), "x": np.full(1, t)})
    >>> feed = Feed(replay)
    >>> batch = feed.sample(batch=1, length=2)
    >>> [len(given.steps["x"]) for given in feed.advance()]
    [1]
    """

    def __init__(self, replay: Replay, lane: Lane | None = None) -> None:
        self.replay, self.lane = replay, lane
        self._handed: list[tuple[tuple[int, int, int], Batch]] = []  # for the update under way
        self._ahead: list[_Ahead] = []
        self._notes: list[_Late] = []  # of the update under way
        self._late: list[_Late] = []  # of the one before

    def ready(self, length: int) -> bool:
        """Whether a row of `length` steps can be sampled."""
        return self.replay.ready(length)

    def sample(self, batch: int, length: int, past: int = 0) -> Batch:
        """`Replay.sample`, on the device: what was drawn ahead for the same question, else drawn now.

        A batch that was drawn ahead and is not asked for is lost, and all behind it: agents ask for the same at every
        update.
        """
        request = batch, length, past
        if self.lane is None:
            drawn = given = self.replay.sample(*request)
        else:
            if not self._ahead or self._ahead[0].request != request:
                self._ahead = [self._sent(request)]
            ahead = self._ahead.pop(0)
            drawn, given = ahead.batch, ahead.take()
        self._handed.append((request, drawn))
        return given

    def annotate(self, index: Index, **arrays: NDArray[Any] | Tensor) -> None:
        """`Replay.annotate`, now or one update later."""
        if self.lane is None:
            self.replay.annotate(index, **arrays)
        else:
            self._notes.append(_Late(index, self.lane.download({k: torch.as_tensor(v) for k, v in arrays.items()})))

    def advance(self) -> tuple[Batch, ...]:
        """An update was told to the device: write back the notes of the one before, draw for the next one.

        Gives the batches of this update, in the host's memory, in the order in which they were asked for.
        """
        handed, self._handed = self._handed, []
        if self.lane is not None:
            for late in self._late:
                self.replay.annotate(late.rows, **late.take())
            self._late, self._notes = self._notes, []
            self._ahead = [self._sent(request) for request, _ in handed]
        return tuple(batch for _, batch in handed)

    def _sent(self, request: tuple[int, int, int], batch: Batch | None = None) -> _Ahead:
        assert self.lane is not None
        batch = self.replay.sample(*request) if batch is None else batch
        return _Ahead(request, batch, self.lane.upload(batch))

    def state(self) -> dict[str, Any]:
        """What is under way between two updates, for a checkpoint."""
        assert not self._handed and not self._notes, "an update is being made"
        return {
            "late": [{"index": vars(late.rows), "notes": dict(late.take())} for late in self._late],
            "ahead": [{"request": list(ahead.request), "batch": plain(ahead.batch)} for ahead in self._ahead],
        }

    def load_state(self, state: Mapping[str, Any]) -> list[str]:
        """Stand where `state` was taken, after the replay does; gives a sentence about what could not be put back."""
        late = [_Late(Index(**one["index"]), lambda notes=one["notes"]: notes) for one in state["late"]]  # type: ignore[misc]
        self._late, self._ahead, notices = [], [], list[str]()
        if self.lane is not None:
            self._late = late
            self._ahead = [self._sent(_request(one["request"]), batch_of(one["batch"])) for one in state["ahead"]]
            return notices
        for one in late:  # saved beside a device that worked by itself
            self.replay.annotate(one.rows, **one.take())
        if state["ahead"]:
            notices.append("a batch that was drawn ahead, for another kind of device, is left out")
        return notices


def plain(batch: Batch) -> dict[str, Any]:
    """A batch as nested dictionaries of tensors."""
    past = None if batch.past is None else vars(batch.past)
    return {"steps": dict(batch.steps), "past": past, "index": vars(batch.index)}


def batch_of(state: Mapping[str, Any]) -> Batch:
    """What `plain` was given."""
    past = None if state["past"] is None else Past(**state["past"])
    return Batch(dict(state["steps"]), past, Index(**state["index"]))


def _request(numbers: Any) -> tuple[int, int, int]:
    batch, length, past = map(int, numbers)
    return batch, length, past
