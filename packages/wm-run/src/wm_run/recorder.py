"""Records, or whole episodes -> the folder of a recording, which can be gone on with after anything until it is finished.

Sizes: n streams of a part, T actions of an episode. A folder that is under way has `.unfinished` with a checkpoint in it, and
no recording.json, which comes last.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from wm_run import checkpoint, durable, machine, tally
from wm_run.chunks import ReplayError
from wm_run.episode_check import check_episode
from wm_run.recording import FORMAT, PARTS, PROGRESS, VAST, About, RecordingError
from wm_run.replay import Replay
from wm_run.tally import Tally

CHUNK_BYTES = 2**24  # of a chunk, about; one of an import's few small episodes should not take a disk
CHUNK = range(4, 11)  # powers of two: steps of a chunk


class Writer:
    """The recording under way in a folder, from where it was last saved, or anew.

    about: what it is of. streams: n of each part; those that `episode` fills have one. asked: what it was asked for, as JSON: a
    folder that is under way is gone on with by the same request alone. saved: what the last `save` was given, None where
    there is none. Raises RecordingError for a folder that holds a finished recording, or one that was asked for otherwise.

    >>> import tempfile
    >>> from gymnasium import spaces
    >>> from wm_run.recording import ActionSizes, Recording
    >>> space = spaces.Dict({"vector": spaces.Box(-1, 1, (2,))})
    >>> about = About(space, spaces.Discrete(3), ActionSizes((3,)))
    >>> episode = {
    ...     "vector": np.zeros((4, 2), np.float32),
    ...     "action": np.eye(3, dtype=np.float32)[[0, 1, 2, 0]] * [[0], [1], [1], [1]],
    ...     "reward": np.array([0, 0, 0, 1], np.float32),
    ...     "first": np.arange(4) == 0,
    ...     "last": np.arange(4) == 3,
    ...     "terminal": np.arange(4) == 3,
    ... }
    >>> episode["action"] = episode["action"].astype(np.float32)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     writer = Writer(folder, about)
    ...     writer.episode("train", episode)
    ...     writer.finish([{"who": "npz", "share": 1.0, "steps": 3, "seed": 0}])
    ...     Recording.open(folder).episodes("train")
    [Recorded(stream=0, start=0, length=3, score=1.0, ended='terminal', who=0)]
    """

    def __init__(
        self,
        folder: Path | str,
        about: About,
        *,
        streams: Mapping[str, int] | None = None,
        asked: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder, self.about = Path(folder), about
        self.streams = dict.fromkeys(PARTS, 1) | dict(streams or {})
        self.asked = json.loads(json.dumps(dict(asked or {})))
        self.saved: Any = None
        self._replays: dict[str, Replay] = {}
        self._tallies = {name: Tally(self.streams[name]) for name in PARTS}
        if (self.folder / "recording.json").exists():
            raise RecordingError(f"{self.folder} holds a finished recording: name another folder, or remove that one")
        self._text = {"format": FORMAT, **about.written()}  # which refuses what cannot be written down
        durable.make_folder(self.folder)
        path = checkpoint.latest(self.folder / PROGRESS)
        if path is not None:
            self._resume(checkpoint.load(path, app="recording"))
        else:
            durable.make_folder(self.folder / PROGRESS)

    def _resume(self, saved: checkpoint.Checkpoint) -> None:
        before = saved.meta["asked"]
        for name in [name for name in before | self.asked if before.get(name) != self.asked.get(name)]:
            raise RecordingError(
                f"the recording under way in {self.folder} was begun with {name} {before.get(name)!r}, which became "
                f"{self.asked.get(name)!r}: give the same again, or another folder"
            )
        for name, state in saved.state["parts"].items():
            self._tallies[name].load_state(state["tally"])
            if state["replay"] is not None:
                self._replays[name] = self._replay(name, int(state["replay"]["chunk"]))
                self._replays[name].load_state(state["replay"])
        self.saved = saved.state["more"]

    # ---- writing

    def actions(self, part: str) -> int:
        """Actions so far, of all streams: steps without repeats."""
        return self._tallies[part].actions

    def ended(self, part: str) -> int:
        """Episodes that have ended."""
        return self._tallies[part].ended

    def add(
        self,
        part: str,
        record: Mapping[str, NDArray[Any]],
        score: NDArray[Any] | None = None,
        cut: NDArray[np.bool_] | None = None,
        who: NDArray[np.int64] | None = None,
    ) -> None:
        """The next record of every stream of a part, every value (n, ...). score (n,): what counts, the reward where it is not
        said; cut (n,): whose episode a fault has ended; who (n,): of the sources, the one that plays it."""
        reward = record["reward"]
        counted = score if score is not None else reward if reward.ndim == 1 else reward.mean(1, dtype=np.float64)
        try:
            self._part(part, record).add(record)
        except ReplayError as error:
            raise self._refused(error) from error
        self._tallies[part].add(record, counted, cut, who)

    def episode(self, part: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """A whole episode of the one stream of a part, every value (T + 1, ...). Raises RecordingError for what is none."""
        ended = check_episode(arrays, self.about)
        reward = arrays["reward"].reshape(len(arrays["reward"]), -1).mean(1, dtype=np.float64)
        steps = {key: np.ascontiguousarray(value)[None] for key, value in arrays.items()}
        try:
            self._part(part, {key: value[:, 0] for key, value in steps.items()}).extend(steps)
        except ReplayError as error:
            raise self._refused(error) from error
        self._tallies[part].add_episode(len(reward) - 1, float(reward.sum()), ended)

    def _part(self, name: str, record: Mapping[str, NDArray[Any]]) -> Replay:
        """Its replay, begun with the first record."""
        if name not in self._replays:
            observed = self.about.observation_space.spaces.keys()
            known = {"action", "reward", "first", "last", "terminal", *observed}
            if lacking := known - record.keys():
                raise RecordingError(f"a record lacks {sorted(lacking)}, which every record of {self.folder} has")
            bytes_of = sum(np.asarray(value).nbytes for value in record.values())
            fit = [2**power for power in CHUNK if 2**power * bytes_of <= CHUNK_BYTES]
            self._replays[name] = self._replay(name, max(fit, default=2 ** CHUNK[0]))
        return self._replays[name]

    def _replay(self, name: str, chunk: int) -> Replay:
        return Replay(
            self.folder / name, self.streams[name], stores={}, limit_bytes=VAST, chunk=chunk, length=1, online=False
        )

    def _refused(self, error: ReplayError) -> RecordingError:
        if isinstance(error.__cause__, OSError):
            return RecordingError(
                f"no room for more records in {self.folder}: free some disk space, then give the same command again"
            )
        return RecordingError(f"{error}: every record of a recording has the same entries")

    # ---- keeping

    def save(self, more: Any = None) -> None:
        """Go on from here after anything. more: what `saved` gives back then, of what `checkpoint.save` takes."""
        states: dict[str, Any] = {}
        for name in PARTS:
            replay = self._replays.get(name)
            if replay is not None:
                replay.flush()
            states[name] = {"tally": self._tallies[name].state(), "replay": None if replay is None else replay.state()}
        step = sum(self._tallies[name].position for name in PARTS)
        meta = {"app": "recording", "asked": self.asked}
        state = {"parts": states, "more": more}
        checkpoint.save(self.folder / PROGRESS, step, weights={"none": torch.zeros(0)}, state=state, meta=meta, keep=1)
        for name, replay in self._replays.items():
            replay.commit(states[name]["replay"])

    def finish(self, source: Sequence[Mapping[str, Any]]) -> None:
        """Make a recording of it. source: who played, {"who", "share", "steps", "seed"} each."""
        if not self._tallies["train"].position:
            raise RecordingError(
                f"nothing was recorded for train in {self.folder}: a recording holds an episode at least"
            )
        for name in PARTS:
            replay = self._replays.get(name)
            if replay is None:  # empty, and of the same shape
                like = json.loads(self._replays["train"].state()["schema"])
                durable.make_folder(self.folder / name)
                durable.write(self.folder / name / "schema.json", json.dumps(like | {"streams": self.streams[name]}))
                state = self._replay(name, like["chunk"]).state()
                state["schema"] = json.dumps(like | {"streams": self.streams[name]})
            else:
                replay.flush()
                state = replay.state()
            plain = {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in state.items()}
            durable.write(self.folder / f"{name}.json", json.dumps(plain) + "\n")
        parts = {
            name: {"streams": self.streams[name], "actions": one.actions, "episodes": tally.columns(one.episodes())}
            for name, one in self._tallies.items()
        }
        made_by = {"wm_run": importlib.metadata.version("wm-run"), "commit": machine.commit()}
        text = self._text | {"source": list(source), "parts": parts, "asked": self.asked, "made_by": made_by}
        durable.write(self.folder / "recording.json", json.dumps(text, default=_plain) + "\n")
        durable.erase(self.folder / PROGRESS)
        for name in PARTS:
            for path in [self.folder / name / "commit.json", *(self.folder / name).glob("*.undo")]:
                path.unlink(missing_ok=True)


def under_way(folder: Path) -> Any:
    """What the last `Writer.save` in a folder was given; None where nothing is under way."""
    path = checkpoint.latest(folder / PROGRESS)
    return None if path is None else checkpoint.load(path, app="recording").state["more"]


def _plain(value: Any) -> Any:
    """Of a protocol, which may hold numpy numbers and tuples."""
    return (
        value.item()
        if isinstance(value, np.generic)
        else list(value)
        if isinstance(value, tuple | frozenset)
        else str(value)
    )
