"""A folder of recorded episodes -> rows to learn from, records in order, episodes: read alone, by as many as like.

    FOLDER/recording.json   what it is of: task, spaces, who played, the episodes (format 1)
    FOLDER/train/           a replay without notes (`wm_run.replay`: schema.json, chunks), its state in FOLDER/train.json
    FOLDER/held_out/        the same for episodes that no training sees; it may hold none

Sizes: n streams of a part, B rows, T length of a row, P past. A record is what arrived together: `action` is the one that
led here, zeros at `first`. Entries `told/NAME` are what the suite tells of the state, for probes and no encoder.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from wm_core.errors import UserError
from wm_core.types import Batch

from wm_run import commits, tally
from wm_run.chunks import Chunks, Entry
from wm_run.rows import Rows
from wm_run.spaces import described, restored
from wm_run.tally import Recorded
from wm_run.teams import Team, team_of

FORMAT = 1
PARTS = ("train", "held_out")
FACTS = "told/"  # entries of this prefix are no observations
VAST = 2**62  # bytes: a recording gives up nothing
PROGRESS = ".unfinished"  # folder of what a command that was ended needs to go on


class RecordingError(UserError):
    """What a user can do about it is in the sentence."""


@dataclass(frozen=True)
class ActionSizes:
    """What an action vector holds: a one-hot for each discrete group, then the continuous components.

    >>> ActionSizes((3, 2), 1).size
    6
    """

    discrete: tuple[int, ...] = ()
    continuous: int = 0

    @property
    def size(self) -> int:
        return sum(self.discrete) + self.continuous


@dataclass(frozen=True)
class About:
    """What a recording is of, as its environments describe themselves; spaces and actions are ONE agent's.

    task: "" where no environment is known. repeat: environment steps per action. options: of the task. views: how entries
    are looked at, as plain values.
    """

    observation_space: Any
    action_space: Any
    action: ActionSizes
    task: str = ""
    repeat: int = 1
    protocol: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    team: Team | None = None
    sources: Mapping[str, tuple[tuple[str, ...], Any]] = field(default_factory=dict)
    views: Mapping[str, Any] = field(default_factory=dict)
    unseen: frozenset[tuple[str, ...]] = frozenset()

    @classmethod
    def of(cls, envs: Any, task: str = "", options: Mapping[str, Any] | None = None) -> About:
        """Of environments, or of anything that has their spaces and facts."""
        sizes = ActionSizes(tuple(envs.action_spec.discrete), int(envs.action_spec.continuous))
        return cls(
            envs.observation_space,
            envs.action_space,
            sizes,
            task,
            int(envs.repeat),
            dict(envs.protocol),
            dict(options or {}),
            team_of(envs),
            getattr(envs, "sources", {}),  # no promise of Environments, here and below
            getattr(envs, "views", {}),
            getattr(envs, "unseen", frozenset()),
        )

    def written(self) -> dict[str, Any]:
        """As JSON."""
        views = {key: asdict(view) | {"space": described(view.space)} for key, view in self.views.items()}
        return {
            "task": self.task,
            "repeat": self.repeat,
            "protocol": dict(self.protocol),
            "options": dict(self.options),
            "observation_space": described(self.observation_space),
            "action_space": described(self.action_space),
            "action": {"discrete": list(self.action.discrete), "continuous": self.action.continuous},
            "agents": 1 if self.team is None else self.team.agents,
            "team": None if self.team is None else asdict(self.team),
            "sources": {key: [list(path), described(space)] for key, (path, space) in self.sources.items()},
            "views": views,
            "unseen": sorted(list(path) for path in self.unseen),
        }

    @classmethod
    def read(cls, text: Mapping[str, Any]) -> About:
        """What `written` gave."""
        sizes = ActionSizes(tuple(text["action"]["discrete"]), text["action"]["continuous"])
        return cls(
            restored(text["observation_space"]),
            restored(text["action_space"]),
            sizes,
            text["task"],
            text["repeat"],
            text["protocol"],
            text["options"],
            None if text["team"] is None else Team(**text["team"]),
            {key: (tuple(path), restored(space)) for key, (path, space) in text["sources"].items()},
            {key: _view(view) for key, view in text["views"].items()},
            frozenset(tuple(path) for path in text["unseen"]),
        )


def _view(text: Mapping[str, Any]) -> Any:
    """How an entry is looked at, for whoever has its environment: then env-adapters is there, else the plain values."""
    try:
        view: Any = importlib.import_module("env_adapters.pictures").View
    except ModuleNotFoundError:
        return dict(text)
    size = None if text["size"] is None else tuple(text["size"])
    return view(**{**text, "space": restored(text["space"]), "size": size})


class Recording:
    """A finished recording. `open` makes one.

    about: what it is of. source: who played, as JSON. checksum: of everything that can be learned from it. made_by: version
    and commit. Part names are "train" and "held_out".
    """

    def __init__(self, folder: Path, about: About, parts: Mapping[str, Part], text: Mapping[str, Any]) -> None:
        self.folder, self.about, self._parts = folder, about, dict(parts)
        self.source: list[dict[str, Any]] = list(text["source"])
        self.made_by: dict[str, Any] = dict(text["made_by"])
        shape = ("repeat", "observation_space", "action_space", "action", "team")
        content = {name: text[name] for name in shape} | {name: part.fingerprint for name, part in parts.items()}
        self.checksum = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @classmethod
    def open(cls, folder: Path | str) -> Recording:
        """Raises RecordingError, in one sentence, for what is no finished recording. Nothing in the folder is changed."""
        folder = Path(folder)
        path = folder / "recording.json"
        if not path.is_file():
            if (folder / PROGRESS).is_dir():
                raise RecordingError(f"the recording in {folder} is not finished: repeat the command that makes it")
            raise RecordingError(f"there is no recording in {folder} (no recording.json): `wm-run collect` makes one")
        text = _read(path)
        if text.get("format") != FORMAT:
            raise RecordingError(
                f"{path} has format {text.get('format')!r} and this wm-run reads {FORMAT}: take the wm-run that made it"
            )
        try:
            about = About.read(text)
            parts = {name: Part(folder, name, text["parts"][name]) for name in PARTS}
            return cls(folder, about, parts, text)
        except UserError:
            raise
        except (KeyError, TypeError, AttributeError, IndexError, ValueError, OverflowError) as error:
            raise RecordingError(f"{path} is not what was saved ({error!r}): copy the recording again") from error

    @property
    def observation_space(self) -> Any:
        """A gymnasium Dict, of one agent."""
        return self.about.observation_space

    @property
    def action_space(self) -> Any:
        """Native, of one agent."""
        return self.about.action_space

    @property
    def action_spec(self) -> ActionSizes:
        """What an action vector holds."""
        return self.about.action

    @property
    def team(self) -> Team | None:
        """None where records have no axis of agents."""
        return self.about.team

    @property
    def task(self) -> str:
        """ "" where no environment is known."""
        return self.about.task

    @property
    def repeat(self) -> int:
        """Environment steps per action."""
        return self.about.repeat

    @property
    def protocol(self) -> Mapping[str, Any]:
        """What a score means."""
        return self.about.protocol

    def part(self, name: str) -> Part:
        """One of the two. Raises RecordingError for another name."""
        if name not in self._parts:
            raise RecordingError(f"a recording has no part {name!r}: it has {' and '.join(PARTS)}")
        return self._parts[name]

    def episodes(self, part: str = "train") -> list[Recorded]:
        """In the order of their ends."""
        return list(self.part(part).episodes)

    def steps(self, part: str = "train") -> int:
        """Environment steps, with repeats; reset records are none."""
        return self.part(part).actions * self.repeat

    def records(self, part: str = "train") -> Iterator[dict[str, NDArray[Any]]]:
        """Record by record, every value (n, ...), in order; they are copies."""
        for block in self.blocks(part):
            for t in range(block["first"].shape[1]):
                yield {key: value[:, t].copy() for key, value in block.items()}

    def blocks(self, part: str = "train") -> Iterator[dict[str, NDArray[Any]]]:
        """The same in stretches, every value (n, T, ...), for `Replay.extend`: views that cannot be written to."""
        return self.part(part).blocks()

    def rows(self, part: str, batch: int, length: int, past: int = 0, seed: int = 0) -> Batch:
        """B rows of T records, uniform over all places where one fits, without notes; the same for the same seed.

        As `Replay.sample` gives them. Raises RecordingError where the part is shorter than a row.
        """
        return self.part(part).rows(batch, length, past, seed)

    def verify(self) -> None:
        """Read everything once. Raises RecordingError for a chunk that is not what was saved."""
        for part in self._parts.values():
            part.verify()


class Part:
    """The records of one part, mapped for reading.

    streams: n. position: records of each stream. actions: of all streams, what is counted as steps without repeats.
    """

    def __init__(self, folder: Path, name: str, text: Mapping[str, Any]) -> None:
        state = _read(folder / f"{name}.json")
        self.name, self.streams, self.position = name, int(state["streams"]), int(state["position"])
        self.actions, self.episodes = int(text["actions"]), tally.rows(text["episodes"])
        self.sums: list[list[int]] = state["sums"]
        schema = json.loads(state["schema"])
        self.fingerprint = [schema, self.position, self.sums]
        self.chunks = Chunks(folder / name, self.streams, chunk=int(state["chunk"]), length=1, limit_bytes=VAST)
        self.chunks.schema = tuple(Entry(e["key"], e["dtype"], tuple(e["shape"])) for e in schema["entries"])
        for number in self.chunks.numbers(0, self.position):
            path, size = self.chunks.file(number), self.chunks.bytes
            found = path.stat().st_size if path.is_file() else 0
            if found != size:
                what = f"is cut short ({found:,} of {size:,} bytes)" if found else "is missing"
                raise RecordingError(f"{path} {what}: copy the recording again")
            self.chunks.held[number] = self.chunks.map(number, shared=False)

    @property
    def keys(self) -> list[str]:
        """Of the entries of a record."""
        return self.chunks.keys

    def blocks(self) -> Iterator[dict[str, NDArray[Any]]]:
        """Chunk by chunk, (n, T, ...)."""
        for number, here, _ in self.chunks.pieces(0, 0, self.position):
            yield {key: column[:, here] for key, column in self.chunks.held[number].columns.items()}

    def episode(self, episode: Recorded) -> dict[str, NDArray[Any]]:
        """The records of one episode, (length + 1, ...)."""
        start, stop = episode.start, episode.start + episode.length + 1
        pieces = [(self.chunks.held[n].columns, here) for n, here, _ in self.chunks.pieces(0, start, stop)]
        return {
            key: np.concatenate([columns[key][episode.stream, here] for columns, here in pieces]) for key in self.keys
        }

    def rows(self, batch: int, length: int, past: int = 0, seed: int = 0) -> Batch:
        """See `Recording.rows`."""
        starts = self.position - length + 1
        if not self.position:
            raise RecordingError(f"{self.name} of this recording holds nothing: take the other part, or record anew")
        if starts < 1:
            raise RecordingError(
                f"a row of {length} records was asked of {self.name}, which holds {self.position:,} in each of "
                f"{self.streams} streams: ask for shorter rows, or record more"
            )
        drawn = np.random.default_rng(seed).integers(self.streams * starts, size=batch)
        return Rows(self.chunks, {}, oldest=0).batch(drawn // starts, drawn % starts, length, past)

    def verify(self) -> None:
        """Compare every chunk with its checksums."""
        for number, expected in zip(self.chunks.held, self.sums, strict=True):
            for key, one in zip(self.keys, expected, strict=True):
                column = self.chunks.held[number].columns[key]
                if commits.checksum(column, self.position - number * self.chunks.chunk) != one:
                    raise RecordingError(
                        f"{self.chunks.file(number)} is not what was saved (the checksum of {key!r} differs): copy the "
                        "recording again"
                    )


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise RecordingError(f"{path} is missing: copy the recording again") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise RecordingError(f"{path} is not what was saved: copy the recording again") from error
